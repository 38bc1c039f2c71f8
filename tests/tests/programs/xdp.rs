//! XDP at an uplink: packets of established flows leave as tc would have sent them; all others are left to tc byte
//! for byte.

use lbr_common::conntrack::State;
use lbr_common::flow::Flow;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::netns;
use lbr_tests::packet::{Packet, Parsed, Reason, flags};
use lbr_tests::testrun::Action;

use super::wire::{CLIENT_MAC, OWN_MAC, ROUTER_MAC, Wire, mac_text, node};
use super::world::{
    PORT, TCP, TCP_AND_UDP, UDP, at, expect, expect_untouched, nets, opening, packet, part, segment, tuple,
};

fn ip(line: &str) {
    netns::ip([line]).unwrap();
}

/// In both directions the packet equals tc's byte for byte, except the link addresses, which the kernel adds after
/// tc.
#[test]
fn established_flows_are_sent_on() {
    let mut wire = Wire::new("xdpflow");
    for (net, proto) in nets().into_iter().flat_map(|net| TCP_AND_UDP.map(|proto| (net, proto))) {
        let connection = wire.connect(&net, proto);
        for (frame, verdict, next) in [
            (connection.request().build(), Verdict::ToBackend, ROUTER_MAC),
            (connection.answer().build(), Verdict::ToClient, CLIENT_MAC),
            (connection.request().ttl(2).build(), Verdict::ToBackend, ROUTER_MAC),
        ] {
            let by_tc = wire.run(Hook::FromNetdev, &frame);
            expect(&by_tc, verdict, Action::Redirect);
            let by_xdp = wire.xdp(&frame);
            let sent = expect(&by_xdp, verdict, Action::Transmit);
            assert_eq!(by_xdp.packet[14..], by_tc.packet[14..], "{sent:?}");
            assert_eq!(by_xdp.packet[12..14], frame[12..14]);
            assert_eq!(sent.macs, Some((OWN_MAC, next)), "{sent:?}");
            assert_eq!(sent.ttl, Parsed::frame(&frame).unwrap().ttl - 1);
        }
    }
}

/// A checksum that comes out as zero is sent as all ones, and an absent one stays absent (RFC 768).
#[test]
fn checksums_of_datagrams() {
    let mut wire = Wire::new("xdpsum");
    for net in nets() {
        let connection = wire.connect(&net, UDP);
        if !net.family.is_v6() {
            let sent = wire.xdp(&connection.request().without_checksum().build());
            expect(&sent, Verdict::ToBackend, Action::Transmit);
            assert_eq!(sent.packet[40..42], [0, 0]);
        }
        // Every sum; one of them has two forms.
        let sum_at = if net.family.is_v6() { 60 } else { 40 };
        let mut both = 0;
        for n in (0..=u16::MAX).step_by(part()) {
            let payload = n.to_be_bytes();
            let frame = Packet::udp(connection.there.0, connection.there.1).payload(&payload).build();
            let mut ran = wire.xdp(&frame);
            if ran.verdict == Verdict::LeftToTc {
                // tc takes it. XDP leaves it again only because of its checksum.
                wire.run(Hook::FromNetdev, &frame);
                ran = wire.xdp(&frame);
            }
            if ran.verdict == Verdict::LeftToTc {
                both += 1;
                continue;
            }
            assert_ne!(ran.packet[sum_at..sum_at + 2], [0, 0], "payload {n}");
            if n % 251 == 0 || ran.packet[sum_at..sum_at + 2] == [0xff, 0xff] {
                expect(&ran, Verdict::ToBackend, Action::Transmit);
            }
        }
        // A datagram whose checksum looks as if a device had to complete it: one sum.
        let least = if part() == 1 { 1 } else { 0 };
        assert!((least..=2).contains(&both), "{both} were left to tc");
    }
}

