//! Ports in the name of the node: whose they are, and when somebody else may have one.

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

    /// A connection of this client, and its port.
    fn establish(&mut self, client: SocketAddr) -> u16 {
        self.wire.establish(TCP, client, self.service).0.port()
    }

    /// Each side's FIN.
    fn close(&mut self, client: SocketAddr, port: u16) {
        for (from, to) in [(client, self.service), (self.backend, at(self.node, port))] {
            self.wire.run(Hook::FromNetdev, &segment(from, to, flags::FIN | flags::ACK).build());
        }
        assert_eq!(self.wire.world.state(tuple(TCP, client, self.service)), State::Closed);
    }

    /// A connection of this client from its begin to its end, so many seconds ago.
    fn ended(&mut self, client: SocketAddr, seconds: u64) -> u16 {
        let port = self.establish(client);
        self.close(client, port);
        self.wire.world.age(tuple(TCP, client, self.service), seconds);
        port
    }

    /// Gives every port of the node to a flow like this client's.
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

/// A node with no port that has rested gives one that has not, rather than turn a client away.
#[test]
fn without_another_port_it_does_not_rest() {
    for mut case in cases("norest") {
        let client = at(case.net.other, 20_000);
        case.ended(client, 0);
        case.fill(client);
        case.begin(at(case.net.other, 20_001));
    }
}

/// The clock goes in ticks of some milliseconds, so a busy node meets ports that were silent for none.
#[test]
fn without_another_port_none_rests_for_a_tick() {
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

/// A connection that is established never gives its port away, and so a client may be turned away: it is told.
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
        // One that fell silent for longer than it lives is none.
        case.wire.world.age(tuple(TCP, client, case.service), 7_000);
        let port = case.wire.world.flow(tuple(TCP, client, case.service)).to.src_port;
        let given = (0..10_u16).find_map(|n| {
            let ran =
                case.wire.run(Hook::FromNetdev, &syn(at(case.net.other, 1_000 + n), case.service).build());
            (ran.verdict == Verdict::ToBackend).then(|| Parsed::frame(&ran.packet).unwrap().src.port())
        });
        assert!(given.is_none_or(|given| given == port), "{given:?} of a living connection");
    }
}

/// Nor does one of which the kernel has evicted an entry.
#[test]
fn a_half_evicted_connection_keeps_its_port() {
    for mut case in cases("halfkeeps") {
        let [first, second] = case.of_one_mind();
        let port = case.establish(first);
        case.wire.world.age(tuple(TCP, first, case.service), 100);
        case.wire.world.programs.flows.remove(&tuple(TCP, first, case.service)).unwrap();
        assert_ne!(case.begin(second), port, "the port of a living connection was given away");
        let answer = packet(TCP, case.backend, at(case.node, port)).build();
        let answered = case.wire.run(Hook::FromNetdev, &answer);
        assert_eq!(expect(&answered, Verdict::ToClient, Action::Redirect).dst, first);
    }
}
