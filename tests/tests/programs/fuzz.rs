//! Random packets, checked against rules that hold for every packet.
//!
//! `LBR_FUZZ_SEED` and `LBR_FUZZ_PACKETS` repeat a run, or choose another one.

use std::collections::BTreeMap;
use std::time::Instant;

use lbr_agent::dataplane::{Concerned, Dataplane as _};
use lbr_common::id::BackendId;
use lbr_common::service::{Frontend, frontend_flags};
use lbr_common::verdict::{Effect, Hook, Verdict};
use lbr_tests::packet::{Parsed, Transport, flags};
use lbr_tests::testrun::{Action, Ran};

use super::random::{Random, frame};
use super::world::{Net, PROTOS, World, at, nets, number, part};

const PACKETS: u64 = 300_000;
const AUTHENTICATION_HEADER: u8 = 51;

#[test]
fn random_packets() {
    let seed = number("LBR_FUZZ_SEED").unwrap_or(1);
    let packets = number("LBR_FUZZ_PACKETS").unwrap_or(PACKETS / part() as u64);
    let mut world = World::new("fuzz");
    let mut random = Random(seed);
    let mut seen = BTreeMap::<&str, u64>::new();
    let start = Instant::now();
    for n in 0..packets {
        if n % 2_000 == 0 {
            change(&mut world, &mut random);
        }
        let net = random.pick(&nets());
        let sent = frame(&mut random, &net);
        let (hook, link) = random.pick(&[
            (Hook::FromPod, 0),
            (Hook::FromPod, 0),
            (Hook::FromPod, 0),
            (Hook::FromPod, 1),
            (Hook::ToPod, 0),
        ]);
        let link = world.programs.links[link];
        let judged = match world.programs.run(hook, link, &sent) {
            Ok(ran) => {
                *seen.entry(ran.verdict.name()).or_default() += 1;
                judge(&net, &sent, &ran).map_err(|what| format!("{what}\nout {}\n{ran:?}", hex(&ran.packet)))
            }
            Err(error) => Err(format!("{error:#}")),
        };
        if let Err(what) = judged {
            let read = Parsed::frame(&sent);
            panic!("seed {seed}, packet {n}, {hook:?}, {read:?}: {what}\nin  {}", hex(&sent));
        }
    }
    println!("{packets} packets in {:?}, seed {seed}: {seen:?}", start.elapsed());
    // A run that misses the interesting verdicts proves nothing.
    for verdict in [
        Verdict::ToBackend,
        Verdict::ToClient,
        Verdict::IcmpError,
        Verdict::NoEndpoint,
        Verdict::NoSuchPort,
        Verdict::Malformed,
        Verdict::FragmentUnknown,
        Verdict::NoLocalEndpoint,
        Verdict::Unanswerable,
        Verdict::RoutingHeader,
        Verdict::TooManyHeaders,
    ] {
        assert!(
            packets < PACKETS || seen.get(verdict.name()).is_some_and(|n| *n > 20),
            "{verdict:?}: {seen:?}"
        );
    }
}

/// Replaces backends, as the agent would.
fn change(world: &mut World, random: &mut Random) {
    for net in nets() {
        let all = [
            at(net.local, 8080),
            at(net.remote, 8080),
            at(net.client, 8080),
            at(net.local, 53),
            at(net.remote, 53),
        ];
        for proto in PROTOS {
            for (service, port) in [(net.service, 80), (net.service, 53), (net.service2, 80)] {
                let from = random.below(all.len());
                world.service(at(service, port), proto, &all[from..=from + random.below(all.len() - from)]);
            }
            world.service(at(net.service, 81), proto, &[]);
            let none = Frontend {
                service: 900.into(),
                count: 0,
                flags: frontend_flags::LOCAL_ONLY,
                ..Frontend::default()
            };
            world.frontend(at(net.service2, 81), proto, none);
        }
    }
    // Removes the former backends, so that datagrams leave them.
    let used: Vec<BackendId> =
        world.programs.kernel.tables().slots.entries().unwrap().iter().map(|(_, s)| s.backend).collect();
    let backends = world.programs.kernel.tables().backends.entries().unwrap();
    for (id, _) in backends {
        if !used.contains(&id) {
            world.programs.kernel.tables().backends.remove(&id).unwrap();
        }
    }
    world.programs.kernel.raise_epoch(&Concerned::all()).unwrap();
    let keys: Vec<_> = world.programs.flows.keys();
    for key in keys {
        if random.once_in(3) {
            let _ = world.programs.flows.remove(&key);
        }
    }
}

