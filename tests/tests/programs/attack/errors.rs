//! ICMP messages that carry data past policies, or pose as a router's.

use std::net::{IpAddr, SocketAddr};

use lbr_common::id::ClassId;
use lbr_common::policy::{Allow, OTHER_PORTS, VerdictKey, direction, policy_flags};
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, Reason};
use lbr_tests::testrun::{Action, Programs};

use crate::policy::{Policies, SET};
use crate::wire::Wire;
use crate::world::{
    ELSEWHERE, LOCAL, Net, PORT, PROTOS, World, at, expect_drop, expect_untouched, nets, packet,
};

const ISOLATED: u32 = policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT;

/// Bytes of the largest error from its IP header on (RFC 1812, 4.3.2.3; RFC 4443, 2.4 c).
fn most(net: &Net) -> usize {
    if net.family.is_v6() { 1280 } else { 576 }
}

/// An error of this length about a packet.
fn error(net: &Net, ends: (IpAddr, IpAddr), about: (u8, SocketAddr, SocketAddr), len: usize) -> Vec<u8> {
    let headers = if net.family.is_v6() { 48 } else { 28 };
    let quoted = packet(about.0, about.1, about.2).payload(&vec![7; 2_000]).build_ip();
    Packet::icmp_error(ends.0, ends.1, Reason::TimeExceeded, &quoted[..len - headers]).build()
}

/// A pod that is isolated in both directions, with one conversation with a host elsewhere.
fn one_conversation(net: &Net, proto: u8) -> (World, Policies) {
    let mut world = World::new("error-data");
    let mut policies = Policies::pods(&mut world, net);
    policies.pod(&world, 0, net.client, ISOLATED);
    policies.allow(SET, direction::EGRESS, proto, 80);
    policies.apply(&mut world);
    world.connect(proto, at(net.client, PORT), at(net.other, 80), ELSEWHERE);
    (world, policies)
}

/// An error may carry as much of a packet as a router quotes, and nothing beyond.
#[test]
fn data_in_an_error() {
    for net in nets() {
        for proto in PROTOS {
            let (mut world, _policies) = one_conversation(&net, proto);
            let (client, other) = (at(net.client, PORT), at(net.other, 80));
            let there = (proto, client, other);
            for len in [100, most(&net)] {
                let frame = error(&net, (net.router, net.client), there, len);
                let ran = world.deliver(&frame);
                assert_eq!((ran.verdict, ran.action), (Verdict::IcmpError, Action::Pass), "{len}");
            }
            for len in [most(&net) + 1, most(&net) + 4, 1_400] {
                let frame = error(&net, (net.other, net.client), there, len);
                expect_drop(&world.deliver(&frame), Verdict::IngressDenied, &frame);
            }
            // From the pod, about a packet that it received: from that packet's receiver to its sender.
            let back = (proto, other, client);
            let frame = error(&net, (net.client, net.other), back, most(&net));
            let ran = world.send(&frame);
            assert_eq!((ran.verdict, ran.action), (Verdict::IcmpError, Action::Pass));
            let frame = error(&net, (net.client, net.other), back, most(&net) + 1);
            expect_drop(&world.send(&frame), Verdict::EgressDenied, &frame);
        }
    }
}

/// An error is for the sender of the packet that it quotes: a quoted packet of any conversation opens no way to
/// another host.
#[test]
fn an_error_about_anothers_packet() {
    for net in nets() {
        for proto in PROTOS {
            let (mut world, _policies) = one_conversation(&net, proto);
            let (client, other) = (at(net.client, PORT), at(net.other, 80));
            let (there, back) = ((proto, client, other), (proto, other, client));
            // To hosts other than the sender.
            for to in [net.remote, net.local, net.remote2] {
                let frame = error(&net, (net.client, to), back, 100);
                expect_drop(&world.send(&frame), Verdict::EgressDenied, &frame);
            }
            // The pod cannot send errors about its own packets.
            let frame = error(&net, (net.client, net.other), there, 100);
            expect_drop(&world.send(&frame), Verdict::EgressDenied, &frame);
            // Nor in a router's name.
            for source in [net.router, net.other, net.local] {
                let frame = error(&net, (source, net.other), back, 100);
                expect_drop(&world.send(&frame), Verdict::SpoofedSource, &frame);
            }
            // About a packet that the same host sent to another pod.
            let local = at(net.local, PORT);
            world.establish(proto, (local, LOCAL), other, (Hook::ToPod, 1));
            let frame = error(&net, (net.client, net.other), (proto, other, local), 100);
            expect_drop(&world.send(&frame), Verdict::EgressDenied, &frame);
            let frame = error(&net, (net.other, net.client), (proto, local, other), 100);
            expect_drop(&world.deliver(&frame), Verdict::IngressDenied, &frame);
        }
    }
}

