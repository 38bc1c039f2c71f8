//! Random objects of every kind are added, changed and removed, with faults at any write and restarts at any moment. After each change, what the engine compiled of it must be what a compile from scratch makes of the whole. The
//! maps must always end up as compiled, and a packet must find its way at every moment in between (the fake checks after
//! every write).
#![expect(clippy::panic, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use lbr_agent::cluster::Change;
use lbr_agent::cluster::ClusterState;
use lbr_agent::compile::compile;
use lbr_agent::dataplane::fake::Fake;
use lbr_agent::desired::Desired;
use lbr_agent::engine::Engine;
use lbr_agent::ids::Ids;
use lbr_agent::model::{
    Algorithm, Endpoint, EndpointPort, EndpointSlice, Forwarding, Kind, Labels, Namespace, NetworkPolicy,
    Node, Object, ObjectName, ObjectRef, Peer, Pod, PolicyPort, PolicyRule, PortSet, Protocol, Requirement,
    Selector, Service, ServiceCidr, ServicePort, SourceRanges, TrafficPolicy,
};
use lbr_agent::node::links::{LocalLink, LocalLinks};
use lbr_agent::node::{NodePortAddress, NodeView, Settings};
use lbr_tests::scenario::text;

const RUNS: u64 = 100;
const EVENTS: usize = 120;

/// Few names and addresses, so that they collide.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PORTS: [(&str, Protocol, u16); 3] =
    [("http", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53), ("admin", Protocol::Tcp, 81)];

