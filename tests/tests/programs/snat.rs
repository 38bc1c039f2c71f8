//! Ports in the name of the node: whose they are, and when somebody else may have one.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, flags};
use lbr_tests::testrun::Action;

use super::world::{Net, TCP, at, expect, nets, packet, syn, tuple};
use super::xdp::Wire;

fn begin(wire: &mut Wire, client: SocketAddr, service: SocketAddr) -> u16 {
    let ran = wire.run(Hook::FromNetdev, &syn(client, service).build());
    expect(&ran, Verdict::ToBackend, Action::Redirect).src.port()
}

/// Two ports of a client that are given the same port of the node, as long as nobody has it.
fn of_one_mind(wire: &mut Wire, net: &Net, service: SocketAddr) -> [SocketAddr; 2] {
    let mut given = BTreeMap::new();
    for port in 20_000.. {
        let client = at(net.other, port);
        wire.world.reset_flows();
        if let Some(other) = given.insert(begin(wire, client, service), client) {
            wire.world.reset_flows();
            return [other, client];
        }
    }
    unreachable!("a node has less ports than a client")
}

/// Each side's FIN.
fn close(wire: &mut Wire, client: SocketAddr, service: SocketAddr, backend: SocketAddr, there: SocketAddr) {
    for (from, to) in [(client, service), (backend, there)] {
        wire.run(Hook::FromNetdev, &Packet::tcp(from, to, flags::FIN | flags::ACK).build());
    }
}

/// Its backend waits for the last segment of the former connection, and would not take a SYN as such.
#[test]
fn the_port_of_an_ended_connection_rests() {
    let mut wire = Wire::new("rests");
    for net in nets() {
        wire.world.reset();
        let (service, backend) = (at(net.service, 80), at(net.remote, 8080));
        wire.world.service(service, TCP, &[backend]);
        let [first, second] = of_one_mind(&mut wire, &net, service);
        let port = begin(&mut wire, first, service);
        let there = at(super::xdp::node(&net), port);
        close(&mut wire, first, service, backend, there);
        let other = begin(&mut wire, second, service);
        assert_ne!(other, port, "another one for the next connection");

        wire.world.reset_flows();
        assert_eq!(begin(&mut wire, first, service), port);
        close(&mut wire, first, service, backend, there);
        wire.world.age(tuple(TCP, first, service), 3);
        assert_eq!(begin(&mut wire, second, service), port, "after a while it is as good as any");
    }
}

/// A client that comes back after its port of the node was given to another one must not be led into that connection.
#[test]
fn a_port_that_was_given_away_is_not_taken_back() {
    let mut wire = Wire::new("away");
    for net in nets() {
        wire.world.reset();
        let (service, backend) = (at(net.service, 80), at(net.remote, 8080));
        wire.world.service(service, TCP, &[backend]);
        let [first, second] = of_one_mind(&mut wire, &net, service);
        let port = begin(&mut wire, first, service);
        let there = at(super::xdp::node(&net), port);
        close(&mut wire, first, service, backend, there);
        wire.world.age(tuple(TCP, first, service), 3);
        assert_eq!(begin(&mut wire, second, service), port);
        assert_ne!(begin(&mut wire, first, service), port, "the second one lives");
        let answered = wire.run(Hook::FromNetdev, &packet(TCP, backend, there).build());
        assert_eq!(expect(&answered, Verdict::ToClient, Action::Redirect).dst, second);
    }
}

/// Rather than to turn a client away, a port goes from hand to hand.
#[test]
fn without_another_port_it_does_not_rest() {
    let mut wire = Wire::new("norest");
    for net in nets() {
        wire.world.reset();
        let (service, backend) = (at(net.service, 80), at(net.remote, 8080));
        wire.world.service(service, TCP, &[backend]);
        let first = at(net.other, 20_000);
        let port = begin(&mut wire, first, service);
        let node = super::xdp::node(&net);
        close(&mut wire, first, service, backend, at(node, port));
        // All others are in the same state.
        let entry = wire.world.flow(tuple(TCP, backend, at(node, port)));
        for port in 61_000..61_000 + 4_536_u32 {
            let port = u16::try_from(port).unwrap();
            wire.world.programs.flows.insert(tuple(TCP, backend, at(node, port)), entry, 0).unwrap();
        }
        begin(&mut wire, at(net.other, 20_001), service);
    }
}
