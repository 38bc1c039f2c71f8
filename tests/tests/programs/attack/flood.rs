//! More first packets than the maps have room for.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lbr_agent::dataplane::Dataplane as _;
use lbr_common::conntrack::State;
use lbr_common::flow::Flow;
use lbr_common::maps::{FLOWS, UNCONFIRMED};
use lbr_common::service::backend_flags;
use lbr_common::tuple::Tuple;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::Parsed;
use lbr_tests::testrun::Action;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::wire_with_pods;
use crate::wire::{Wire, node};
use crate::world::{
    ELSEWHERE, LOCAL, Net, PORT, PROTOS, TCP, UDP, World, answering, at, expect, nets, opening, packet, part,
    segment, syn, tuple,
};

/// The calling thread.
const THIS: Pid = Pid::from_raw(0);
/// Conversations that are established, each with two entries.
const CONVERSATIONS: u16 = 100;

fn confirmed(world: &World) -> BTreeMap<Tuple, Flow> {
    let keys = world.programs.flows.keys().into_iter();
    keys.filter(|key| world.programs.flows.is_confirmed(key)).map(|key| (key, world.flow(key))).collect()
}

/// Established conversations of the client's pod: with a Service of this node, with one elsewhere, with a host.
fn converse(world: &mut World, net: &Net) -> BTreeMap<Tuple, Flow> {
    for proto in PROTOS {
        let (here, elsewhere) = (at(net.service, 80), at(net.service2, 80));
        world.service(here, proto, &[at(net.local, 8080)]);
        world.service(elsewhere, proto, &[at(net.remote, 8080)]);
        for port in PORT..PORT + CONVERSATIONS {
            let (to, server) = match port % 3 {
                0 => (here, LOCAL),
                1 => (elsewhere, ELSEWHERE),
                _ => (at(net.other, 443), ELSEWHERE),
            };
            world.connect(proto, at(net.client, port), to, server);
        }
    }
    let all = confirmed(world);
    assert_eq!(all.len(), usize::from(CONVERSATIONS) * 2 * PROTOS.len());
    all
}

/// First packets of a flood: with two entries each, more than `flows` has room for.
fn flood() -> usize {
    (FLOWS.max_entries / 2 + FLOWS.max_entries / 16) / part()
}

/// Datagrams and SYNs that differ in their ports.
fn first_packets(src: IpAddr, dst: IpAddr) -> impl Iterator<Item = Vec<u8>> {
    (0..flood()).map(move |n| {
        let (from, to) = (1_024 + (n % 30_000) as u16, 1_024 + (n / 30_000) as u16);
        opening(if n % 2 == 0 { TCP } else { UDP }, at(src, from), at(dst, to)).build()
    })
}

#[track_caller]
fn expect_all(world: &World, before: &BTreeMap<Tuple, Flow>) {
    assert_eq!(confirmed(world), *before, "established conversations are not what they were");
    let (_, unconfirmed) = world.programs.flows.len();
    let least = if part() == 1 { UNCONFIRMED.max_entries / 2 } else { 1 };
    assert!(unconfirmed >= least, "{unconfirmed} entries were no flood");
    // Two for each slot of all CPUs.
    assert!(unconfirmed <= 2 * UNCONFIRMED.max_entries, "{unconfirmed} entries are more than the quota");
}

/// A pod that opens connections as fast as it can evicts only first packets: no established connection loses an
/// entry, or anything in it.
#[test]
fn a_flood_of_first_packets_of_a_pod() {
    for net in nets() {
        let (mut wire, _policies) = wire_with_pods("flood-pod", &net);
        let before = converse(&mut wire.world, &net);
        for frame in first_packets(net.local, net.other) {
            assert_eq!(wire.world.answer(&frame).verdict, Verdict::Allowed);
        }
        expect_all(&wire.world, &before);
        goes_on(&mut wire.world, &net);
    }
}