/// The node's address.
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn name(&mut self) -> ObjectName {
        ObjectName::new("default", NAMES[self.below(NAMES.len())].to_owned())
    }

    fn address(&mut self, net: u8, hosts: usize) -> IpAddr {
        let host = u8::try_from(self.below(hosts)).unwrap_or(0);
        if self.one_in(3) {
            Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, u16::from(host) + 1).into()
        } else {
            Ipv4Addr::new(10, net, 0, host + 1).into()
        }
    }

    fn service(&mut self) -> Object {
        let addresses = self.below(4);
        let ports = PORTS.iter().filter(|_| !self.one_in(3)).copied().collect::<Vec<_>>();
        Object::Service(Service {
            name: self.name(),
            cluster_ips: (0..addresses).map(|_| self.address(96, 6)).collect(),
            ports: ports
                .into_iter()
                .map(|(name, protocol, port)| ServicePort {
                    name: name.to_owned(),
                    protocol,
                    port,
                    node_port: self.one_in(3).then(|| 30_000 + u16::try_from(self.below(4)).unwrap_or(0)),
                })
                .collect(),
            internal_policy: self.policy(),
            external_policy: self.policy(),
            load_balancer_ips: (0..self.below(3)).map(|_| self.address(203, 3)).collect(),
            external_ips: (0..self.below(2)).map(|n| (n, self.address(198, 3))).collect(),
            source_ranges: SourceRanges {
                v4: self.one_in(3).then(|| vec![IpNet::from(self.address(244, 12)), IpNet::from(NODE)]),
                v6: None,
            },
            affinity: if self.one_in(4) { 10 } else { 0 },
            // Numbers that NodePorts have too.
            health_check_port: self.one_in(3).then(|| 30_000 + u16::try_from(self.below(6)).unwrap_or(0)),
            // Rarely: its tables are large.
            algorithm: if self.one_in(60) { Algorithm::Maglev } else { Algorithm::default() },
            forwarding: match self.below(12) {
                0 => Forwarding::Dsr,
                1 => Forwarding::DsrIpip,
                _ => Forwarding::Snat,
            },
        })
    }

    fn policy(&mut self) -> TrafficPolicy {
        if self.one_in(4) { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
    }

    fn slice(&mut self) -> Object {
        let service = self.name().name.clone();
        let endpoints = self.below(8);
        let ports = PORTS.iter().filter(|_| !self.one_in(3)).copied().collect::<Vec<_>>();
        let shift = if self.one_in(4) { 1 } else { 0 };
        Object::EndpointSlice(EndpointSlice {
            triggered: None,
            name: ObjectName::new("default", format!("slice-{}", self.below(8))),
            service,
            endpoints: (0..endpoints).map(|_| self.endpoint()).collect(),
            ports: ports
                .into_iter()
                .map(|(name, protocol, port)| EndpointPort {
                    name: name.to_owned(),
                    protocol,
                    port: port + 8000 + shift,
                })
                .collect(),
        })
    }

    fn endpoint(&mut self) -> Endpoint {
        let (ready, serving, terminating) = match self.below(6) {
            0 => (false, true, true),
            1 => (false, false, true),
            2 => (false, false, false),
            _ => (true, true, false),
        };
        Endpoint {
            addr: self.address(244, 12),
            ready,
            serving,
            terminating,
            node: if self.one_in(2) { "here".into() } else { "there".into() },
            zone: "".into(),
            for_nodes: Vec::new(),
            for_zones: if self.one_in(2) { vec!["z".into()] } else { Vec::new() },
        }
    }

    /// This node, whose zone and addresses count, or another one.
    fn node(&mut self) -> Object {
        let zone = ("topology.kubernetes.io/zone".to_owned(), "z".to_owned());
        let name = if self.one_in(2) { "here" } else { "there" };
        let addresses =
            if self.one_in(2) { vec![NODE] } else { vec![self.address(192, 2), self.address(192, 2)] };
        let labels = if self.one_in(2) { [zone].into() } else { Labels::new() };
        Object::Node(Node { name: name.to_owned(), labels, addresses, ..Node::default() })
    }

    fn pod(&mut self) -> Object {
        let ips = (0..=self.below(2)).map(|_| self.address(244, 12)).collect();
        let name = ObjectName::new(self.namespace(), NAMES[self.below(NAMES.len())]);
        let node = if self.one_in(2) { "here" } else { "there" }.to_owned();
        let (labels, terminating) = (self.labels(), self.one_in(4));
        let mut named_ports = BTreeMap::new();
        if self.one_in(2) {
            named_ports.insert(("http".to_owned(), Protocol::Tcp), [80, 8080][self.below(2)]);
        }
        Object::Pod(Pod { name, ips, node, labels, terminating, named_ports, ..Pod::default() })
    }

    fn namespace(&mut self) -> &'static str {
        ["default", "other"][self.below(2)]
    }

    fn labels(&mut self) -> Labels {
        let app = || ("app".to_owned(), "a".to_owned());
        [app(), ("app".to_owned(), "b".to_owned())].into_iter().filter(|_| self.one_in(2)).collect()
    }

    fn namespace_object(&mut self) -> Object {
        Object::Namespace(Namespace { name: self.namespace().to_owned(), labels: self.labels() })
    }

    fn selector(&mut self) -> Selector {
        let (key, values) = ("app".to_owned(), [["a", "b"][self.below(2)].to_owned()].into());
        let requirements = match self.below(4) {
            0 => Vec::new(),
            1 => vec![Requirement::NotIn(key, values)],
            _ => vec![Requirement::In(key, values)],
        };
        Selector { requirements }
    }

    fn rules(&mut self) -> Option<Vec<PolicyRule>> {
        let peer = |random: &mut Self| match random.below(5) {
            0 => Peer::Both(random.selector(), random.selector()),
            1 => Peer::Namespaces(random.selector()),
            2 => Peer::Block { cidr: IpNet::new_assert(random.address(244, 12), 28).trunc(), except: vec![] },
            _ => Peer::Pods(random.selector()),
        };
        let port = |random: &mut Self| {
            let named = PortSet::Named("http".to_owned());
            let ports = [PortSet::All, PortSet::Range(80, 90), named][random.below(3)].clone();
            PolicyPort { protocol: Protocol::Tcp, ports }
        };
        let rule = |random: &mut Self| PolicyRule {
            peers: (0..random.below(3)).map(|_| peer(random)).collect(),
            ports: (0..random.below(3)).map(|_| port(random)).collect(),
        };
        let rules = (0..self.below(3)).map(|_| rule(self)).collect();
        (!self.one_in(3)).then_some(rules)
    }

    fn network_policy(&mut self) -> Object {
        let name = ObjectName::new(self.namespace(), NAMES[self.below(NAMES.len())]);
        let (pods, audit) = (self.selector(), self.one_in(4));
        let (ingress, egress) = (self.rules(), self.rules());
        Object::NetworkPolicy(NetworkPolicy { name, audit, pods, ingress, egress, edit: None })
    }

    fn service_cidr(&mut self) -> Object {
        let cidrs = vec![IpNet::new_assert(self.address(96, 6), 24).trunc()];
        Object::ServiceCidr(ServiceCidr { name: self.name().name.clone(), cidrs })
    }

    fn event(&mut self, state: &ClusterState) -> Change {
        match self.below(30) {
            0..7 => Change::Apply(self.service()),
            7..14 => Change::Apply(self.slice()),
            14 => Change::Apply(self.node()),
            15..19 => Change::Apply(self.pod()),
            19 => Change::Apply(self.namespace_object()),
            20..23 => Change::Apply(self.network_policy()),
            23 => Change::Apply(self.service_cidr()),
            _ => {
                let all = references(state);
                match all.len() {
                    0 => Change::Apply(self.service()),
                    n => Change::Delete(all[self.below(n)].clone()),
                }
            }
        }
    }
}

