//! A forged source address.

use std::net::{IpAddr, SocketAddr};

use lbr_agent::dataplane::Dataplane as _;
use lbr_common::link::{Link, link_flags};
use lbr_common::policy::{Block, Prefix, policy_flags};
use lbr_common::service::peer_flags;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Ext, Packet};
use lbr_tests::testrun::Programs;

use super::{beginnings, strays, wire_with_pods};
use crate::policy::Policies;
use crate::world::{
    CLIENT, ELSEWHERE, LOCAL, PORT, PROTOS, UDP, World, at, expect_drop, expect_untouched, nets, opening,
    packet, syn, tuple,
};

/// By the wire, no packet passes with the address of a pod of this node, or of the node: neither to a Service, nor to
/// a pod, nor with the ports of a conversation of that pod.
#[test]
fn a_pod_by_the_wire() {
    for net in nets() {
        let (mut wire, _policies) = wire_with_pods("pod-by-wire", &net);
        let service = at(net.service, 80);
        for proto in PROTOS {
            wire.world.service(service, proto, &[at(net.remote, 8080)]);
            wire.world.connect(proto, at(net.client, PORT), service, ELSEWHERE);
            wire.world.connect(proto, at(net.client, PORT), at(net.other, 80), ELSEWHERE);
        }
        let keys = wire.world.programs.flows.keys();
        let before: Vec<_> = keys.iter().map(|key| wire.world.flow(*key)).collect();
        for source in [net.client, net.local, net.router, crate::wire::node(&net)] {
            for to in [service, at(net.local, 80), at(net.client, 81), at(net.other, 80), at(net.remote, 80)]
            {
                for port in [PORT, PORT + 1] {
                    for packet in beginnings(at(source, port), to) {
                        let frame = packet.build();
                        let ran = wire.run(Hook::FromNetdev, &frame);
                        expect_drop(&ran, Verdict::SpoofedSource, &frame);
                    }
                }
            }
        }
        // With the ports of any conversation.
        for proto in PROTOS {
            for to in [service, at(net.other, 80)] {
                for make in [opening, packet] {
                    let frame = make(proto, at(net.client, PORT), to).build();
                    expect_drop(&wire.run(Hook::FromNetdev, &frame), Verdict::SpoofedSource, &frame);
                }
            }
        }
        for packet in strays(at(net.client, PORT), service) {
            let frame = packet.build();
            expect_drop(&wire.run(Hook::FromNetdev, &frame), Verdict::SpoofedSource, &frame);
        }
        assert_eq!(wire.world.programs.flows.keys(), keys);
        let after: Vec<_> = keys.iter().map(|key| wire.world.flow(*key)).collect();
        assert_eq!(after, before);
    }
}

/// The last check is at the pod's link: a packet of a local pod enters by its own link, or by the bridge of that
/// link, as other interfaces may have no program.
#[test]
fn a_pod_by_another_way() {
    const BRIDGE: u32 = 77;
    for net in nets() {
        let mut world = World::new("another-way");
        let _policies = Policies::pods(&mut world, &net);
        let [own, local, third] = world.programs.links;
        let link = Link { flags: link_flags::PEER | link_flags::ROUTED, master: BRIDGE };
        world.programs.kernel.tables().links.insert(&local, &link).unwrap();
        let (source, pod) = (at(net.local, PORT), at(net.client, 80));
        let ways = |source: SocketAddr| beginnings(source, pod).into_iter().chain(strays(source, pod));
        for by in [Programs::WIRE, own, third, BRIDGE + 1] {
            for packet in ways(source) {
                let frame = packet.build();
                expect_drop(&world.forward(by, 0, &frame), Verdict::SpoofedSource, &frame);
            }
            assert!(world.programs.flows.is_empty());
        }
        for by in [local, BRIDGE] {
            for proto in PROTOS {
                let frame = opening(proto, source, pod).build();
                expect_untouched(&world.forward(by, 0, &frame), Verdict::Allowed, &frame);
                // Also with the ports of a conversation that is known.
                for frame in [frame, packet(proto, source, pod).build()] {
                    for other in [Programs::WIRE, third] {
                        expect_drop(&world.forward(other, 0, &frame), Verdict::SpoofedSource, &frame);
                    }
                    expect_untouched(&world.forward(by, 0, &frame), Verdict::Allowed, &frame);
                }
            }
            world.reset_flows();
        }
        // A source outside passes by the wire.
        for packet in beginnings(at(net.other, PORT), pod) {
            let frame = packet.build();
            expect_untouched(&world.forward(Programs::WIRE, 0, &frame), Verdict::Allowed, &frame);
        }
    }
}