/// The same by the wire, from arbitrary addresses to a Service.
#[test]
fn a_flood_of_first_packets_by_the_wire() {
    for net in nets() {
        let (mut wire, _policies) = wire_with_pods("flood-wire", &net);
        let before = converse(&mut wire.world, &net);
        let service = at(net.service, 443);
        for proto in PROTOS {
            let id = wire.world.service(service, proto, &[at(net.local, 8443)])[0];
            let kernel = &mut wire.world.programs.kernel;
            let found = kernel.tables().backends.entries().unwrap().into_iter().find(|(at, _)| *at == id);
            let mut backend = found.unwrap().1;
            backend.flags |= backend_flags::HERE;
            kernel.tables().backends.insert(&id, &backend).unwrap();
        }
        for n in 0..flood() {
            let (proto, host) = (if n % 2 == 0 { TCP } else { UDP }, n / 60_000 + 1);
            let ip = anybody(&net, host as u8);
            let frame = opening(proto, at(ip, 1_024 + (n % 60_000) as u16), service).build();
            assert_eq!(wire.run(Hook::FromNetdev, &frame).verdict, Verdict::ToBackend);
        }
        expect_all(&wire.world, &before);
        goes_on(&mut wire.world, &net);
    }
}

/// A slot in the ring of unconfirmed flows still names the tuple of an expired flow. A new flow with that tuple is not
/// evicted when the slot is reused, as it is not the oldest one.
#[test]
fn a_flood_against_a_client_that_comes_back() {
    // Each CPU has a ring of its own.
    let _pinned = Pinned::here();
    for net in nets().into_iter().take(if part() == 1 { 2 } else { 1 }) {
        let (mut wire, _policies) = wire_with_pods("flood-back", &net);
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        wire.world.service(service, UDP, &[backend]);
        let slots = UNCONFIRMED.max_entries / aya::util::nr_cpus().unwrap();
        let mut others = (0..).map(|n: usize| {
            let (from, to) = (1_024 + (n % 30_000) as u16, 1_024 + (n / 30_000) as u16);
            opening(UDP, at(net.local, from), at(net.other, to)).build()
        });
        let ask = opening(UDP, client, service).build();
        expect(&wire.world.send(&ask), Verdict::ToBackend, Action::Redirect);
        for frame in others.by_ref().take(slots - 50) {
            wire.world.answer(&frame);
        }
        // Without an answer, the client asks again later, from the same port.
        wire.world.age(tuple(UDP, client, service), 60);
        expect(&wire.world.send(&ask), Verdict::ToBackend, Action::Redirect);
        for frame in others.take(100) {
            wire.world.answer(&frame);
        }
        let answered = wire.world.answer(&packet(UDP, backend, client).build());
        assert_eq!(expect(&answered, Verdict::ToClient, Action::Redirect).src, service);
    }
}

/// Keeps this thread on its current CPU, until dropped.
struct Pinned {
    before: CpuSet,
}

impl Pinned {
    fn here() -> Self {
        let before = sched_getaffinity(THIS).unwrap();
        let mut cpus = CpuSet::new();
        cpus.set(sched_getcpu().unwrap()).unwrap();
        sched_setaffinity(THIS, &cpus).unwrap();
        Self { before }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(THIS, &self.before);
    }
}

fn anybody(net: &Net, host: u8) -> IpAddr {
    if net.family.is_v6() {
        format!("2001:db8:7::{host}").parse().unwrap()
    } else {
        [198, 51, 100, host].into()
    }
}

/// Each conversation goes on in both directions.
fn goes_on(world: &mut World, net: &Net) {
    for proto in PROTOS {
        for port in PORT..PORT + CONVERSATIONS {
            let client = at(net.client, port);
            let (to, seen, verdicts) = match port % 3 {
                0 => (at(net.service, 80), at(net.local, 8080), (Verdict::ToBackend, Verdict::ToClient)),
                1 => (at(net.service2, 80), at(net.remote, 8080), (Verdict::ToBackend, Verdict::ToClient)),
                _ => (at(net.other, 443), at(net.other, 443), (Verdict::Allowed, Verdict::Allowed)),
            };
            let ran = world.send(&packet(proto, client, to).build());
            assert_eq!(ran.verdict, verdicts.0);
            assert_eq!(Parsed::frame(&ran.packet).unwrap().dst, seen);
            let answer = packet(proto, seen, client).build();
            let ran = if port % 3 == 0 { world.answer(&answer) } else { world.deliver(&answer) };
            assert_eq!(ran.verdict, verdicts.1);
            assert_eq!(Parsed::frame(&ran.packet).unwrap().src, to);
        }
    }
}