fn references(state: &ClusterState) -> Vec<ObjectRef> {
    let services = state.services.keys().map(|n| (Kind::Service, n));
    let slices = state.slices.keys().map(|n| (Kind::EndpointSlice, n));
    let nodes = state.nodes.keys().map(|n| (Kind::Node, n));
    let pods = state.pods.keys().map(|n| (Kind::Pod, n));
    let namespaces = state.namespaces.keys().map(|n| (Kind::Namespace, n));
    let policies = state.policies.keys().map(|n| (Kind::NetworkPolicy, n));
    let cidrs = state.service_cidrs.keys().map(|n| (Kind::ServiceCidr, n));
    services
        .chain(slices)
        .chain(nodes)
        .chain(pods)
        .chain(namespaces)
        .chain(policies)
        .chain(cidrs)
        .map(|(kind, name)| ObjectRef { kind, name: name.clone() })
        .collect()
}

/// The tables in which two differ.
fn difference(one: &Desired, other: &Desired) -> String {
    let (one, other) = (text::tables(one), text::tables(other));
    let lines = |a: &std::collections::BTreeSet<String>, b| a.difference(b).cloned().collect::<Vec<_>>();
    format!("{:#?} are not {:#?}", lines(&one, &other), lines(&other, &one))
}

struct Agent {
    engine: Engine,
    fake: Fake,
}

impl Agent {
    fn start(fake: Fake) -> Self {
        let mut dataplane = fake.clone();
        let everywhere = vec![NodePortAddress::Block(IpNet::from(NODE))];
        let settings = Settings {
            nodeport_addresses: everywhere,
            external_ips: vec![IpNet::new_assert(NODE, 0)],
            ..Settings::default()
        };
        let links = LocalLinks { node_addresses: [NODE].into(), ..LocalLinks::default() };
        let node = NodeView { name: "here".to_owned(), settings, links, ..NodeView::default() };
        let engine = Engine::start(node, &mut dataplane).unwrap_or_else(|e| panic!("{e}"));
        Self { engine, fake }
    }

    fn sync(&mut self) {
        for kind in Kind::ALL {
            self.engine.take(Change::Synced(kind));
        }
    }

    fn attempt(&mut self) -> (Desired, bool) {
        self.engine.compile(&mut self.fake);
        let desired = self.engine.desired();
        let from_scratch = self.engine.from_scratch();
        assert!(
            desired == from_scratch,
            "the tables depend on history: {}",
            difference(&desired, &from_scratch)
        );
        let before = self.fake.in_force();
        let outcome = self.engine.write(&mut self.fake);
        if !self.engine.is_synced() {
            let after = self.fake.in_force();
            let kept = before.frontends.keys().all(|k| after.frontends.contains_key(k))
                && before.slots.keys().all(|k| after.slots.contains_key(k))
                && before.backends.keys().all(|k| after.backends.contains_key(k))
                && before.services.keys().all(|k| after.services.contains_key(k));
            assert!(kept, "removed before everything was listed: {before:#?} to {after:#?}");
        }
        (desired, outcome.is_converged())
    }

