//! XDP at an uplink: packets of flows that are established leave as tc would have sent them, all others are left to it
//! byte for byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lbr_common::flow::IDLE_NS;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::netns;
use lbr_tests::packet::{Packet, Parsed, Reason, flags};
use lbr_tests::testrun::{Action, Ran};

use super::world::{
    Net, PORT, PROTOS, TCP, UDP, World, at, expect, expect_untouched, nets, packet, part, syn, tuple,
};

const NODE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(192, 0, 2, 100), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100));
/// Link addresses of [`Net::other`] and of [`Net::router`].
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn ip(line: &str) {
    netns::ip([line]).unwrap();
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A node whose clients are on the link of its uplink, and other nodes' pods behind the router there.
pub(crate) struct Wire {
    pub(crate) world: World,
    uplink: u32,
    own_mac: [u8; 6],
}

/// A connection through the node.
struct Connection {
    /// As the client sends it.
    there: (SocketAddr, SocketAddr),
    /// As the backend answers.
    back: (SocketAddr, SocketAddr),
    proto: u8,
}

impl Wire {
    pub(crate) fn new(name: &str) -> Self {
        let mut world = World::new(name);
        let uplink = world.programs.uplink("uplink", NODE.0, NODE.1).unwrap();
        // Before the neighbours, whom the kernel forgets then.
        let mut lines = vec!["link set uplink address 02:00:00:00:00:64".to_owned()];
        for net in nets() {
            let (router, client) = (mac_text(ROUTER_MAC), mac_text(CLIENT_MAC));
            lines.push(format!("neigh replace {} lladdr {router} dev uplink nud permanent", net.router));
            lines.push(format!("neigh replace {} lladdr {client} dev uplink nud permanent", net.other));
            let width = if net.v6 { 128 } else { 32 };
            for pod in [net.remote, net.remote2] {
                lines.push(format!("route add {pod}/{width} via {} dev uplink", net.router));
            }
        }
        netns::ip(lines).unwrap();
        Self { world, uplink, own_mac: [2, 0, 0, 0, 0, 0x64] }
    }

    pub(crate) fn run(&mut self, hook: Hook, frame: &[u8]) -> Ran {
        self.world.programs.run(hook, self.uplink, frame).unwrap()
    }

    fn xdp(&mut self, frame: &[u8]) -> Ran {
        self.run(Hook::Xdp, frame)
    }

    /// A connection that tc began: its first packet is not XDP's.
    fn connect(&mut self, net: &Net, proto: u8) -> Connection {
        let (client, service) = (at(net.other, PORT), at(net.service, 80));
        self.world.service(service, proto, &[at(net.remote, 8080)]);
        let first = if proto == TCP { syn(client, service) } else { packet(proto, client, service) };
        let first = first.build();
        expect_untouched(&self.xdp(&first), Verdict::LeftToTc, &first);
        let sent = expect(&self.run(Hook::FromNetdev, &first), Verdict::ToBackend, Action::Redirect);
        assert_eq!((sent.src.ip(), sent.dst), (node(net), at(net.remote, 8080)));
        Connection { there: (client, service), back: (sent.dst, sent.src), proto }
    }

    #[track_caller]
    fn is_left(&mut self, frame: &[u8]) {
        expect_untouched(&self.xdp(frame), Verdict::LeftToTc, frame);
    }

    #[track_caller]
    fn is_carried(&mut self, frame: &[u8]) {
        expect(&self.xdp(frame), Verdict::ToBackend, Action::Transmit);
    }
}

impl Connection {
    fn request(&self) -> Packet {
        packet(self.proto, self.there.0, self.there.1)
    }

    fn answer(&self) -> Packet {
        packet(self.proto, self.back.0, self.back.1)
    }
}

pub(crate) fn node(net: &Net) -> IpAddr {
    if net.v6 { NODE.1.into() } else { NODE.0.into() }
}

/// Both ways, and to the byte what tc makes of it, but for the link addresses, which the kernel adds there.
#[test]
fn established_flows_are_sent_on() {
    let mut wire = Wire::new("xdpflow");
    for (net, proto) in nets().into_iter().flat_map(|net| PROTOS.map(|proto| (net, proto))) {
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
            assert_eq!(sent.macs, Some((wire.own_mac, next)), "{sent:?}");
            assert_eq!(sent.ttl, Parsed::frame(&frame).unwrap().ttl - 1);
        }
    }
}

/// A sum that would come out as zero is sent as its other form, and one that is not there stays away (RFC 768).
#[test]
fn checksums_of_datagrams() {
    let mut wire = Wire::new("xdpsum");
    for net in nets() {
        let connection = wire.connect(&net, UDP);
        if !net.v6 {
            let sent = wire.xdp(&connection.request().without_checksum().build());
            expect(&sent, Verdict::ToBackend, Action::Transmit);
            assert_eq!(sent.packet[40..42], [0, 0]);
        }
        // Every sum, of which one has two forms.
        let sum_at = if net.v6 { 60 } else { 40 };
        let mut both = 0;
        for n in (0..=u16::MAX).step_by(part()) {
            let payload = n.to_be_bytes();
            let frame = Packet::udp(connection.there.0, connection.there.1).payload(&payload).build();
            let ran = wire.xdp(&frame);
            if ran.verdict == Verdict::LeftToTc {
                both += 1;
                continue;
            }
            assert_ne!(ran.packet[sum_at..sum_at + 2], [0, 0], "payload {n}");
            if n % 251 == 0 || ran.packet[sum_at..sum_at + 2] == [0xff, 0xff] {
                expect(&ran, Verdict::ToBackend, Action::Transmit);
            }
        }
        // Those that look as if a device had to complete them: one sum.
        let least = if part() == 1 { 1 } else { 0 };
        assert!((least..=2).contains(&both), "{both} were left to tc");
    }
}

