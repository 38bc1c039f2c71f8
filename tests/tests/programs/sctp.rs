//! What SCTP has of its own: associations by chunks and tags, and a checksum over the whole packet. What it shares with
//! the other protocols, their tests send too.

use std::net::SocketAddr;

use lbr_common::conntrack::State;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, Transport, chunk};
use lbr_tests::testrun::Action;

use super::attack::open_address;
use super::wire::{Wire, node};
use super::world::{
    ACKNOWLEDGED, CLIENT, LOCAL, PORT, SCTP, World, answering, at, expect, expect_drop, expect_ends,
    expect_untouched, nets, opening, packet, tuple,
};

const SUM: usize = 8;

fn of_association(src: SocketAddr, dst: SocketAddr, chunk: u8) -> Packet {
    Packet::sctp(src, dst, chunk).tags(0, ACKNOWLEDGED)
}

/// The checksum is right after a translation, whatever the packet's length: `expect` sums the whole packet.
#[test]
fn checksums_of_every_length() {
    World::both("sctp-sum", |world| {
        for net in nets() {
            let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
            world.service(service, SCTP, &[backend]);
            world.connect(SCTP, client, service, LOCAL);
            for len in (0..70).chain([255, 256, 257, 1023, 1400, 1452, 3_500]) {
                let frame = packet(SCTP, client, service).payload(&vec![len as u8; len]).build();
                let out = expect(&world.send(&frame), Verdict::ToBackend, Action::Redirect);
                expect_ends(&frame, &out, client, backend);
                let frame = packet(SCTP, backend, client).payload(&vec![!len as u8; len]).build();
                let out = expect(&world.answer(&frame), Verdict::ToClient, Action::Redirect);
                expect_ends(&frame, &out, service, client);
            }
        }
    });
}

/// A checksum that is left to a device is zero, and stays so.
#[test]
fn a_checksum_that_is_left_to_a_device_stays_zero() {
    for net in nets() {
        let mut world = World::new("sctp-partial");
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, SCTP, &[backend]);
        let mut frame = opening(SCTP, client, service).build();
        let at = if net.family.is_v6() { 54 } else { 34 } + SUM;
        frame[at..at + 4].fill(0);
        let ran = world.send(&frame);
        assert_eq!((ran.verdict, ran.action), (Verdict::ToBackend, Action::Redirect));
        assert_eq!(ran.packet[at..at + 4], [0; 4]);
        assert_eq!(ran.packet[at - 6..at - 4], 8080u16.to_be_bytes());
    }
}

/// An association is assured by the tag that only the server's answer has.
#[test]
fn a_handshake_is_proved_by_its_tag() {
    for net in nets() {
        let mut world = World::new("sctp-tag");
        let (client, service, backend) = (at(net.client, PORT), at(net.service, 80), at(net.local, 8080));
        world.service(service, SCTP, &[backend]);
        let key = tuple(SCTP, client, service);
        let echo = |tag: u32| Packet::sctp(client, service, chunk::COOKIE_ECHO).tags(0, tag).build();
        world.send(&opening(SCTP, client, service).build());
        world.send(&echo(ACKNOWLEDGED));
        assert_eq!(world.state(key), State::New, "before the answer nothing proves anything");
        world.answer(&answering(SCTP, backend, client).build());
        assert_eq!(world.state(key), State::Replied);
        world.send(&echo(ACKNOWLEDGED ^ 1));
        assert_eq!(world.state(key), State::Replied, "a forged tag");
        world.send(&echo(ACKNOWLEDGED));
        assert_eq!(world.state(key), State::Established);
        for (end, state) in [(chunk::ABORT, State::Reset), (chunk::DATA, State::Established)] {
            world.answer(&of_association(backend, client, end).build());
            assert_eq!(world.state(key), state);
        }
        world.send(&of_association(client, service, chunk::SHUTDOWN_COMPLETE).build());
        assert_eq!(world.state(key), State::Reset);
        // The tuple is free: an INIT chooses anew.
        let other = at(net.remote, 9090);
        world.service(service, SCTP, &[other]);
        let out =
            expect(&world.send(&opening(SCTP, client, service).build()), Verdict::ToBackend, Action::Pass);
        assert_eq!(out.dst, other);
    }
}

