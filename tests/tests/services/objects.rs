//! Text of the objects: nodes, Services by number, and their EndpointSlices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lbr_common::addr::Family;
use lbr_tests::manifests::{self, Endpoint, EndpointSlice, Service, join};
use lbr_tests::topology::Bed;

use crate::world::{PORT, World};

/// Zones: the first node is alone in its zone.
pub(crate) const ZONES: [(&str, &str); 3] = [("a", "east"), ("b", "west"), ("c", "west")];

/// The blocks of ClusterIPs.
const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

/// Nodes with their addresses and zones, their pods, and the ServiceCIDR.
pub(crate) fn cluster(bed: &Bed) -> String {
    let [v4, v6] = SERVICE_CIDRS;
    let cidr = format!(
        "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata:\n  name: kubernetes\nspec:\n  cidrs: \
         [\"{v4}\", \"{v6}\"]\n"
    );
    let nodes = bed.nodes().values().map(|node| manifests::node(node, Some(zone(&node.name))));
    join(nodes.chain(bed.pods().values().map(manifests::pod)).chain([cidr]))
}

/// Zone of a node.
fn zone(node: &str) -> &'static str {
    ZONES.iter().find(|(name, _)| *name == node).map_or("", |(_, zone)| zone)
}

/// A Service by its number, which determines its name, addresses and ports: TCP and UDP on the same ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Web {
    number: u8,
}

impl Web {
    pub(crate) const fn new(number: u8) -> Self {
        Self { number }
    }

    pub(crate) fn name(self) -> String {
        format!("web-{}", self.number)
    }

    /// Its ClusterIP, port 80.
    pub(crate) fn cluster_ip(self, family: Family) -> SocketAddr {
        SocketAddr::new(self.cluster_ips()[family.index()], 80)
    }

    fn cluster_ips(self) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, self.number.into());
        [Ipv4Addr::new(10, 96, 0, self.number).into(), v6.into()]
    }

    /// Its NodePort.
    pub(crate) fn node_port(self) -> u16 {
        30_000 + u16::from(self.number)
    }

    /// Another NodePort.
    pub(crate) fn other_node_port(self) -> u16 {
        31_000 + u16::from(self.number)
    }

    /// Its address from outside, a load balancer's or an external one, port 80. No node has it.
    pub(crate) fn external(self, family: Family) -> SocketAddr {
        SocketAddr::new(self.externals()[family.index()], 80)
    }

    pub(crate) fn externals(self) -> [IpAddr; 2] {
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, self.number.into());
        [Ipv4Addr::new(203, 0, 113, self.number).into(), v6.into()]
    }

    /// Of type ClusterIP.
    pub(crate) fn internal(self) -> Service {
        self.of_type("ClusterIP")
    }

    /// Of this type, without NodePorts.
    pub(crate) fn of_type(self, kind: &str) -> Service {
        let service = Service::new(&self.name(), &self.cluster_ips()).spec(&format!("type: {kind}"));
        service.port("tcp", "TCP", 80, PORT).port("udp", "UDP", 80, PORT)
    }

    /// Of type NodePort.
    pub(crate) fn at_nodes(self) -> Service {
        self.with_node_ports("NodePort", self.node_port())
    }

    /// Of type LoadBalancer, with its address and with NodePorts.
    pub(crate) fn balanced(self) -> Service {
        let service = self.with_node_ports("LoadBalancer", self.node_port());
        self.externals().into_iter().fold(service, Service::ingress)
    }

    /// Of a type that has NodePorts.
    pub(crate) fn with_node_ports(self, kind: &str, port: u16) -> Service {
        Service::new(&self.name(), &self.cluster_ips())
            .spec(&format!("type: {kind}"))
            .port("tcp", "TCP", 80, PORT)
            .node_port(port)
            .port("udp", "UDP", 80, PORT)
            .node_port(port)
    }

    /// Slices of both families, ready on the usual port.
    pub(crate) fn on(self, world: &World, backends: &[&'static str]) -> String {
        let backends: Vec<Backend> = backends.iter().map(|&name| at(name, State::Ready)).collect();
        self.with(world, &backends)
    }

    /// Slices of both families.
    pub(crate) fn with(self, world: &World, backends: &[Backend]) -> String {
        self.on_port(world, backends, PORT)
    }

    /// Slices of both families, on this port.
    pub(crate) fn on_port(self, world: &World, backends: &[Backend], port: u16) -> String {
        join(Family::ALL.map(|family| {
            let name = format!("{}-{}", self.name(), if family.is_v6() { "v6" } else { "v4" });
            let slice = EndpointSlice::new(&name, &self.name(), family);
            let slice = slice.port("tcp", "TCP", port).port("udp", "UDP", port);
            let endpoints = backends.iter().map(|backend| backend.endpoint(world, family));
            endpoints.fold(slice, EndpointSlice::endpoint).yaml()
        }))
    }
}

/// Phase of an endpoint's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// Not ready yet.
    Unready,
    /// Terminating, and still serving.
    Terminating,
    /// Terminating, and no longer serving.
    Ended,
}

/// An endpoint, by the name of a pod or of a node's server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    name: &'static str,
    state: State,
    zones: &'static [&'static str],
    nodes: &'static [&'static str],
}

impl Backend {
    /// Hints for zones.
    pub(crate) const fn for_zones(self, zones: &'static [&'static str]) -> Self {
        Self { zones, ..self }
    }

    /// Hints for nodes.
    pub(crate) const fn for_nodes(self, nodes: &'static [&'static str]) -> Self {
        Self { nodes, ..self }
    }

    fn endpoint(&self, world: &World, family: Family) -> Endpoint {
        let (addresses, node) = world.place(self.name);
        let (ready, serving, terminating) = match self.state {
            State::Ready => (true, true, false),
            State::Unready => (false, false, false),
            State::Terminating => (false, true, true),
            State::Ended => (false, false, true),
        };
        let mut endpoint = Endpoint::new(addresses[family.index()])
            .node(&node.name)
            .zone(zone(&node.name))
            .condition("ready", ready)
            .condition("serving", serving)
            .condition("terminating", terminating);
        if !self.zones.is_empty() {
            endpoint = endpoint.for_zones(self.zones);
        }
        if !self.nodes.is_empty() {
            endpoint = endpoint.for_nodes(self.nodes);
        }
        endpoint
    }
}

/// An endpoint in some phase.
pub(crate) const fn at(name: &'static str, state: State) -> Backend {
    Backend { name, state, zones: &[], nodes: &[] }
}
