//! Ports in the name of the node: whose they are, and when somebody else may have one.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Packet, flags};
use lbr_tests::testrun::Action;

use super::world::{Net, TCP, at, expect, nets, packet, syn, tuple};
use super::xdp::{Wire, node};

/// A Service with one backend, on another node.
struct Case {
    wire: Wire,
    net: Net,
    service: SocketAddr,
    backend: SocketAddr,
    node: IpAddr,
}

/// In each family.
fn cases(name: &str) -> impl Iterator<Item = Case> {
    nets().into_iter().map(move |net| {
        let mut wire = Wire::new(name);
        let (service, backend) = (at(net.service, 80), at(net.remote, 8080));
        wire.world.service(service, TCP, &[backend]);
        Case { wire, net, service, backend, node: node(&net) }
    })
}

impl Case {
    /// Which port a new connection of this client is given.
    fn begin(&mut self, client: SocketAddr) -> u16 {
        let ran = self.wire.run(Hook::FromNetdev, &syn(client, self.service).build());
        expect(&ran, Verdict::ToBackend, Action::Redirect).src.port()
    }

    /// Each side's FIN.
    fn close(&mut self, client: SocketAddr, port: u16) {
        for (from, to) in [(client, self.service), (self.backend, at(self.node, port))] {
            self.wire.run(Hook::FromNetdev, &Packet::tcp(from, to, flags::FIN | flags::ACK).build());
        }
    }

    /// A connection of this client from its begin to its end, so many seconds ago.
    fn ended(&mut self, client: SocketAddr, seconds: u64) -> u16 {
        let port = self.begin(client);
        self.close(client, port);
        self.wire.world.age(tuple(TCP, client, self.service), seconds);
        port
    }

    /// Two ports of a client that are given the same port of the node, as long as nobody has it.
    fn of_one_mind(&mut self) -> [SocketAddr; 2] {
        let mut given = BTreeMap::new();
        for port in 20_000.. {
            let client = at(self.net.other, port);
            self.wire.world.reset_flows();
            if let Some(other) = given.insert(self.begin(client), client) {
                self.wire.world.reset_flows();
                return [other, client];
            }
        }
        unreachable!("a node has less ports than a client")
    }
}

/// Its backend waits for the last segment of the former connection, and would not take a SYN as such.
#[test]
fn the_port_of_an_ended_connection_rests() {
    for mut case in cases("rests") {
        let [first, second] = case.of_one_mind();
        let port = case.ended(first, 0);
        assert_ne!(case.begin(second), port, "another one for the next connection");

        case.wire.world.reset_flows();
        assert_eq!(case.ended(first, 3), port);
        assert_eq!(case.begin(second), port, "after a while it is as good as any");
    }
}

/// A client that comes back after its port of the node was given to another one must not be led into that connection.
#[test]
fn a_port_that_was_given_away_is_not_taken_back() {
    for mut case in cases("away") {
        let [first, second] = case.of_one_mind();
        let port = case.ended(first, 3);
        assert_eq!(case.begin(second), port);
        assert_ne!(case.begin(first), port, "the second one lives");
        let answer = packet(TCP, case.backend, at(case.node, port)).build();
        let answered = case.wire.run(Hook::FromNetdev, &answer);
        assert_eq!(expect(&answered, Verdict::ToClient, Action::Redirect).dst, second);
    }
}

/// Rather than to turn a client away, a port goes from hand to hand.
#[test]
fn without_another_port_it_does_not_rest() {
    for mut case in cases("norest") {
        let port = case.ended(at(case.net.other, 20_000), 0);
        // All others are in the same state.
        let key = |port| tuple(TCP, case.backend, at(case.node, port));
        let entry = case.wire.world.flow(key(port));
        for port in 61_000..61_000 + 4_536_u32 {
            let port = u16::try_from(port).unwrap();
            case.wire.world.programs.flows.insert(key(port), entry, 0).unwrap();
        }
        case.begin(at(case.net.other, 20_001));
    }
}
