//! Random conversations: the entries are in the state of the state machine, and in the table of that state.

use std::net::SocketAddr;

use lbr_common::conntrack::{Segment, Side, State, Timeouts, lifetime};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Verdict;
use lbr_tests::packet::{Packet, chunk, flags};

use super::random::Random;
use super::world::{
    ACKNOWLEDGED, PORT, PROTOS, SCTP, TCP, UDP, World, at, nets, packet, part, segment, tuple,
};

const CONVERSATIONS: usize = 4_000;
const PACKETS: usize = 14;

/// The expected entries.
#[derive(Clone, Copy, Debug)]
struct Model {
    state: State,
    /// The number that acknowledges the last SYN/ACK that counted; for datagrams, since when it is a stream.
    proof: u32,
    /// Seconds since the first packet, and since the last one.
    age: u64,
    silence: u64,
}

impl Model {
    const NEW: Self = Self { state: State::New, proof: 0, age: 0, silence: 0 };

    fn is_expired(&self, proto: u8) -> bool {
        self.silence * 1_000_000_000 > lifetime(self.state, proto, &Timeouts::DEFAULT)
    }

    /// The model after a packet of its connection.
    fn after(self, proto: u8, side: Side, segment: Segment, (seq, ack): (u32, u32)) -> Self {
        let is_proven = if proto == UDP { self.age >= 3 } else { ack == self.proof };
        let state = self.state.next(side, segment, is_proven);
        let is_answer = side == Side::Reply && segment == Segment::SynAck && !state.is_confirmed();
        let proof = if is_answer { seq.wrapping_add(1) } else { self.proof };
        Self { state, proof, silence: 0, ..self }
    }
}

/// A packet of either side.
#[derive(Clone, Copy, Debug)]
struct Step {
    side: Side,
    bits: u8,
    has_payload: bool,
    numbers: (u32, u32),
    /// Seconds that pass before.
    wait: u64,
}

fn step(random: &mut Random) -> Step {
    let by_client = random.once_in(2);
    let usual = [flags::ACK, flags::PSH | flags::ACK, flags::FIN | flags::ACK, flags::SYN | flags::ACK];
    let seldom = [flags::SYN, flags::RST, flags::RST | flags::ACK, 0];
    let is_seldom = random.once_in(6);
    let mut bits = random.pick(if is_seldom { &seldom } else { &usual });
    if by_client && bits & (flags::SYN | flags::ACK) == flags::SYN | flags::ACK && !random.once_in(4) {
        bits = flags::SYN;
    }
    if !by_client && bits == flags::SYN {
        // A SYN would begin a connection of the server.
        bits |= flags::ACK;
    }
    let seq = random.pick(&[ACKNOWLEDGED - 1, ACKNOWLEDGED - 1, 41]);
    let ack = random.pick(&[ACKNOWLEDGED, ACKNOWLEDGED, 42, 0]);
    let waits = [3, 3, 8, 12, 28, 32, 58, 62, 118, 122, 178, 182, 3_590, 3_610, 86_000, 86_410];
    Step {
        side: if by_client { Side::Original } else { Side::Reply },
        bits,
        has_payload: bits & !flags::PSH == flags::ACK && random.once_in(3),
        numbers: (seq, ack),
        wait: if random.once_in(4) { random.pick(&waits) } else { 0 },
    }
}

/// The chunk that is sent in the place of a TCP segment with these flags.
fn chunk_of(bits: u8) -> u8 {
    match bits & (flags::SYN | flags::ACK | flags::RST) {
        flags::SYN => chunk::INIT,
        both if both == flags::SYN | flags::ACK => chunk::INIT_ACK,
        flags::RST => chunk::ABORT,
        reset if reset & flags::RST != 0 => chunk::SHUTDOWN_COMPLETE,
        flags::ACK => chunk::COOKIE_ECHO,
        _ => chunk::DATA,
    }
}

/// What RFC 9260, 5 and 9 make of it, in the words of the table of states.
fn of_chunk(chunk: u8) -> Segment {
    match chunk {
        chunk::INIT => Segment::Syn,
        chunk::INIT_ACK => Segment::SynAck,
        chunk::ABORT | chunk::SHUTDOWN_COMPLETE => Segment::Rst,
        _ => Segment::Data,
    }
}

