//! A way into a pod, or out of it, by another pod's address.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, Reason};
use lbr_tests::testrun::Programs;

use super::{beginnings, strays};
use crate::policy::Policies;
use crate::world::{
    CLIENT, LOCAL, Net, PORT, PROTOS, UDP, Way, World, at, expect_drop, expect_untouched, nets, opening,
    packet, tuple,
};

/// The client's pod is isolated for ingress; the local one is not.
fn isolated(name: &str, net: &Net) -> (World, Policies) {
    let mut world = World::new(name);
    let mut policies = Policies::pods(&mut world, net);
    policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN);
    policies.apply(&mut world);
    (world, policies)
}

/// Policies are looked up by address. A frame for an isolated pod's link address with another pod's IP address is
/// dropped, whatever conversation of that other pod it belongs to.
#[test]
fn anothers_packet_at_an_isolated_pod() {
    for net in nets() {
        let (mut world, _policies) = isolated("anothers", &net);
        let (from, open) = (at(net.other, PORT), at(net.local, 80));
        for packet in beginnings(from, open).into_iter().chain(strays(from, open)) {
            let frame = packet.build();
            expect_drop(&world.deliver(&frame), Verdict::NotJudged, &frame);
            assert!(world.programs.flows.is_empty());
        }
        for proto in PROTOS {
            for established in [false, true] {
                let at_local: Way = (Hook::ToPod, 1);
                let first = opening(proto, from, open).build();
                if established {
                    world.establish(proto, (from, at_local), open, LOCAL);
                } else {
                    expect_untouched(&world.run(Hook::ToPod, 1, &first), Verdict::Allowed, &first);
                }
                let key = tuple(proto, from, open);
                let before = world.flow(key);
                for frame in [first, packet(proto, from, open).build()] {
                    expect_drop(&world.deliver(&frame), Verdict::NotJudged, &frame);
                    expect_untouched(&world.run(Hook::ToPod, 1, &frame), Verdict::Allowed, &frame);
                }
                assert_eq!(world.flow(key).out_ifindex, before.out_ifindex);
                world.reset_flows();
            }
        }
        // A pod without isolation gets what its link carries, if the pod with the packet's address may get it.
        for packet in beginnings(from, at(net.remote2, 80)) {
            let frame = packet.build();
            expect_untouched(&world.run(Hook::ToPod, 1, &frame), Verdict::NotService, &frame);
        }
        for packet in beginnings(from, at(net.client, 80)) {
            let frame = packet.build();
            expect_drop(&world.run(Hook::ToPod, 1, &frame), Verdict::IngressDenied, &frame);
        }
    }
}

/// The same with the ports of a conversation that a Service leads to another pod: a translated packet was judged for
/// the pod that it was translated for.
#[test]
fn anothers_translated_packet_at_an_isolated_pod() {
    const THIRD: usize = 2;
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("anothers-service");
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, THIRD, net.remote2, policy_flags::ISOLATED_IN);
            policies.apply(&mut world);
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            world.service(service, proto, &[backend]);
            world.connect(proto, client, service, LOCAL);
            let own = world.programs.links[0];
            for make in [opening, packet] {
                let frame = make(proto, client, backend).build();
                expect_drop(&world.forward(own, THIRD, &frame), Verdict::NotJudged, &frame);
                let frame = make(proto, service, client).build();
                expect_drop(&world.forward(own, THIRD, &frame), Verdict::NotJudged, &frame);
            }
        }
    }
}

/// An error for another pod is dropped as well, related or not.
#[test]
fn anothers_error_at_an_isolated_pod() {
    for net in nets() {
        for proto in PROTOS {
            let (mut world, _policies) = isolated("anothers-error", &net);
            let (local, other) = (at(net.local, PORT), at(net.other, 80));
            let quoted = packet(proto, local, other).build_ip();
            let error = Packet::icmp_error(net.other, net.local, Reason::PortUnreachable, &quoted).build();
            expect_drop(&world.deliver(&error), Verdict::NotJudged, &error);
            world.establish(proto, (local, LOCAL), other, (Hook::ToPod, 1));
            expect_drop(&world.deliver(&error), Verdict::NotJudged, &error);
            let ran = world.run(Hook::ToPod, 1, &error);
            assert_eq!(ran.verdict, Verdict::IcmpError);
        }
    }
}

/// A pod that overhears a packet for another pod answers in its own name only.
#[test]
fn an_answer_in_anothers_name() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("anothers-name");
            let _policies = Policies::pods(&mut world, &net);
            let (other, client) = (at(net.other, PORT), at(net.client, 80));
            let link = world.programs.links[1];
            // Flooded to the local pod's link as well, before or after it is delivered.
            for heard_first in [true, false] {
                let frame = opening(proto, other, client).build();
                let mut order = [0, 1];
                if heard_first {
                    order.reverse();
                }
                for link in order {
                    world.run(Hook::ToPod, link, &frame);
                }
                let back = crate::world::answering(proto, client, other).build();
                expect_drop(&world.answer(&back), Verdict::SpoofedSource, &back);
                expect_untouched(&world.send(&back), Verdict::Allowed, &back);
                expect_drop(&world.answer(&back), Verdict::SpoofedSource, &back);
                // And in mid-stream, also where an overheard packet confirms the conversation.
                if proto == UDP {
                    world.age(tuple(proto, other, client), 3);
                }
                let frame = packet(proto, other, client).build();
                for link in order {
                    world.run(Hook::ToPod, link, &frame);
                }
                assert!(world.programs.flows.is_confirmed(&tuple(proto, client, other)));
                let back = packet(proto, client, other).build();
                expect_drop(&world.answer(&back), Verdict::SpoofedSource, &back);
                assert_ne!(world.flow(tuple(proto, client, other)).in_ifindex, link);
                expect_untouched(&world.send(&back), Verdict::Allowed, &back);
                world.reset_flows();
            }
        }
    }
}

/// A flow remembers the link of its destination, whichever interface its packets come by.
#[test]
fn a_conversation_at_another_link() {
    for net in nets() {
        for proto in PROTOS {
            let (mut world, _policies) = isolated("another-link", &net);
            // The isolated pod's own conversation, as seen at its link.
            let (client, other) = (at(net.client, PORT), at(net.other, 80));
            world.establish(proto, (client, CLIENT), other, (Hook::ToPod, 0));
            let answer = packet(proto, other, client).build();
            for _ in 0..2 {
                expect_untouched(&world.forward(Programs::WIRE, 0, &answer), Verdict::Allowed, &answer);
                // By another interface too: the source is an address without a link.
                let link = world.programs.links[2];
                expect_untouched(&world.forward(link, 0, &answer), Verdict::Allowed, &answer);
            }
            assert_eq!(world.flow(tuple(proto, other, client)).out_ifindex, world.programs.links[0]);
        }
    }
}