/// A pod that is not known yet: until then its link may use no address that is another's.
#[test]
fn a_neighbor_of_a_pod_without_a_name() {
    const UNKNOWN: usize = 2;
    for net in nets() {
        let mut world = World::new("unnamed");
        let _policies = Policies::pods(&mut world, &net);
        super::reserve_block(&mut world, net.service);
        for packet in beginnings(at(net.local, PORT), at(net.other, 80)) {
            let frame = packet.build();
            expect_drop(&world.run(Hook::FromPod, UNKNOWN, &frame), Verdict::SpoofedSource, &frame);
        }
        for source in [net.service, net.service2] {
            for packet in beginnings(at(source, PORT), at(net.client, 80)) {
                let frame = packet.build();
                expect_drop(&world.run(Hook::FromPod, UNKNOWN, &frame), Verdict::Martian, &frame);
            }
        }
        assert!(world.programs.flows.is_empty());
    }
}

/// A VLAN tag leads into another network of the same wire, where the pod's policies are not enforced: dropped,
/// isolated or not.
#[test]
fn a_tag_around_the_source_check() {
    for net in nets() {
        for flags in [0, policy_flags::ISOLATED_OUT] {
            let mut world = World::new("tag");
            let mut policies = Policies::pods(&mut world, &net);
            policies.pod(&world, 0, net.client, flags);
            policies.apply(&mut world);
            for source in [net.client, net.local, net.service, net.router] {
                for packet in beginnings(at(source, PORT), at(net.other, 80)) {
                    for tagged in [packet.clone().vlan(5), packet.clone().vlan(5).vlan(6), packet.vlan(0)] {
                        let mut frame = tagged.build();
                        expect_drop(&world.send(&frame), Verdict::TaggedByPod, &frame);
                        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
                        expect_drop(&world.send(&frame), Verdict::TaggedByPod, &frame);
                    }
                }
            }
            assert!(world.programs.flows.is_empty());
        }
    }
}

/// A packet that lbr does not parse further passes with the pod's own address only.
#[test]
fn unparsed_packet_passes_with_its_own_source_only() {
    for net in nets() {
        let mut world = World::new("unread-source");
        let _policies = Policies::pods(&mut world, &net);
        let kinds = |source: IpAddr| {
            let (src, dst) = (at(source, PORT), at(net.other, 80));
            let later = Packet::udp(src, dst).payload(&[5; 2000]).fragments(7, 1024).remove(1);
            let routing = Ext::Routing { kind: 2, segments_left: 1, data: vec![0; 20] };
            let steered = net
                .family
                .is_v6()
                .then(|| (Verdict::RoutingHeader, packet(UDP, src, dst).ext(routing).build()));
            [(Verdict::FragmentNotTracked, later)].into_iter().chain(steered)
        };
        for (verdict, frame) in kinds(net.client) {
            expect_untouched(&world.send(&frame), verdict, &frame);
        }
        for source in [net.local, net.remote, net.other, net.router, net.service] {
            for (_, frame) in kinds(source) {
                expect_drop(&world.send(&frame), Verdict::SpoofedSource, &frame);
            }
        }
    }
}

/// A pod's IP-in-IP packet could pass for another node's at a backend's node. It may leave the cluster.
#[test]
fn a_tunnel_into_the_cluster() {
    for net in nets() {
        let mut world = World::new("pod-tunnel");
        let _policies = Policies::pods(&mut world, &net);
        for inside in [net.remote, net.router] {
            let key = Prefix { data: Block::of(&inside.into()), len: Block::FULL };
            world.programs.kernel.tables().peers.insert(&key, &peer_flags::IN_CLUSTER).unwrap();
        }
        let inner = packet(UDP, at(net.other, PORT), at(net.remote, 8080)).build_ip();
        for protocol in [4, 41] {
            let frame = |to| Packet::raw(net.client, to, protocol).payload(&inner).build();
            for inside in [net.remote, net.router] {
                let frame = frame(inside);
                expect_drop(&world.send(&frame), Verdict::TunnelFromPod, &frame);
            }
            let frame = frame(net.other);
            expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
        }
        // GRE and the like are no form of direct server return.
        let frame = Packet::raw(net.client, net.remote, 47).payload(&inner).build();
        expect_untouched(&world.send(&frame), Verdict::Allowed, &frame);
    }
}