/// A checksum that a device is to complete: XDP would send it as it is.
#[test]
fn unfinished_checksums_are_left_to_tc() {
    let mut wire = Wire::new("xdppart");
    for (net, proto) in nets().into_iter().flat_map(|net| PROTOS.map(|proto| (net, proto))) {
        let connection = wire.connect(&net, proto);
        for packet in [connection.request(), connection.answer()] {
            let mut frame = packet.build();
            let (l3, l4) = (14, if net.v6 { 54 } else { 34 });
            let addresses = if net.v6 { l3 + 8..l3 + 40 } else { l3 + 12..l3 + 20 };
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

/// What is no packet in the middle of a flow.
#[test]
fn what_has_to_be_looked_at_is_left_to_tc() {
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
        // It goes on all the same.
        wire.is_carried(&tcp.request().build());
        wire.is_carried(&udp.request().build());
    }
}

/// What the agent or tc has to say about a flow, they say first.
#[test]
fn flows_that_need_a_look_are_left_to_tc() {
    let mut wire = Wire::new("xdplook");
    for net in nets() {
        let udp = wire.connect(&net, UDP);
        let frame = udp.request().build();
        let key = tuple(UDP, udp.there.0, udp.there.1);
        wire.is_carried(&frame);
        // Something has changed: tc asks the policies again, once.
        wire.world.raise_epoch();
        wire.is_left(&frame);
        expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
        wire.is_carried(&frame);
        // Silent for long: another conversation.
        wire.world.age(key, IDLE_NS / 1_000_000_000 + 1);
        wire.is_left(&frame);
        expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
        // Packets of this flow come from a pod of this node, and not by the wire.
        let mut flow = wire.world.flow(key);
        flow.from = wire.world.programs.links[0];
        wire.world.programs.flows.insert(key, flow, 0).unwrap();
        wire.is_left(&frame);
        expect(&wire.run(Hook::FromNetdev, &frame), Verdict::SpoofedSource, Action::Drop);
    }
}

/// As long as XDP carries a flow, it does not grow old, in either direction.
#[test]
fn flows_stay_alive() {
    let mut wire = Wire::new("xdpalive");
    for (net, proto) in nets().into_iter().flat_map(|net| PROTOS.map(|proto| (net, proto))) {
        let connection = wire.connect(&net, proto);
        let there = tuple(proto, connection.there.0, connection.there.1);
        let back = tuple(proto, connection.back.0, connection.back.1);
        let before = wire.world.flow(there).last_seen;
        wire.world.age(there, 100);
        wire.is_carried(&connection.request().build());
        for key in [there, back] {
            // Not by comparing: a machine that runs for less than 100 s has no such time, and it wraps.
            let since = wire.world.flow(key).last_seen.wrapping_sub(before);
            assert!(since < 50_000_000_000, "{key:?}: {since}");
        }
        // The kernel evicts.
        wire.world.age(there, 100);
        wire.world.programs.flows.remove(&back).unwrap();
        wire.is_carried(&connection.request().build());
        assert!(wire.world.has_flow(back));
    }
}

/// Only where it is sure that the packet arrives is it sent past the kernel.
#[test]
fn ways_that_are_not_clear_are_left_to_tc() {
    let mut wire = Wire::new("xdpway");
    wire.world.programs.uplink("other", [198, 51, 100, 1].into(), "2001:db8:51::1".parse().unwrap()).unwrap();
    for net in nets() {
        let udp = wire.connect(&net, UDP);
        let frame = udp.request().build();
        wire.is_carried(&frame);
        // Nobody knows the router's link address.
        ip(&format!("neigh del {} dev uplink", net.router));
        wire.is_left(&frame);
        let router = mac_text(ROUTER_MAC);
        ip(&format!("neigh replace {} lladdr {router} dev uplink nud permanent", net.router));
        wire.is_carried(&frame);
        // Too long for the way.
        let long = Packet::udp(udp.there.0, udp.there.1).payload(&[7; 1400]).build();
        wire.is_carried(&long);
        let width = if net.v6 { 128 } else { 32 };
        ip(&format!("route replace {}/{width} via {} dev uplink mtu lock 1300", net.remote, net.router));
        wire.is_left(&long);
        wire.is_carried(&frame);
        // By another interface.
        let gateway = if net.v6 { "2001:db8:51::9" } else { "198.51.100.9" };
        ip(&format!("neigh replace {gateway} lladdr {router} dev other nud permanent"));
        ip(&format!("route replace {}/{width} via {gateway} dev other", net.remote));
        wire.is_left(&frame);
        ip(&format!("route replace {}/{width} via {} dev uplink", net.remote, net.router));
        wire.is_carried(&frame);
    }
}