/// An error of a Service's backend is for that backend's client only.
#[test]
fn an_error_by_a_service() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("error-service");
            let mut policies = Policies::pods(&mut world, &net);
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            policies.pod(&world, 1, net.local, policy_flags::ISOLATED_OUT);
            policies.apply(&mut world);
            world.service(service, proto, &[backend]);
            world.connect(proto, client, service, LOCAL);
            // The backend may send its client an error about the client's packet, up to the length of errors.
            let about = (proto, client, backend);
            let frame = error(&net, (net.local, net.client), about, most(&net));
            assert_eq!(world.answer(&frame).verdict, Verdict::IcmpError);
            let frame = error(&net, (net.local, net.client), about, most(&net) + 1);
            expect_drop(&world.answer(&frame), Verdict::EgressDenied, &frame);
            let frame = error(&net, (net.local, net.other), about, 100);
            expect_drop(&world.answer(&frame), Verdict::EgressDenied, &frame);
            // The client may send an error about an answer.
            let about = (proto, service, client);
            let frame = error(&net, (net.client, net.service), about, most(&net));
            assert_eq!(world.send(&frame).verdict, Verdict::IcmpError);
            let frame = error(&net, (net.client, net.service), about, most(&net) + 1);
            expect_drop(&world.send(&frame), Verdict::Unanswerable, &frame);
        }
    }
}

/// By the wire, to the node's port that stands for a client's: up to the length of errors, it reaches the client.
#[test]
fn data_in_an_error_by_the_wire() {
    for net in nets() {
        for proto in PROTOS {
            let mut wire = Wire::new("error-wire");
            let (client, service) = (at(net.other, PORT), at(net.service, 80));
            wire.world.service(service, proto, &[at(net.remote, 8080)]);
            let (seen, backend) = wire.establish(proto, client, service);
            for (len, is_related) in
                [(100, true), (most(&net), true), (most(&net) + 1, false), (1_400, false)]
            {
                // About a request, from a router; about an answer, from the client.
                let about_request = error(&net, (net.router, seen.ip()), (proto, seen, backend), len);
                let about_answer = error(&net, (net.other, net.service), (proto, service, client), len);
                let (by_node, by_client) = if is_related {
                    (Verdict::IcmpError, Verdict::IcmpError)
                } else {
                    (Verdict::NotService, Verdict::Unanswerable)
                };
                let ran = wire.run(Hook::FromNetdev, &about_request);
                assert_eq!(ran.verdict, by_node, "{len}");
                assert_eq!(ran.packet == about_request, !is_related);
                assert_eq!(wire.run(Hook::FromNetdev, &about_answer).verdict, by_client, "{len}");
            }
            // To another address it is about no packet of that host.
            let frame = error(&net, (net.router, net.client), (proto, seen, backend), 100);
            expect_untouched(&wire.run(Hook::FromNetdev, &frame), Verdict::NotService, &frame);
        }
    }
}

/// A pod that accepts packets of one pod only gets no error in that pod's name by the wire.
#[test]
fn an_error_in_a_pods_name() {
    const FRIENDS: ClassId = ClassId { id: 5 };
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("error-name");
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 0, net.client, policy_flags::ISOLATED_IN);
            policies.wanted.ip_class.insert(net.local.into(), FRIENDS);
            let key =
                VerdictKey { set: SET, direction: direction::INGRESS, class: FRIENDS, ports: OTHER_PORTS };
            policies.wanted.verdicts.insert(key, Allow::default());
            policies.apply(&mut world);
            let about = (proto, at(net.client, PORT), at(net.other, 80));
            let frame = error(&net, (net.local, net.client), about, 1_400);
            expect_drop(&world.forward(Programs::WIRE, 0, &frame), Verdict::SpoofedSource, &frame);
            let third = world.programs.links[2];
            expect_drop(&world.forward(third, 0, &frame), Verdict::SpoofedSource, &frame);
            // That pod may send one itself.
            let local = world.programs.links[1];
            expect_untouched(&world.forward(local, 0, &frame), Verdict::NotService, &frame);
        }
    }
}