/// A node that does SNAT for a backend elsewhere: SYNs without a handshake hold every port of it.
struct Held {
    wire: Wire,
    net: Net,
    service: SocketAddr,
}

impl Held {
    fn new(net: Net) -> Self {
        let mut wire = Wire::new("held");
        let service = at(net.service, 80);
        wire.world.service(service, TCP, &[at(net.remote, 8080)]);
        Self { wire, net, service }
    }

    /// Sends SYNs, of which none may be refused; returns the ports of the node that they got.
    fn flood(&mut self, count: u16) -> BTreeMap<u16, u32> {
        let mut given = BTreeMap::new();
        for n in 0..count {
            let client = at(anybody(&self.net, 66), 1_024 + n);
            let frame = syn(client, self.service).build();
            let ran = self.wire.run(Hook::FromNetdev, &frame);
            *given.entry(expect(&ran, Verdict::ToBackend, Action::Redirect).src.port()).or_default() += 1;
        }
        given
    }
}

/// A first packet holds its port only until another connection needs it: a client always gets one.
#[test]
fn a_port_held_by_silence() {
    const PORTS: u16 = u16::MAX - 61_000 + 1;
    for net in nets() {
        let mut held = Held::new(net);
        let (client, service) = (at(net.other, PORT), held.service);
        let (seen, backend) = held.wire.establish(TCP, client, service);
        let given = held.flood(PORTS * 2);
        assert!(given.len() > usize::from(PORTS) * 9 / 10, "{} ports are no flood", given.len());
        assert!(!given.contains_key(&seen.port()), "the port of an established connection was given away");
        // Right behind them, within the second in which a handshake may still be on its way.
        let late = at(net.other, PORT + 1);
        let (late_seen, _) = held.wire.establish(TCP, late, service);
        assert_ne!(late_seen.port(), seen.port());
        held.flood(PORTS);
        for (client, seen) in [(client, seen), (late, late_seen)] {
            let key = tuple(TCP, client, service);
            assert_eq!(held.wire.world.state(key), State::Established);
            let there = packet(TCP, client, service).build();
            let ran = held.wire.run(Hook::FromNetdev, &there);
            assert_eq!(expect(&ran, Verdict::ToBackend, Action::Redirect).src, seen);
            let back = packet(TCP, backend, seen).build();
            let ran = held.wire.run(Hook::FromNetdev, &back);
            assert_eq!(expect(&ran, Verdict::ToClient, Action::Redirect).dst, client);
        }
    }
}

/// While the flood lasts, the next SYN takes the port of one without a handshake; a port is safe for its first
/// second.
#[test]
fn a_handshake_among_silent_ports() {
    for net in nets() {
        let mut held = Held::new(net);
        held.flood(u16::MAX - 61_000 + 1);
        for key in held.wire.world.programs.flows.keys() {
            let mut flow = held.wire.world.flow(key);
            flow.last_seen = flow.last_seen.wrapping_sub(2_000_000_000);
            held.wire.world.programs.flows.insert(&key, &flow).unwrap();
        }
        let (client, service) = (at(net.other, PORT), held.service);
        let sent = held.wire.run(Hook::FromNetdev, &syn(client, service).build());
        let sent = expect(&sent, Verdict::ToBackend, Action::Redirect);
        held.flood(1_000);
        let answer = answering(TCP, sent.dst, sent.src).build();
        let answered = held.wire.run(Hook::FromNetdev, &answer);
        assert_eq!(expect(&answered, Verdict::ToClient, Action::Redirect).dst, client);
        let last = segment(client, service, lbr_tests::packet::flags::ACK).build();
        held.wire.run(Hook::FromNetdev, &last);
        assert_eq!(held.wire.world.state(tuple(TCP, client, service)), State::Established);
        assert_eq!(sent.src.ip(), node(&net));
    }
}
