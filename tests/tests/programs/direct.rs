//! Direct server return: how the frontend travels to the backend's node, and how that node uses it.

use std::net::{IpAddr, SocketAddr};

use lbr_agent::dataplane::Dataplane as _;
use lbr_common::addr::Family;
use lbr_common::conntrack::State;
use lbr_common::id::BackendId;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{Frontend, Slot, SlotKey, backend_flags, frontend_flags, peer_flags, set};
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, Parsed, Transport, flags};
use lbr_tests::testrun::Action;

use super::wire::{Wire, node};
use super::world::{
    Net, PORT, TCP, TCP_AND_UDP, UDP, at, expect, expect_untouched, nets, opening, packet, segment, tuple,
};

/// Type of the IPv4 option, number of the IPv6 header.
const OPTION: u8 = 0x9e;
const DESTINATION_OPTIONS: u8 = 60;

/// How the frontend travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Option,
    Tunnel,
}

impl Form {
    const ALL: [Self; 2] = [Self::Option, Self::Tunnel];

    fn flags(self) -> u32 {
        frontend_flags::DSR | if self == Self::Tunnel { frontend_flags::DSR_IPIP } else { 0 }
    }

    /// Bytes that it adds.
    fn adds(self, family: Family) -> usize {
        match (self, family) {
            (Self::Option, Family::V4) => 8,
            (Self::Option, Family::V6) => 24,
            (Self::Tunnel, Family::V4) => 20,
            (Self::Tunnel, Family::V6) => 40,
        }
    }
}

fn cases() -> impl Iterator<Item = (Form, Net, u8)> {
    let of = |form| nets().into_iter().flat_map(move |net| TCP_AND_UDP.map(|proto| (form, net, proto)));
    Form::ALL.into_iter().flat_map(of)
}

fn ends(net: &Net) -> (SocketAddr, SocketAddr, SocketAddr) {
    (at(net.other, PORT), at(net.service, 80), at(net.remote, 8080))
}

/// A frontend with one backend, which is on another node and answers directly.
fn elsewhere(wire: &mut Wire, net: &Net, proto: u8, form: Form) -> BackendId {
    let (_, service, backend) = ends(net);
    let id = wire.world.service(service, proto, &[backend])[0];
    set_flags(wire, service, proto, form.flags());
    id
}

fn set_flags(wire: &mut Wire, service: SocketAddr, proto: u8, flags: u32) {
    let found = wire.world.frontends().into_iter().find(|(key, value)| {
        (key.addr, key.port, key.proto) == (service.ip().into(), 80, proto) && value.count == 1
    });
    wire.world.frontend(service, proto, Frontend { flags, ..found.unwrap().1 });
}

/// From now on this is the backend's node, and `there` is another node.
fn here(wire: &mut Wire, id: BackendId, there: IpAddr) {
    let kernel = &mut wire.world.programs.kernel;
    let (_, mut backend) =
        kernel.tables().backends.entries().unwrap().into_iter().find(|(at, _)| *at == id).unwrap();
    backend.flags |= backend_flags::HERE;
    kernel.tables().backends.insert(&id, &backend).unwrap();
    let slot = SlotKey { service: backend.service, set: set::LOCAL, slot: 0 };
    kernel.tables().slots.insert(&slot, &Slot { backend: id }).unwrap();
    kernel.tables().peers.insert(&a_node(there), &peer_flags::NODE).unwrap();
    wire.world.reset_flows();
}

fn a_node(ip: IpAddr) -> Prefix<Block> {
    Prefix { data: Block::of(&ip.into()), len: Block::FULL }
}