/// Only an INIT begins an association at a frontend. What else comes to a port of the node is the stack's: an answer to an
/// association that the node itself began from that port.
#[test]
fn only_an_init_begins_one_at_a_frontend() {
    for net in nets() {
        let mut wire = Wire::new("sctp-frontend");
        let (client, own) = (at(net.other, PORT), at(node(&net), 30_080));
        wire.world.service(own, SCTP, &[at(net.remote, 8080)]);
        wire.world.service(at(net.service, 80), SCTP, &[at(net.remote, 8080)]);
        open_address(&mut wire.world, own.ip());
        for kind in [chunk::DATA, chunk::INIT_ACK, chunk::ABORT, chunk::COOKIE_ECHO, chunk::SHUTDOWN_COMPLETE]
        {
            let frame = of_association(client, own, kind).build();
            expect_untouched(&wire.run(Hook::FromNetdev, &frame), Verdict::StackConnection, &frame);
            let frame = of_association(client, at(net.service, 80), kind).build();
            // What ends an association gets no answer.
            let is_end = matches!(kind, chunk::ABORT | chunk::SHUTDOWN_COMPLETE);
            let verdict = if is_end { Verdict::Unanswerable } else { Verdict::NoConnection };
            assert_eq!(wire.run(Hook::FromNetdev, &frame).verdict, verdict);
            let frame = of_association(at(net.client, PORT), at(net.service, 80), kind).build();
            assert_eq!(wire.world.send(&frame).verdict, verdict);
            assert!(wire.world.programs.flows.is_empty(), "chunk {kind}");
        }
        wire.establish(SCTP, client, own);
    }
}

/// From a client outside to a backend on another node, in the name of this one.
#[test]
fn a_client_outside_and_a_backend_elsewhere() {
    for net in nets() {
        let mut wire = Wire::new("sctp-snat");
        let there = wire.connect(&net, SCTP);
        let (client, service) = there.there;
        let frame = packet(SCTP, client, service).payload(&[3; 999]).build();
        let out = expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToBackend, Action::Redirect);
        assert_eq!((out.src.ip(), out.dst), (node(&net), there.back.0));
        assert_ne!(out.src.port(), client.port(), "the case needs a port of the node");
        assert!(matches!(out.transport, Transport::Sctp { tag: ACKNOWLEDGED, chunk: chunk::DATA }));
        let frame = packet(SCTP, there.back.0, there.back.1).payload(&[4; 999]).build();
        let out = expect(&wire.run(Hook::FromNetdev, &frame), Verdict::ToClient, Action::Redirect);
        assert_eq!((out.src, out.dst), (service, client));
    }
}

/// An association that is open keeps its backend when that leaves the Service, as a TCP connection does; an INIT does not.
#[test]
fn an_association_outlives_its_backends_service() {
    for net in nets() {
        let mut world = World::new("sctp-outlives");
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        let (old, new) = (at(net.local, 8080), at(net.remote, 8080));
        let ids = world.service(service, SCTP, &[old]);
        world.connect(SCTP, client, service, LOCAL);
        world.service(service, SCTP, &[new]);
        world.remove_backend(ids[0]);
        world.raise_epoch();
        let ran = world.run(CLIENT.0, CLIENT.1, &packet(SCTP, client, service).build());
        assert_eq!(expect(&ran, Verdict::ToBackend, Action::Pass).dst, old);
        let ran = world.send(&opening(SCTP, client, service).build());
        assert_eq!(expect(&ran, Verdict::ToBackend, Action::Pass).dst, new);
    }
}

/// A packet without a whole chunk header is none.
#[test]
fn cut_headers_are_malformed() {
    for net in nets() {
        let mut world = World::new("sctp-cut");
        let (client, service) = (at(net.client, PORT), at(net.service, 80));
        world.service(service, SCTP, &[at(net.local, 8080)]);
        let ports = [client.port().to_be_bytes(), service.port().to_be_bytes()].concat();
        for (len, kind) in [(4, 0), (12, 0), (15, 0), (16, chunk::INIT_ACK), (19, chunk::INIT_ACK)] {
            let mut bytes = ports.clone();
            bytes.resize(len, 0);
            if len > 12 {
                bytes[12] = kind;
            }
            let frame = Packet::raw(client.ip(), service.ip(), SCTP).payload(&bytes).build();
            expect_drop(&world.send(&frame), Verdict::Malformed, &frame);
            // What pads the frame is no part of the packet.
            let padded = [frame, vec![9; 12]].concat();
            expect_drop(&world.send(&padded), Verdict::Malformed, &padded);
        }
    }
}