/// XDP would send a checksum that a device is to complete as it is, so tc gets the packet.
#[test]
fn unfinished_checksums_are_left_to_tc() {
    let mut wire = Wire::new("xdppart");
    for (net, proto) in nets().into_iter().flat_map(|net| TCP_AND_UDP.map(|proto| (net, proto))) {
        let connection = wire.connect(&net, proto);
        for packet in [connection.request(), connection.answer()] {
            let mut frame = packet.build();
            let (l3, l4) = (14, if net.family.is_v6() { 54 } else { 34 });
            let addresses = if net.family.is_v6() { l3 + 8..l3 + 40 } else { l3 + 12..l3 + 20 };
            let mut sum = (frame.len() - l4) as u32 + u32::from(proto);
            sum +=
                frame[addresses].chunks(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum::<u32>();
            while sum > 0xffff {
                sum = (sum & 0xffff) + (sum >> 16);
            }
            let sum_at = l4 + if proto == TCP { 16 } else { 6 };
            frame[sum_at..sum_at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
            wire.is_left(&frame);
        }
    }
}

/// Packets other than those in the middle of a flow.
#[test]
fn packets_not_in_mid_flow_are_left_to_tc() {
    let mut wire = Wire::new("xdpleft");
    for net in nets() {
        let tcp = wire.connect(&net, TCP);
        let udp = wire.connect(&net, UDP);
        let (from, to) = tcp.there;
        wire.is_carried(&tcp.request().build());
        wire.is_carried(&udp.request().build());
        for flags in [flags::SYN, flags::SYN | flags::ACK, flags::FIN | flags::ACK, flags::RST] {
            wire.is_left(&Packet::tcp(from, to, flags).build());
        }
        wire.is_left(&tcp.request().ttl(1).build());
        wire.is_left(&tcp.request().vlan(5).build());
        // Another port, another protocol, a process of the node.
        wire.is_left(&packet(TCP, at(from.ip(), PORT + 1), to).build());
        wire.is_left(&packet(TCP, from, at(node(&net), 22)).build());
        wire.is_left(&Packet::echo(from.ip(), to.ip(), 7, 1).build());
        wire.is_left(&Packet::raw(from.ip(), to.ip(), 132).payload(&[0; 12]).build());
        let quoted = udp.answer().build_ip();
        wire.is_left(&Packet::icmp_error(net.router, node(&net), Reason::PortUnreachable, &quoted).build());
        let whole = Packet::udp(udp.there.0, udp.there.1).payload(&[7; 3000]);
        for fragment in whole.fragments(9, 1000) {
            wire.is_left(&fragment);
        }
        wire.is_left(&[&[0xff; 12][..], &[8, 6], &[0; 46]].concat());
        wire.is_left(&[0; 14]);
        for cut in [15, 34, 40, 50] {
            wire.is_left(&tcp.request().build()[..cut]);
        }
        // The flows themselves go on by XDP.
        wire.is_carried(&tcp.request().build());
        wire.is_carried(&udp.request().build());
    }
}

/// XDP does not carry a flow that tc has to check: after a new epoch, or after its lifetime.
#[test]
fn flows_to_be_checked_again_are_left_to_tc() {
    let mut wire = Wire::new("xdplook");
    for net in nets() {
        let udp = wire.connect(&net, UDP);
        let frame = udp.request().build();
        let key = tuple(UDP, udp.there.0, udp.there.1);
        wire.is_carried(&frame);
        // A change that concerns all flows: tc asks the policies again, once.
        wire.world.raise_epoch();
        wire.is_left(&frame);
        expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
        wire.is_carried(&frame);
        // Past its lifetime: another conversation.
        wire.world.age(key, 181);
        wire.is_left(&frame);
        expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
        wire.is_left(&frame);
        assert_eq!(wire.world.state(key), State::New);
    }
}

/// A connection that is ending, or has ended, is left to tc.
#[test]
fn connections_that_end_are_left_to_tc() {
    let mut wire = Wire::new("xdpend");
    for net in nets() {
        for by_client in [true, false] {
            for bits in [flags::FIN | flags::ACK, flags::RST | flags::ACK] {
                let connection = wire.connect(&net, TCP);
                let (request, answer) = (connection.request().build(), connection.answer().build());
                expect(&wire.run(Hook::FromNetdev, &answer), Verdict::ToClient, Action::Redirect);
                wire.is_carried(&request);
                wire.is_carried_back(&answer);
                let (from, to) = if by_client { connection.there } else { connection.back };
                wire.run(Hook::FromNetdev, &segment(from, to, bits).build());
                wire.is_left(&request);
                wire.is_left(&answer);
                // A segment after the reset restores the connection.
                expect(&wire.run(Hook::FromNetdev, &answer), Verdict::ToClient, Action::Redirect);
                if bits & flags::RST != 0 {
                    wire.is_carried(&request);
                    wire.is_carried_back(&answer);
                } else {
                    wire.is_left(&request);
                }
                wire.world.reset_flows();
            }
        }
    }
}

/// XDP does not carry a flow whose source was verified at another uplink, or nowhere yet.
#[test]
fn flows_of_another_uplink_are_left_to_tc() {
    let mut wire = Wire::new("xdpfrom");
    for (net, proto) in nets().into_iter().flat_map(|net| TCP_AND_UDP.map(|proto| (net, proto))) {
        let connection = wire.connect(&net, proto);
        let frame = connection.request().build();
        let key = tuple(proto, connection.there.0, connection.there.1);
        assert_eq!(wire.world.flow(key).in_ifindex, wire.uplink);
        wire.is_carried(&frame);
        for from in [0, wire.world.programs.links[0], wire.uplink + 1] {
            let flow = Flow { in_ifindex: from, ..wire.world.flow(key) };
            wire.world.programs.flows.insert(&key, &flow).unwrap();
            wire.is_left(&frame);
            // tc accepts the packet, and verifies its source here.
            expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
            assert_eq!(wire.world.flow(key).in_ifindex, wire.uplink);
            wire.is_carried(&frame);
        }
    }
}

/// A promiscuous interface receives frames for other hosts: neither XDP nor tc handles them.
#[test]
fn frames_for_another_host_are_not_touched() {
    const OTHERS: [[u8; 6]; 3] = [[2, 0, 0, 0, 0, 3], ROUTER_MAC, [2, 0, 0, 0, 1, 2]];
    let mut wire = Wire::new("xdpother");
    for (net, proto) in nets().into_iter().flat_map(|net| TCP_AND_UDP.map(|proto| (net, proto))) {
        let connection = wire.connect(&net, proto);
        let (client, service) = connection.there;
        for to in OTHERS {
            for packet in [connection.request(), connection.answer()] {
                let frame = packet.macs(CLIENT_MAC, to).build();
                wire.is_left(&frame);
                let ran = wire.run(Hook::FromNetdev, &frame);
                expect_untouched(&ran, Verdict::OtherHost, &frame);
            }
            let key = tuple(proto, at(client.ip(), PORT + 1), service);
            let frame = opening(proto, at(client.ip(), PORT + 1), service).macs(CLIENT_MAC, to).build();
            wire.is_left(&frame);
            expect_untouched(&wire.run(Hook::FromNetdev, &frame), Verdict::OtherHost, &frame);
            assert!(!wire.world.has_flow(key));
        }
        // XDP leaves a link broadcast to tc as well.
        wire.is_left(&connection.request().macs(CLIENT_MAC, [0xff; 6]).build());
        wire.is_carried(&connection.request().build());
    }
}

/// XDP itself keeps a flow alive in both directions. If tc did, later packets would overtake one each second.
#[test]
fn flows_stay_alive() {
    let mut wire = Wire::new("xdpalive");
    for (net, proto) in nets().into_iter().flat_map(|net| TCP_AND_UDP.map(|proto| (net, proto))) {
        let connection = wire.connect(&net, proto);
        let there = tuple(proto, connection.there.0, connection.there.1);
        let back = tuple(proto, connection.back.0, connection.back.1);
        let before = wire.world.flow(there).last_seen;
        let (frame, answer) = (connection.request().build(), connection.answer().build());
        wire.world.age(there, 100);
        wire.is_carried(&frame);
        // The answers' source has not been verified since the connection was established.
        expect(&wire.run(Hook::FromNetdev, &answer), Verdict::ToClient, Action::Redirect);
        wire.is_carried_back(&answer);
        for key in [there, back] {
            // Subtraction, not comparison: on a machine up for less than 100 s the time wraps.
            let since = wire.world.flow(key).last_seen.wrapping_sub(before);
            assert!(since < 50_000_000_000, "{key:?}: {since}");
        }
        // The kernel evicts the reply entry.
        wire.world.age(there, 100);
        wire.world.programs.flows.remove(&back).unwrap();
        wire.is_carried(&frame);
        assert!(wire.world.programs.flows.is_confirmed(&back));
    }
}

/// XDP sends a packet past the kernel only where it is sure that the packet arrives.
#[test]
fn unclear_routes_are_left_to_tc() {
    let mut wire = Wire::new("xdpway");
    wire.world.programs.uplink("other", [198, 51, 100, 1].into(), "2001:db8:51::1".parse().unwrap()).unwrap();
    for net in nets() {
        let udp = wire.connect(&net, UDP);
        let frame = udp.request().build();
        wire.is_carried(&frame);
        // The router's link address is unknown.
        ip(&format!("neigh del {} dev uplink", net.router));
        wire.is_left(&frame);
        let router = mac_text(ROUTER_MAC);
        ip(&format!("neigh replace {} lladdr {router} dev uplink nud permanent", net.router));
        wire.is_carried(&frame);
        // Too long for the route's MTU.
        let long = Packet::udp(udp.there.0, udp.there.1).payload(&[7; 1400]).build();
        wire.is_carried(&long);
        let width = if net.family.is_v6() { 128 } else { 32 };
        ip(&format!("route replace {}/{width} via {} dev uplink mtu lock 1300", net.remote, net.router));
        wire.is_left(&long);
        wire.is_carried(&frame);
        // A route by another interface.
        let gateway = if net.family.is_v6() { "2001:db8:51::9" } else { "198.51.100.9" };
        ip(&format!("neigh replace {gateway} lladdr {router} dev other nud permanent"));
        ip(&format!("route replace {}/{width} via {gateway} dev other", net.remote));
        wire.is_left(&frame);
        ip(&format!("route replace {}/{width} via {} dev uplink", net.remote, net.router));
        wire.is_carried(&frame);
    }
}