/// With and without a checksum by the device, which must stay right when bytes are inserted and removed.
#[test]
fn the_frontend_travels_with_the_packet() {
    let mut wire = Wire::new("direct");
    for is_summed in [false, true] {
        if is_summed && !wire.world.sum_packets() {
            continue;
        }
        for (form, net, proto) in cases() {
            wire.world.reset();
            let (client, service, backend) = ends(&net);
            let id = elsewhere(&mut wire, &net, proto, form);
            let sent = [opening(proto, client, service), packet(proto, client, service)]
                .map(|packet| packet.build());
            let carried = sent.clone().map(|frame| {
                let ran = wire.run(Hook::FromNetdev, &frame);
                let out = expect(&ran, Verdict::ToBackend, Action::Redirect);
                match form {
                    Form::Option => is_an_option(&out, client, service, backend),
                    Form::Tunnel => is_a_tunnel(&out, &frame, node(&net), backend.ip()),
                }
                ran.packet
            });
            assert!(!wire.world.has_flow(tuple(proto, backend, client)), "no reply entry is expected");

            here(&mut wire, id, node(&net));
            for (sent, carried) in sent.into_iter().zip(carried) {
                let out = expect(&wire.run(Hook::FromNetdev, &carried), Verdict::ToBackend, Action::Pass);
                let mut wanted = Parsed::frame(&sent).unwrap();
                (wanted.src, wanted.dst, wanted.ttl) = (client, backend, wanted.ttl - 1);
                assert_eq!(out, wanted);
            }
            let answer = wire.world.flow(tuple(proto, backend, client));
            assert_eq!(answer.to, tuple(proto, service, client), "answered in the name of the frontend");
        }
    }
}

fn is_an_option(out: &Parsed, client: SocketAddr, service: SocketAddr, backend: SocketAddr) {
    assert_eq!((out.src, out.dst), (client, backend), "the client's address is kept");
    match service.ip() {
        IpAddr::V4(ip) => assert_eq!(out.options, [&[OPTION, 8, 0, 80][..], &ip.octets()].concat()),
        IpAddr::V6(_) => assert_eq!(out.exts, [DESTINATION_OPTIONS]),
    }
}

fn is_a_tunnel(out: &Parsed, sent: &[u8], from: IpAddr, to: IpAddr) {
    assert_eq!((out.src.ip(), out.dst.ip()), (from, to), "from the node to the backend");
    assert_eq!(out.protocol, if from.is_ipv4() { 4 } else { 41 });
    let mut sent = Parsed::frame(sent).unwrap();
    (sent.macs, sent.ttl) = (None, sent.ttl - 1);
    assert_eq!(Parsed::ip(&out.payload), Ok(sent), "as it came");
}

/// A packet with a false claim of a frontend is treated like any other packet to its destination.
#[test]
fn false_claim_of_a_frontend_is_ignored() {
    let mut wire = Wire::new("claimed");
    for (form, net, proto) in cases() {
        wire.world.reset();
        let (client, service, _) = ends(&net);
        let id = elsewhere(&mut wire, &net, proto, form);
        let claim = wire.run(Hook::FromNetdev, &opening(proto, client, service).build()).packet;
        let is_ignored = |wire: &mut Wire| {
            expect_untouched(&wire.run(Hook::FromNetdev, &claim), Verdict::NotService, &claim)
        };
        wire.world.reset_flows();
        // The backend is not on this node.
        is_ignored(&mut wire);
        here(&mut wire, id, node(&net));
        // The Service's backends do not answer directly; then it has no frontend.
        set_flags(&mut wire, service, proto, 0);
        is_ignored(&mut wire);
        let frontends = wire.world.frontends();
        for (key, _) in &frontends {
            wire.world.remove_frontend(key);
        }
        is_ignored(&mut wire);
        elsewhere(&mut wire, &net, proto, form);
    }
}