    fn converge(&mut self) -> Desired {
        for _ in 0..200 {
            if let (desired, true) = self.attempt() {
                // Health check ports are in no map.
                let in_maps = Desired { health_ports: Default::default(), ..desired.clone() };
                assert!(self.fake.in_force() == in_maps, "the maps are not as desired");
                assert_eq!(self.fake.attached(), desired.links.keys().copied().collect());
                return desired;
            }
        }
        panic!("does not converge: {:?}", self.engine.write(&mut self.fake));
    }

    /// A new agent on the same maps, which gets the same objects in a random order.
    fn restart(self, random: &mut Random) -> Self {
        let state = self.engine.state().clone();
        let mut objects: Vec<_> = state.services.into_values().map(Object::Service).collect();
        objects.extend(state.slices.into_values().map(Object::EndpointSlice));
        objects.extend(state.nodes.into_values().map(Object::Node));
        objects.extend(state.pods.into_values().map(Object::Pod));
        objects.extend(state.namespaces.into_values().map(Object::Namespace));
        let policies = state.policies.into_values().map(Arc::unwrap_or_clone);
        objects.extend(policies.map(Object::NetworkPolicy));
        objects.extend(state.service_cidrs.into_values().map(Object::ServiceCidr));
        let mut next = Self::start(self.fake);
        next.set_node(self.engine.node().clone());
        while !objects.is_empty() {
            let object = objects.swap_remove(random.below(objects.len()));
            next.engine.take(Change::Apply(object));
            if random.one_in(2) {
                next.attempt();
            }
        }
        next.sync();
        next
    }

    fn set_node(&mut self, node: NodeView) {
        self.engine.set_node(|known| *known = node, &mut self.fake);
    }

    fn plug(&mut self, random: &mut Random) {
        let index = u32::try_from(random.below(5)).unwrap_or(0) + 1;
        let mut node = self.engine.node().clone();
        let links = &mut node.links;
        if links.links.remove(&index).is_some() {
            links.routes.retain(|_, to| *to != index);
        } else {
            let has_master = random.one_in(3);
            links.links.insert(
                index,
                LocalLink { name: String::new(), master: has_master.then_some(999), has_peer: true },
            );
            links.routes.insert(random.address(244, 12).into(), index);
        }
        self.set_node(node);
    }
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let mut agent = Agent::start(Fake::new(seed));
    agent.sync();
    for _ in 0..EVENTS {
        let change = random.event(agent.engine.state());
        agent.engine.take(change);
        match random.below(30) {
            0 => {
                agent.converge();
            }
            // A restart in the middle: the new agent does not know what is pending.
            1 => agent = agent.restart(&mut random),
            // A restart of a converged agent changes nothing.
            2 => {
                let before = agent.converge();
                agent = agent.restart(&mut random);
                let after = agent.converge();
                // Of two claims to one address, the rejected one may be listed first and get the number.
                if before.rejected.is_empty() {
                    assert_eq!(before, after, "a restart changed the maps");
                }
                assert_eq!(text::tables(&before), text::tables(&after), "a restart changed the maps");
            }
            3 => agent.plug(&mut random),
            _ => {
                agent.attempt();
            }
        }
    }
    let long_lived = agent.converge();
    let fresh = compile(agent.engine.state(), agent.engine.node(), &mut Ids::new());
    let is_same = text::tables(&long_lived) == text::tables(&fresh);
    assert!(is_same, "the tables depend on history: {}", difference(&long_lived, &fresh));

    for reference in references(agent.engine.state()) {
        agent.engine.take(Change::Delete(reference));
    }
    let node = NodeView { links: Default::default(), ..agent.engine.node().clone() };
    agent.set_node(node);
    assert_eq!(agent.converge(), Desired::default());
}

#[test]
fn random_events_converge() {
    for seed in 0..RUNS {
        let outcome = std::panic::catch_unwind(|| run(seed));
        assert!(outcome.is_ok(), "seed {seed} fails as printed above");
    }
}