fn message(kind: u8, hop_limit: u8, src: IpAddr, dst: IpAddr) -> Vec<u8> {
    Packet::raw(src, dst, 58).payload(&[&[kind, 0, 0, 0][..], &[0; 20]].concat()).ttl(hop_limit).build()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A neighbour discovery message that a router could have forwarded (RFC 4861, 6.1 and 7.1) is judged as any other
/// message.
#[test]
fn router_words_from_afar() {
    let [_, net] = nets();
    let mut world = World::new("router-words");
    let mut policies = Policies::pods(&mut world, &net);
    policies.pod(&world, 0, net.client, ISOLATED);
    policies.apply(&mut world);
    for kind in 133..=137 {
        for hop_limit in [1, 64, 254] {
            let frame = message(kind, hop_limit, net.client, net.other);
            expect_drop(&world.send(&frame), Verdict::EgressDenied, &frame);
            let frame = message(kind, hop_limit, net.other, net.client);
            expect_drop(&world.deliver(&frame), Verdict::IngressDenied, &frame);
            let frame = message(kind, hop_limit, net.local, net.other);
            expect_untouched(&world.answer(&frame), Verdict::Allowed, &frame);
            // With another's source address it is dropped.
            let frame = message(kind, hop_limit, net.remote, net.other);
            expect_drop(&world.answer(&frame), Verdict::SpoofedSource, &frame);
            world.reset_flows();
        }
    }
    // Multicast listener discovery has hop limit 1, and a source that is local to the link.
    for kind in [130, 131, 132, 143] {
        for (hop_limit, source) in [(1, net.client), (255, net.client), (64, net.client)] {
            let frame = message(kind, hop_limit, source, ip("ff02::16"));
            expect_drop(&world.send(&frame), Verdict::EgressDenied, &frame);
        }
        let frame = message(kind, 1, ip("fe80::5"), ip("ff02::16"));
        expect_untouched(&world.send(&frame), Verdict::NeighborDiscovery, &frame);
    }
}

/// A pod may not send a router's messages, neither to its neighbours nor to any other host.
#[test]
fn router_words_of_a_pod() {
    let [v4, v6] = nets();
    let mut world = World::new("pod-router");
    let _policies = Policies::pods(&mut world, &v6);
    for kind in [134, 137] {
        for source in [v6.client, ip("fe80::5"), v6.router, ip("fe80::1")] {
            for to in [ip("ff02::1"), v6.local, v6.other, ip("fe80::7")] {
                let frame = message(kind, 255, source, to);
                expect_drop(&world.send(&frame), Verdict::RouterMessage, &frame);
            }
        }
    }
    let quoted = packet(17, at(v4.local, 9), at(v4.other, 9)).build_ip();
    for source in [v4.client, v4.router] {
        let frame = Packet::icmp_error(source, v4.local, Reason::Redirect, &quoted).build();
        expect_drop(&world.send(&frame), Verdict::RouterMessage, &frame);
    }
}

/// An isolated pod announces its own addresses on its link, or it could not be reached. That opens no way beyond the
/// link.
#[test]
fn neighbor_discovery_as_a_way_out() {
    let [_, net] = nets();
    let mut world = World::new("nd-way-out");
    let mut policies = Policies::pods(&mut world, &net);
    policies.pod(&world, 0, net.client, ISOLATED);
    policies.apply(&mut world);
    for kind in [133, 135, 136] {
        for source in [net.client, ip("fe80::5")] {
            for to in [ip("ff02::1"), ip("ff02::1:ff00:1"), ip("fe80::1"), net.local, net.router] {
                let frame = message(kind, 255, source, to);
                let is_its = source == net.client || to != net.local && to != net.router;
                let ran = world.send(&frame);
                if is_its {
                    expect_untouched(&ran, Verdict::NeighborDiscovery, &frame);
                } else {
                    expect_drop(&ran, Verdict::SpoofedSource, &frame);
                }
            }
            for to in [net.other, net.remote] {
                let verdict =
                    if source == net.client { Verdict::EgressDenied } else { Verdict::SpoofedSource };
                let frame = message(kind, 255, source, to);
                expect_drop(&world.send(&frame), verdict, &frame);
            }
        }
        for source in [net.local, net.router, net.remote, net.other] {
            let frame = message(kind, 255, source, ip("ff02::1"));
            expect_drop(&world.send(&frame), Verdict::SpoofedSource, &frame);
        }
        // Before the pod has an address (RFC 4862, 5.4.2).
        let frame = message(kind, 255, ip("::"), ip("ff02::1:ff00:2"));
        expect_untouched(&world.send(&frame), Verdict::NeighborDiscovery, &frame);
        let frame = message(kind, 64, ip("::"), ip("ff02::1:ff00:2"));
        expect_drop(&world.send(&frame), Verdict::SpoofedSource, &frame);
        // Messages to the pod come from its link.
        let frame = message(kind, 255, net.router, net.client);
        expect_untouched(&world.deliver(&frame), Verdict::NeighborDiscovery, &frame);
    }
}