fn require(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// The rules that hold for every packet.
fn judge(net: &Net, sent: &[u8], ran: &Ran) -> Result<(), String> {
    match ran.verdict.effect() {
        Effect::Pass => {
            require(ran.action == Action::Pass, "not passed")?;
            require(ran.packet == sent, "passed, but changed")
        }
        Effect::Drop => require(ran.action == Action::Drop, "not dropped"),
        Effect::Refuse => {
            require(ran.action == Action::Redirect, "refused, but not sent back")?;
            refused(sent, ran)
        }
        Effect::Translate => {
            require(ran.action != Action::Drop, "translated, but dropped")?;
            translated(net, sent, ran)
        }
    }
}

fn refused(sent: &[u8], ran: &Ran) -> Result<(), String> {
    let answer = Parsed::frame(&ran.packet)?;
    // The quoted packet may have had wrong checksums before.
    let own: Vec<String> =
        answer.checksum_errors().into_iter().filter(|e| !e.starts_with("quoted")).collect();
    require(own.is_empty(), "wrong checksum in an answer")?;
    require(ran.packet[..6] == sent[6..12] && ran.packet[6..12] == sent[..6], "MAC addresses not swapped")?;
    let about = Parsed::frame(sent)?;
    if let Transport::Tcp { flags: set, seq, ack } = answer.transport {
        require(set & flags::RST != 0 && answer.payload.is_empty(), "no reset")?;
        // RFC 9293, 3.5.2: the reset begins at the acknowledged number, or at zero and acknowledges the segment.
        let wanted = match about.transport {
            Transport::Tcp { flags: sent, ack, .. } if sent & flags::ACK != 0 => (flags::RST, ack, 0),
            Transport::Tcp { seq, .. } => (flags::RST | flags::ACK, 0, seq.wrapping_add(1)),
            // Its header claims more bytes than there are.
            _ => (set, seq, ack),
        };
        require((set, seq, ack) == wanted, "a reset with other numbers")?;
        return require(answer.src == about.dst && answer.dst == about.src, "a reset of another connection");
    }
    let headers = if answer.src.is_ipv6() { 62 } else { 42 };
    require(sent[14..].starts_with(&ran.packet[headers..]), "quotes bytes that were not sent")?;
    let back = answer.src.ip() == about.dst.ip() && answer.dst.ip() == about.src.ip();
    require(back, "answered to another address")
}

fn translated(net: &Net, sent: &[u8], ran: &Ran) -> Result<(), String> {
    require(ran.packet.len() == sent.len(), "another length")?;
    let (mut before, mut after) = (Parsed::frame(sent)?, Parsed::frame(&ran.packet)?);
    let own_errors = |packet: &Parsed| {
        let errors = packet.checksum_errors().into_iter();
        errors.filter(|e| !e.starts_with("quoted TCP")).collect::<Vec<_>>()
    };
    if own_errors(&before).is_empty() {
        require(own_errors(&after).is_empty(), "right checksum made wrong")?;
    }
    let services = [net.service, net.service2];
    let (src, dst) = (after.src.ip(), after.dst.ip());
    match ran.verdict {
        Verdict::ToBackend => {
            require([net.local, net.remote, net.client].contains(&dst), "to an address that is no backend")?;
            // Beside a flow to the same backend by a Service, a pod's own connection gets another source port.
            let is_beside = (after.src.ip(), after.dst) == (before.src.ip(), before.dst);
            require(services.contains(&before.dst.ip()) || is_beside, "was not for a Service")?;
            let is_hairpin = src == before.dst.ip() && before.src.ip() == dst;
            require(src == before.src.ip() || is_hairpin, "another source address")?;
        }
        Verdict::ToClient => require(services.contains(&src), "not from a Service")?,
        _ => {}
    }
    // Nothing but addresses and ports changes.
    blank(&mut before);
    blank(&mut after);
    require(before == after, "more than the ends changed")
}

/// Blanks what a translation may change, and what cannot be distinguished from that.
fn blank(packet: &mut Parsed) {
    let nowhere = if packet.src.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    packet.src = nowhere.parse().unwrap();
    packet.dst = packet.src;
    packet.forgive();
    if packet.transport == Transport::Cut || packet.protocol == AUTHENTICATION_HEADER {
        packet.payload.clear();
    }
    if let Transport::IcmpError { quoted, .. } = &mut packet.transport {
        // The same bytes as in the packet that was read from them.
        packet.payload.clear();
        blank(quoted);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
