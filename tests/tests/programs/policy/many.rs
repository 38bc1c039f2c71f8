//! Packets to groups, broadcast addresses or unknown pods that reach an isolated pod.

use std::net::IpAddr;

use lbr_common::policy::{direction, policy_flags};
use lbr_common::verdict::Verdict;

use super::{Policies, SET};
use crate::world::{Net, PORT, UDP, World, at, expect_drop, expect_untouched, nets, packet};

/// Addresses of no pod whose packets reach pods: groups, and the broadcast addresses of all and of the pod's network.
fn many(net: &Net) -> Vec<IpAddr> {
    let texts: &[&str] = if net.family.is_v6() {
        &["ff02::1", "ff05::1:3"]
    } else {
        &["239.1.2.3", "255.255.255.255", "10.244.1.255"]
    };
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// No policy of the receiver covers such a packet, so isolation keeps it out: the first packet, and those that
/// follow. The node may send anything.
#[test]
fn packet_to_many_does_not_reach_an_isolated_pod() {
    for net in nets() {
        let mut world = World::new("many");
        let mut policies = Policies::pods(&mut world, &net);
        let link = world.programs.links[0];
        for isolated in [true, false, true] {
            let flags = if isolated { policy_flags::ISOLATED_IN } else { policy_flags::ISOLATED_OUT };
            policies.pod(&world, 0, net.client, flags);
            policies.apply(&mut world);
            for to in many(&net) {
                // From a pod of this node, whose own policies are asked first.
                let from_pod = packet(UDP, at(net.local, PORT), at(to, 80)).build();
                let from_afar = packet(UDP, at(net.other, PORT), at(to, 80)).build();
                for _ in 0..2 {
                    expect_untouched(&world.answer(&from_pod), Verdict::Allowed, &from_pod);
                    let local = world.programs.links[1];
                    for (frame, by, open) in
                        [(&from_pod, local, Verdict::Allowed), (&from_afar, 1, Verdict::NotService)]
                    {
                        let ran = world.forward(by, 0, frame);
                        if isolated {
                            expect_drop(&ran, Verdict::NotJudged, frame);
                        } else {
                            expect_untouched(&ran, open, frame);
                        }
                    }
                    let by_node = packet(UDP, at(net.router, PORT), at(to, 80)).build();
                    let ran = world.programs.run_from_node(link, &by_node).unwrap();
                    expect_untouched(&ran, Verdict::Node, &by_node);
                }
            }
        }
    }
}

/// A flow that is older than the agent's knowledge of the receiver is judged like any other.
#[test]
fn a_receiver_that_becomes_known() {
    for net in nets() {
        let mut world = World::new("becomes-known");
        let mut policies = Policies::new(&mut world);
        policies.pod(&world, 1, net.local, 0);
        policies.apply(&mut world);
        let frame = packet(UDP, at(net.local, PORT), at(net.client, 80)).build();
        expect_untouched(&world.answer(&frame), Verdict::Allowed, &frame);
        let local = world.programs.links[1];
        expect_untouched(&world.forward(local, 0, &frame), Verdict::Allowed, &frame);
        policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN);
        policies.allow(SET, direction::INGRESS, UDP, 80);
        policies.apply(&mut world);
        expect_untouched(&world.forward(local, 0, &frame), Verdict::Allowed, &frame);
        expect_untouched(&world.answer(&frame), Verdict::Allowed, &frame);
        policies.revoke();
        policies.apply(&mut world);
        expect_drop(&world.forward(local, 0, &frame), Verdict::IngressDenied, &frame);
    }
}

/// The map of endpoints had no room for the pod, so the flags of its link decide.
#[test]
fn a_pod_without_an_entry_is_cut_off_if_it_is_isolated() {
    for net in nets() {
        for isolated in [true, false] {
            let mut world = World::new("no-entry");
            let mut policies = Policies::pods(&mut world, &net);
            let flags = if isolated { policy_flags::ISOLATED_IN } else { 0 };
            policies.pod(&world, 1, net.local, flags);
            policies.wanted.endpoints.remove(&net.local.into());
            policies.apply(&mut world);
            world.service(at(net.service, 80), UDP, &[at(net.local, 8080)]);
            let by_service = packet(UDP, at(net.client, PORT), at(net.service, 80)).build();
            let ran = world.send(&by_service);
            let directly = packet(UDP, at(net.client, PORT + 1), at(net.local, 8080)).build();
            expect_untouched(&world.send(&directly), Verdict::Allowed, &directly);
            let arrived = world.forward(world.programs.links[0], 1, &directly);
            if isolated {
                expect_drop(&ran, Verdict::NotJudged, &by_service);
                expect_drop(&arrived, Verdict::NotJudged, &directly);
            } else {
                assert_eq!(ran.verdict, Verdict::ToBackend);
                expect_untouched(&arrived, Verdict::Allowed, &directly);
            }
        }
    }
}
