//! Source addresses that do not belong to their link, with and without `--source-check`.

use lbr_agent::dataplane::Pinned;
use lbr_common::maps::config::options;
use lbr_common::policy::policy_flags;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::testrun::{Action, Ran};

use super::Policies;
use crate::world::{PORT, PROTOS, UDP, World, at, expect_drop, expect_untouched, nets, packet, syn};

const CHECKED: u32 = 0;
const ANY: u32 = options::ANY_SOURCE;

/// How often a verdict was counted at a hook.
fn counted(world: &World, hook: Hook, verdict: Verdict) -> u64 {
    let counters = Pinned::open(world.programs.pins()).unwrap().counters().unwrap();
    let found = counters.into_iter().find(|count| (count.hook, count.verdict) == (hook, verdict));
    found.map_or(0, |count| count.counter.packets)
}

#[track_caller]
fn expect(ran: &Ran, verdict: Verdict, frame: &[u8]) {
    match verdict {
        Verdict::SpoofedSource | Verdict::NotJudged => expect_drop(ran, verdict, frame),
        _ => expect_untouched(ran, verdict, frame),
    }
}

/// Packets that the client's pod sends from another address. With `ANY_SOURCE` that address is judged; a pod that is
/// isolated for egress still cannot send them.
#[test]
fn of_a_pod() {
    for net in nets() {
        for (options, flags, then) in [
            (CHECKED, 0, Some(Verdict::SpoofedSource)),
            (CHECKED, policy_flags::ISOLATED_OUT, Some(Verdict::SpoofedSource)),
            (ANY, 0, None),
            (ANY, policy_flags::ISOLATED_IN, None),
            (ANY, policy_flags::ISOLATED_OUT, Some(Verdict::NotJudged)),
        ] {
            let mut world = World::with("spoofed", options);
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 0, net.client, flags);
            policies.apply(&mut world);
            let mut dropped = 0;
            for proto in PROTOS {
                // Between unknown ends a datagram begins a flow, an acknowledgement does not.
                let unknown = if proto == UDP { Verdict::Allowed } else { Verdict::NotService };
                // Another pod of this node, a pod of another node, a host outside, and the node itself.
                let pretended = [
                    (net.local, Verdict::Allowed),
                    (net.remote, unknown),
                    (net.other, unknown),
                    (net.router, Verdict::Node),
                ];
                for (source, known) in pretended {
                    let frame = packet(proto, at(source, PORT), at(net.remote2, 80)).build();
                    expect(&world.send(&frame), then.unwrap_or(known), &frame);
                    dropped += u64::from(then.is_some());
                }
            }
            for verdict in [Verdict::SpoofedSource, Verdict::NotJudged] {
                let wanted = if then == Some(verdict) { dropped } else { 0 };
                assert_eq!(counted(&world, Hook::FromPod, verdict), wanted, "{verdict:?}");
            }
            // Its own address is judged by its policies.
            let frame = packet(UDP, at(net.client, PORT), at(net.remote2, 80)).build();
            let own = if flags & policy_flags::ISOLATED_OUT == 0 {
                (Verdict::Allowed, Action::Pass)
            } else {
                (Verdict::EgressDenied, Action::Drop)
            };
            let ran = world.send(&frame);
            assert_eq!((ran.verdict, ran.action), own);
        }
    }
}

/// A packet of another pod's flow.
#[test]
fn of_a_pod_that_knows_a_flow() {
    for net in nets() {
        for (options, flags, then) in [
            (CHECKED, 0, Verdict::SpoofedSource),
            (ANY, 0, Verdict::Allowed),
            (ANY, policy_flags::ISOLATED_OUT, Verdict::NotJudged),
        ] {
            let mut world = World::with("spoofed-flow", options);
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 1, net.local, flags);
            policies.apply(&mut world);
            for proto in PROTOS {
                let frame = packet(proto, at(net.client, PORT), at(net.other, 80)).build();
                expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
                expect(&world.answer(&frame), then, &frame);
                expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
            }
        }
    }
}

/// A packet from an interface with the node's address is masqueraded by the node's stack, so policies judge it like
/// any address. A packet of the node itself is not judged.
#[test]
fn of_the_node() {
    for net in nets() {
        for (options, flags, then) in [
            (CHECKED, 0, Verdict::Allowed),
            (CHECKED, policy_flags::ISOLATED_IN, Verdict::IngressDenied),
            (ANY, 0, Verdict::Allowed),
            (ANY, policy_flags::ISOLATED_IN, Verdict::IngressDenied),
        ] {
            let mut world = World::with("spoofed-node", options);
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 0, net.client, flags);
            policies.apply(&mut world);
            let (node, pod) = (at(net.router, PORT), at(net.client, 80));
            for frame in [syn(node, pod).build(), packet(UDP, node, pod).build()] {
                let ran = world.deliver(&frame);
                let action = if then == Verdict::Allowed { Action::Pass } else { Action::Drop };
                assert_eq!((ran.verdict, ran.action), (then, action));
                world.reset_flows();
                let link = world.programs.links[0];
                let ran = world.programs.run_from_node(link, &frame).unwrap();
                expect_untouched(&ran, Verdict::Node, &frame);
            }
            assert_eq!(counted(&world, Hook::ToPod, then), 2);
            assert_eq!(counted(&world, Hook::ToPod, Verdict::Node), 2);
        }
    }
}

/// A link whose pod is not known yet may send from addresses that belong to no other link.
#[test]
fn of_a_link_without_a_pod() {
    const UNKNOWN: usize = 2;
    for net in nets() {
        for (options, own, others) in [
            (CHECKED, Verdict::Allowed, Verdict::SpoofedSource),
            (ANY, Verdict::Allowed, Verdict::Allowed),
            (options::DENY_PENDING, Verdict::PodPending, Verdict::SpoofedSource),
        ] {
            let mut world = World::with("spoofed-unknown", options);
            let _policies = Policies::pods(&mut world, &net);
            for (source, then) in [(net.remote, own), (net.client, others)] {
                let frame = packet(UDP, at(source, PORT), at(net.other, 80)).build();
                let ran = world.run(Hook::FromPod, UNKNOWN, &frame);
                if then == Verdict::PodPending {
                    expect_drop(&ran, then, &frame);
                } else {
                    expect(&ran, then, &frame);
                }
            }
        }
    }
}