/// Link-local addresses, which no policy covers.
fn of_link(net: &crate::world::Net) -> (IpAddr, [IpAddr; 3]) {
    let ip = |text: &str| text.parse().unwrap();
    if net.family.is_v6() {
        (ip("fe80::5"), [ip("fe80::1"), ip("ff02::fb"), ip("ff02::1")])
    } else {
        (ip("169.254.7.7"), [ip("169.254.169.254"), ip("224.0.0.251"), ip("169.254.0.1")])
    }
}

/// From a link-local address a pod may send to its link, and nowhere else.
#[test]
fn a_link_local_source_to_afar() {
    for net in nets() {
        let mut world = World::new("link-local");
        let _policies = Policies::pods(&mut world, &net);
        let (source, near) = of_link(&net);
        for proto in PROTOS {
            for to in near {
                let frame = opening(proto, at(source, PORT), at(to, 80)).build();
                expect_untouched(&world.send(&frame), Verdict::NotService, &frame);
            }
            for to in [net.other, net.local, net.remote, net.service, net.router] {
                let frame = opening(proto, at(source, PORT), at(to, 80)).build();
                expect_drop(&world.send(&frame), Verdict::SpoofedSource, &frame);
            }
        }
    }
}

/// A pod that is isolated for egress has policies for its own addresses only: from a link-local one it sends nothing.
#[test]
fn a_link_local_source_around_isolation() {
    for net in nets() {
        let mut world = World::new("link-isolated");
        let mut policies = Policies::pods(&mut world, &net);
        policies.pod(&world, 0, net.client, policy_flags::ISOLATED_OUT);
        policies.apply(&mut world);
        let (source, near) = of_link(&net);
        for proto in PROTOS {
            for to in near {
                let frame = opening(proto, at(source, PORT), at(to, 80)).build();
                let ran = world.send(&frame);
                assert_eq!(ran.action, lbr_tests::testrun::Action::Drop, "{:?} to {to}", ran.verdict);
            }
        }
    }
}

/// Before a host has an address it asks for one by DHCP, and sends nothing else.
#[test]
fn unspecified_source_is_for_dhcp_only() {
    let [net, _] = nets();
    let mut world = World::new("no-address");
    let _policies = Policies::pods(&mut world, &net);
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let (nobody, all) = (ip("0.0.0.0"), ip("255.255.255.255"));
    let discover = packet(UDP, at(nobody, 68), at(all, 67)).build();
    expect_untouched(&world.send(&discover), Verdict::NotService, &discover);
    for frame in [
        packet(UDP, at(nobody, 68), at(net.other, 67)),
        packet(UDP, at(nobody, 68), at(all, 68)),
        packet(UDP, at(nobody, PORT), at(all, 67)),
        syn(at(nobody, 68), at(all, 67)),
        Packet::raw(nobody, all, 99).payload(b"whatever"),
    ] {
        let frame = frame.build();
        expect_drop(&world.send(&frame), Verdict::SpoofedSource, &frame);
    }
}

/// Each link has its own source check, also within an established conversation.
#[test]
fn a_conversation_of_the_neighbor() {
    for net in nets() {
        for proto in PROTOS {
            let mut world = World::new("neighbor");
            let _policies = Policies::pods(&mut world, &net);
            let (client, service) = (at(net.client, PORT), at(net.service, 80));
            world.service(service, proto, &[at(net.remote, 8080)]);
            for (to, server) in
                [(service, ELSEWHERE), (at(net.other, 80), ELSEWHERE), (at(net.local, 90), LOCAL)]
            {
                world.establish(proto, (client, CLIENT), to, server);
                let key = tuple(proto, client, to);
                let before = world.flow(key);
                for make in [opening, packet] {
                    let frame = make(proto, client, to).build();
                    for by in [1, 2] {
                        expect_drop(&world.run(Hook::FromPod, by, &frame), Verdict::SpoofedSource, &frame);
                    }
                }
                assert_eq!(world.flow(key), before);
            }
        }
    }
}