/// The node that the client asked has the connection. So a segment that it sends on begins a flow at the backend's
/// node in any state, except a reset, which only ends one.
#[test]
fn mid_stream_segment_begins_a_flow_at_the_backends_node() {
    let mut wire = Wire::new("directmiddle");
    for (form, net, _) in cases().filter(|(_, _, proto)| *proto == TCP) {
        for bits in [flags::ACK, flags::PSH | flags::ACK, flags::FIN | flags::ACK, flags::RST | flags::ACK] {
            wire.world.reset();
            let (client, service, backend) = ends(&net);
            let id = elsewhere(&mut wire, &net, TCP, form);
            wire.run(Hook::FromNetdev, &opening(TCP, client, service).build());
            let sent = segment(client, service, bits).build();
            let carried = wire.run(Hook::FromNetdev, &sent).packet;
            assert_ne!(carried, sent);
            here(&mut wire, id, node(&net));
            let ran = wire.run(Hook::FromNetdev, &carried);
            if bits & flags::RST == 0 {
                let out = expect(&ran, Verdict::ToBackend, Action::Pass);
                assert_eq!((out.src, out.dst), (client, backend));
                assert_eq!(wire.world.state(tuple(TCP, client, service)), State::PickedUp);
                let answer = wire.world.flow(tuple(TCP, backend, client));
                assert_eq!(answer.to, tuple(TCP, service, client));
            } else {
                assert!(wire.world.programs.flows.is_empty(), "{:?}", ran.verdict);
            }
        }
    }
}

/// A sender that is no node could use a tunnel to forge any source address.
#[test]
fn only_a_nodes_tunnel_is_opened() {
    let mut wire = Wire::new("tunnels");
    for (net, proto) in nets().into_iter().flat_map(|net| TCP_AND_UDP.map(|proto| (net, proto))) {
        wire.world.reset();
        let (client, service, backend) = ends(&net);
        let id = elsewhere(&mut wire, &net, proto, Form::Tunnel);
        let sent = opening(proto, client, service).build();
        let carried = wire.run(Hook::FromNetdev, &sent).packet;
        here(&mut wire, id, node(&net));
        let ran = wire.run(Hook::FromNetdev, &carried);
        assert_eq!(expect(&ran, Verdict::ToBackend, Action::Pass).dst, backend);
        // Also within a known conversation.
        wire.world.programs.kernel.tables().peers.remove(&a_node(node(&net))).unwrap();
        expect_untouched(&wire.run(Hook::FromNetdev, &carried), Verdict::NotService, &carried);
        wire.world.reset_flows();
        expect_untouched(&wire.run(Hook::FromNetdev, &carried), Verdict::NotService, &carried);
    }
}

/// A packet that does not fit together with the frontend is answered with the reduced MTU.
#[test]
fn too_big_packet_is_answered_with_the_reduced_mtu() {
    let mut wire = Wire::new("directmtu");
    for (form, net) in Form::ALL.into_iter().flat_map(|form| nets().map(|net| (form, net))) {
        wire.world.reset();
        let (client, service, _) = ends(&net);
        elsewhere(&mut wire, &net, UDP, form);
        let headers = if net.family.is_v6() { 48 } else { 28 };
        let mtu = 1500 - form.adds(net.family);
        let of = |len: usize| {
            Packet::udp(client, service).dont_fragment().payload(&vec![7; len - headers]).build()
        };
        expect(&wire.run(Hook::FromNetdev, &of(mtu)), Verdict::ToBackend, Action::Redirect);
        let ran = wire.run(Hook::FromNetdev, &of(mtu + 1));
        let told = expect(&ran, Verdict::TooBig, Action::Redirect);
        let Transport::IcmpError { rest, .. } = told.transport else { panic!("{told:?}") };
        assert_eq!(rest as usize, mtu, "{told:?}");
    }
}

/// A header full of options has no room for the frontend: such a connection gets SNAT.
#[test]
fn full_header_falls_back_to_snat() {
    let mut wire = Wire::new("directroom");
    let net = nets()[0];
    let (client, service, backend) = ends(&net);
    elsewhere(&mut wire, &net, UDP, Form::Option);
    let full = Packet::udp(client, service).ip_options(&[1; 40]).build();
    let out = expect(&wire.run(Hook::FromNetdev, &full), Verdict::ToBackend, Action::Redirect);
    assert_eq!((out.src.ip(), out.dst), (node(&net), backend));
    // All packets of a direct flow must go directly.
    wire.world.reset_flows();
    let plain = packet(UDP, client, service).build();
    expect(&wire.run(Hook::FromNetdev, &plain), Verdict::ToBackend, Action::Redirect);
    let ran = wire.run(Hook::FromNetdev, &full);
    assert_eq!((ran.verdict, ran.action), (Verdict::NoRoomForOption, Action::Drop));
}
