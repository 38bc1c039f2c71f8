//! The ring of events: their content, and their number.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use lbr_common::id::PolicySetId;
use lbr_common::maps;
use lbr_common::policy::{EVENTS_PER_SECOND, Event, direction, policy_flags};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::testrun;
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::{AUDIT, Policies, SET, denials};
use crate::world::{PORT, TCP, UDP, World, at, nets, packet, syn, tuple};

/// Reads the events that the programs report.
struct Ring(RingBuf<MapData>);

impl Ring {
    fn open(world: &World) -> Self {
        let map = testrun::open(world.programs.pins(), &maps::EVENTS).unwrap();
        Self(RingBuf::try_from(map).unwrap())
    }

    fn take(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(item) = self.0.next() {
            assert_eq!(item.len(), size_of::<Event>());
            // SAFETY: as many bytes as it has, which need not be aligned; it is made of integers only.
            events.push(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
        events
    }
}

/// The clock of the programs, in nanoseconds.
fn now() -> u64 {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap());
    time.as_nanos() as u64
}

#[test]
fn events_describe_denials() {
    for net in nets() {
        let mut world = World::new("events");
        let mut policies = Policies::pods(&mut world, &net);
        let flags = policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT | policy_flags::AUDIT_OUT;
        policies.pod(&world, 0, net.client, flags);
        policies.allow(SET, direction::EGRESS, TCP, 443);
        policies.apply(&mut world);
        let mut ring = Ring::open(&world);
        let (client, other) = (at(net.client, PORT), at(net.other, 80));
        let (service, backend) = (at(net.service, 443), at(net.remote, 8080));
        world.service(service, TCP, &[backend]);
        let (client_link, local_link) = (world.programs.links[0], world.programs.links[1]);
        let denied = |verdict, hook, way: u32, set, tuple: Tuple, link| Event {
            tuple,
            set,
            ifindex: link,
            direction: way as u16,
            verdict: verdict as u8,
            hook: hook as u8,
            ..Event::default()
        };
        let (egress, ingress) = (direction::EGRESS, direction::INGRESS);
        let (from, to) = (Hook::FromPod, Hook::ToPod);
        let began = now();
        let expected = [
            (
                world.send(&syn(client, other).build()),
                denied(Verdict::EgressDenied, from, egress, SET, tuple(TCP, client, other), client_link),
            ),
            // With the client's source and the backend's destination.
            (
                world.send(&syn(client, service).build()),
                denied(Verdict::EgressDenied, from, egress, SET, tuple(TCP, client, backend), client_link),
            ),
            // It opens nothing, so both directions are judged; it is reported as it came.
            (
                world.deliver(&packet(TCP, other, client).build()),
                denied(Verdict::IngressDenied, to, ingress, SET, tuple(TCP, other, client), client_link),
            ),
            (
                world.answer(&packet(UDP, client, other).build()),
                denied(
                    Verdict::SpoofedSource,
                    from,
                    ingress,
                    PolicySetId::NONE,
                    tuple(UDP, client, other),
                    local_link,
                ),
            ),
            // Passes, as the enforced set allows port 443.
            (
                world.send(&syn(client, at(net.other, 443)).build()),
                denied(
                    Verdict::EgressAudited,
                    from,
                    egress,
                    AUDIT,
                    tuple(TCP, client, at(net.other, 443)),
                    client_link,
                ),
            ),
        ];
        let ended = now();
        let events = ring.take();
        assert_eq!(events.len(), expected.len(), "{events:?}");
        for (event, (ran, wanted)) in events.into_iter().zip(expected) {
            assert!((began..=ended).contains(&event.time), "{event:?} is not from {began}..={ended}");
            assert_eq!(event, Event { time: event.time, ..wanted });
            let verdict = ran.audits.first().copied().unwrap_or(ran.verdict);
            assert_eq!(event.verdict, verdict as u8);
        }
    }
}

/// A storm of denials is counted, but not reported one by one.
#[test]
fn events_are_rate_limited() {
    const MORE: u32 = 50;
    let mut world = World::new("events-limit");
    let [net, _] = nets();
    let mut policies = Policies::pods(&mut world, &net);
    policies.pod(&world, 0, net.client, policy_flags::ISOLATED_OUT);
    policies.apply(&mut world);
    let mut ring = Ring::open(&world);
    // The limit is for one CPU.
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu().unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
    let frame = syn(at(net.client, PORT), at(net.other, 80)).build();
    let mut sent = 0;
    let events = (0..10).find_map(|_| {
        // Another second than that of the last attempt.
        std::thread::sleep(Duration::from_millis(1_100));
        let began = now();
        for _ in 0..EVENTS_PER_SECOND + MORE {
            assert_eq!(world.send(&frame).verdict, Verdict::EgressDenied);
        }
        sent += u64::from(EVENTS_PER_SECOND + MORE);
        let events = ring.take();
        // Otherwise it was no storm: the machine has other work.
        (now() - began < 900_000_000).then_some(events)
    });
    let events = events.unwrap();
    assert_eq!(events.len(), EVENTS_PER_SECOND as usize);
    assert!(events[1..].iter().all(|event| event.suppressed == 0));
    assert_eq!(denials(&world), [(SET, direction::EGRESS, 0, sent)]);
    // The first event of another second has the number of those left out.
    std::thread::sleep(Duration::from_millis(1_100));
    for suppressed in [MORE, 0] {
        assert_eq!(world.send(&frame).verdict, Verdict::EgressDenied);
        let [event] = ring.take()[..] else { panic!("not one event") };
        assert_eq!(event.suppressed, suppressed);
    }
}