fn run(world: &mut World, proto: u8, step: &Step, ends: (SocketAddr, SocketAddr, SocketAddr)) -> Verdict {
    let (client, service, backend) = ends;
    let (src, dst) = if step.side == Side::Original { (client, service) } else { (backend, client) };
    let (seq, ack) = step.numbers;
    let payload: &[u8] = if step.has_payload { b"data" } else { b"" };
    let packet = match proto {
        TCP => segment(src, dst, step.bits).numbers(seq, ack).payload(payload),
        SCTP => Packet::sctp(src, dst, chunk_of(step.bits)).tags(seq.wrapping_add(1), ack),
        _ => packet(proto, src, dst),
    };
    let frame = packet.build();
    if step.side == Side::Original { world.send(&frame).verdict } else { world.answer(&frame).verdict }
}

#[test]
fn random_conversations_follow_the_state_machine() {
    let mut random = Random(7);
    let mut world = World::new("states");
    let mut seen = std::collections::BTreeMap::<(u8, &str), u32>::new();
    for number in 0..CONVERSATIONS / part() {
        let net = random.pick(&nets());
        let proto = random.pick(&PROTOS);
        let ends = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        let (client, service, backend) = ends;
        let keys: [Tuple; 2] = [tuple(proto, client, service), tuple(proto, backend, client)];
        world.service(service, proto, &[backend]);
        let mut model: Option<Model> = None;
        let mut past = Vec::new();
        for n in 0..PACKETS {
            let mut step = step(&mut random);
            // A datagram of the backend that answers nothing would begin a flow of its own.
            if n == 0 && (proto != TCP || !random.once_in(8)) {
                (step.side, step.bits) = (Side::Original, flags::SYN);
            }
            if let Some(model) = &mut model {
                world.age(keys[0], step.wait);
                model.age += step.wait;
                model.silence += step.wait;
            }
            let kind = match proto {
                TCP => Segment::of_tcp(step.bits, step.has_payload),
                SCTP => of_chunk(chunk_of(step.bits)),
                _ => Segment::Datagram,
            };
            let opens = step.side == Side::Original && matches!(kind, Segment::Syn | Segment::Datagram);
            let living = model.filter(|model| !model.is_expired(proto));
            let found = living.filter(|model| !(kind == Segment::Syn && model.state.is_over()));
            let next = match found {
                Some(model) => Some(model.after(proto, step.side, kind, step.numbers)),
                None if opens => Some(Model::NEW),
                None => model,
            };
            past.push(step);
            let verdict = run(&mut world, proto, &step, ends);
            let about =
                || format!("conversation {number}, {proto}: {past:?}: {verdict:?}, {model:?} to {next:?}");
            let is_found = matches!(verdict, Verdict::ToBackend | Verdict::ToClient);
            assert_eq!(is_found, found.is_some() || opens, "{}", about());
            for key in keys {
                assert_eq!(world.has_flow(key), next.is_some(), "{}", about());
                let Some(next) = next else { continue };
                assert_eq!(world.state(key), next.state, "{}", about());
                assert_eq!(world.programs.flows.is_confirmed(&key), next.state.is_confirmed(), "{}", about());
            }
            model = next;
            if let Some(model) = model {
                *seen.entry((proto, model.state.name())).or_default() += 1;
            }
        }
        let (confirmed, unconfirmed) = if number % 64 == 0 { world.programs.flows.len() } else { (0, 0) };
        assert!(confirmed + unconfirmed <= 2, "an entry is left behind: {past:?}");
        for key in keys {
            let _ = world.programs.flows.remove(&key);
        }
    }
    println!("{seen:?}");
    // A run that meets only a few states proves nothing.
    let least = if part() == 1 { 50 } else { 0 };
    for state in State::ALL.into_iter().filter(|state| *state != State::PickedUp) {
        assert!(seen.get(&(TCP, state.name())).copied().unwrap_or(0) >= least, "{state:?}: {seen:?}");
    }
}
