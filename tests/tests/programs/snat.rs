//! SNAT ports of the node: which connection has one, and when another connection may take it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lbr_common::conntrack::State;
use lbr_common::flow::Flow;
use lbr_common::tuple::Tuple;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::packet::{Parsed, flags};
use lbr_tests::testrun::Action;

use super::wire::{Wire, node};
use super::world::{Net, TCP, at, expect, nets, packet, segment, syn, tuple};

/// A Service with one backend, on another node.
struct Case {
    wire: Wire,
    net: Net,
    service: SocketAddr,
    backend: SocketAddr,
    node: IpAddr,
}

/// One case for each family.
fn cases(name: &str) -> impl Iterator<Item = Case> {
    nets().into_iter().map(move |net| {
        let mut wire = Wire::new(name);
        let (service, backend) = (at(net.service, 80), at(net.remote, 8080));
        wire.world.service(service, TCP, &[backend]);
        Case { wire, net, service, backend, node: node(&net) }
    })
}

impl Case {
    /// The port that a new connection of this client gets.
    fn begin(&mut self, client: SocketAddr) -> u16 {
        let ran = self.wire.run(Hook::FromNetdev, &syn(client, self.service).build());
        expect(&ran, Verdict::ToBackend, Action::Redirect).src.port()
    }

    /// Establishes a connection of this client; returns its port.
    fn establish(&mut self, client: SocketAddr) -> u16 {
        self.wire.establish(TCP, client, self.service).0.port()
    }

    /// Sends the FIN of each side.
    fn close(&mut self, client: SocketAddr, port: u16) {
        for (from, to) in [(client, self.service), (self.backend, at(self.node, port))] {
            self.wire.run(Hook::FromNetdev, &segment(from, to, flags::FIN | flags::ACK).build());
        }
        assert_eq!(self.wire.world.state(tuple(TCP, client, self.service)), State::Closed);
    }

    /// A connection of this client that was opened and closed `seconds` ago.
    fn ended(&mut self, client: SocketAddr, seconds: u64) -> u16 {
        let port = self.establish(client);
        self.close(client, port);
        self.wire.world.age(tuple(TCP, client, self.service), seconds);
        port
    }

    /// Gives every other port of the node to a flow like this client's.
    fn fill(&mut self, client: SocketAddr) {
        let key = tuple(TCP, client, self.service);
        let flow = self.wire.world.flow(key);
        for port in 61_000..=u16::MAX {
            let to = Tuple { src_port: port, ..flow.to };
            if to == flow.to {
                continue;
            }
            let (key, flow) = (Tuple { src_port: port - 40_000, ..key }, Flow { to, ..flow });
            self.wire.world.programs.flows.insert(&key, &flow).unwrap();
            self.wire.world.programs.flows.insert(&flow.twin_key(), &flow.twin(&key)).unwrap();
        }
    }

    /// Two clients that get the same port of the node, as long as it is free.
    fn clients_of_one_port(&mut self) -> [SocketAddr; 2] {
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

/// The backend of an ended connection is in TIME-WAIT, and would not accept a SYN from the same port.
#[test]
fn port_of_an_ended_connection_rests() {
    for mut case in cases("rests") {
        let [first, second] = case.clients_of_one_port();
        let port = case.ended(first, 0);
        assert_ne!(case.begin(second), port, "the next connection gets another port");

        case.wire.world.reset_flows();
        assert_eq!(case.ended(first, 3), port);
        assert_eq!(case.begin(second), port, "after a while the port is free again");
    }
}

/// A client that comes back after its port went to another client must not enter that client's connection.
#[test]
fn port_of_another_client_is_not_taken_back() {
    for mut case in cases("away") {
        let [first, second] = case.clients_of_one_port();
        let port = case.ended(first, 3);
        assert_eq!(case.begin(second), port);
        assert_ne!(case.begin(first), port, "the second one lives");
        let answer = packet(TCP, case.backend, at(case.node, port)).build();
        let answered = case.wire.run(Hook::FromNetdev, &answer);
        assert_eq!(expect(&answered, Verdict::ToClient, Action::Redirect).dst, second);
    }
}

/// A node without a rested port gives away one that has not rested, rather than refuse a client.
#[test]
fn last_port_is_given_away_without_rest() {
    for mut case in cases("norest") {
        let client = at(case.net.other, 20_000);
        case.ended(client, 0);
        case.fill(client);
        case.begin(at(case.net.other, 20_001));
    }
}

/// The clock advances in ticks of some milliseconds, so a busy node meets ports with no silence at all.
#[test]
fn last_port_is_given_away_within_a_clock_tick() {
    for mut case in cases("tick") {
        let client = at(case.net.other, 20_000);
        case.ended(client, 0);
        let flow = case.wire.world.flow(tuple(TCP, client, case.service));
        // Later than the SYN: no time has passed between them.
        for (key, mut flow) in [
            (flow.twin_key(), flow.twin(&tuple(TCP, client, case.service))),
            (tuple(TCP, client, case.service), flow),
        ] {
            flow.last_seen += 60_000_000_000;
            case.wire.world.programs.flows.insert(&key, &flow).unwrap();
        }
        case.fill(client);
        case.begin(at(case.net.other, 20_001));
    }
}

/// An established connection never gives its port away; a client that gets no port is refused with an answer.
#[test]
fn living_connections_keep_their_ports() {
    for mut case in cases("keeps") {
        let client = at(case.net.other, 20_000);
        case.establish(client);
        case.wire.world.age(tuple(TCP, client, case.service), 80_000);
        case.fill(client);
        let before = case.wire.world.programs.flows.len();
        let frame = syn(at(case.net.other, 20_001), case.service).build();
        let ran = case.wire.run(Hook::FromNetdev, &frame);
        expect(&ran, Verdict::SnatExhausted, Action::Redirect);
        assert_eq!(case.wire.world.programs.flows.len(), before);
        // A connection past its lifetime has ended.
        case.wire.world.age(tuple(TCP, client, case.service), 7_000);
        let port = case.wire.world.flow(tuple(TCP, client, case.service)).to.src_port;
        // Each SYN tries some of the ports, one after the other, and each CPU all of them in turn.
        let given = (0..2_000_u16).find_map(|n| {
            let frame = syn(at(case.net.other, 1_000 + n), case.service).build();
            let ran = case.wire.run(Hook::FromNetdev, &frame);
            (ran.verdict == Verdict::ToBackend).then(|| Parsed::frame(&ran.packet).unwrap().src.port())
        });
        assert_eq!(given, Some(port), "of the connection that is over");
    }
}

/// A connection keeps its port after the kernel has evicted one of its entries.
#[test]
fn a_half_evicted_connection_keeps_its_port() {
    for mut case in cases("halfkeeps") {
        let [first, second] = case.clients_of_one_port();
        let port = case.establish(first);
        case.wire.world.age(tuple(TCP, first, case.service), 100);
        case.wire.world.programs.flows.remove(&tuple(TCP, first, case.service)).unwrap();
        assert_ne!(case.begin(second), port, "the port of a living connection was given away");
        let answer = packet(TCP, case.backend, at(case.node, port)).build();
        let answered = case.wire.run(Hook::FromNetdev, &answer);
        assert_eq!(expect(&answered, Verdict::ToClient, Action::Redirect).dst, first);
    }
}
