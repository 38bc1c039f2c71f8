//! A node with a server's pod, an isolated pod, a client's pod, and a client outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lbr_common::addr::Family;
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::bench::generate::{Frame, Sent, Wire, link_address};
use lbr_tests::manifests::{self, Endpoint, EndpointSlice, Service, join};
use lbr_tests::topology::{Bed, Host, Node, Pod, PodOptions};

/// The port where the server listens.
pub(crate) const PORT: u16 = 8080;
const NODE_PORT: u16 = 30_080;
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Sources of a flood: more than the quota of first packets, so that none is still known when it comes again.
const SOURCES: u32 = 1 << 19;

/// Isolates every pod of this namespace for ingress.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: nobody\n  namespace: shut\n\
                      spec:\n  podSelector: {}\n  policyTypes: [Ingress]\n";

/// The target of a flood.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    Isolated,
    NodePort,
}

/// Packets that the programs have counted.
pub(crate) struct Arrived {
    /// At the link of the isolated pod.
    pub(crate) denied: u64,
    /// At the uplink, to the Service.
    pub(crate) to_backend: u64,
}

/// Fields are dropped in this order, so processes end before their namespaces.
pub(crate) struct Rig {
    agent: Agent,
    pub(crate) outside: Host,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    shut: Pod,
    node: Node,
    bed: Bed,
}

impl Rig {
    pub(crate) fn start() -> Result<Self> {
        let mut bed = Bed::new("flood")?;
        let node = bed.add_node("node")?;
        let [client, server, shut] =
            ["client", "server", "shut"].map(|name| bed.add_pod(&node, name, PodOptions::default()));
        let (client, server, shut) = (client?, server?, shut?);
        let outside = bed.add_client("outside")?;
        // The pod's own address is routed from outside too.
        bed.fabric().ip([format!("route add {} via {}", node.pod_cidrs()[0], node.v4)])?;
        let files = [("all.yaml", documents(&node, [&client, &server, &shut]))];
        let agent = Agent::start_with(&mut bed, &node, &AgentOptions::default(), &files)?;
        agent.wait_for("services", lbr_tests::patience::millis(5_000), |shown| {
            shown.as_array().is_some_and(|rows| !rows.is_empty())
        })?;
        Ok(Self { agent, outside, client, server, shut, node, bed })
    }

    /// The server itself, its NodePort, and its ClusterIP.
    pub(crate) fn addresses(&self) -> [SocketAddr; 3] {
        let direct = SocketAddr::new(self.server.v4.into(), PORT);
        [direct, (self.node.v4, NODE_PORT).into(), (CLUSTER_IP, 80).into()]
    }

    /// SYNs from random addresses and ports, put onto the node's wire.
    pub(crate) fn flood(&self, target: Target, time: Duration) -> Result<Sent> {
        let via = self.node.ns.run(|| link_address("eth0"))?;
        let to = match target {
            Target::Isolated => SocketAddrV4::new(self.shut.v4, PORT),
            Target::NodePort => SocketAddrV4::new(self.node.v4, NODE_PORT),
        };
        self.bed.fabric().run(|| {
            let link = self.node.wire();
            let frame = Frame::syn(link_address(&link)?, via, to)?;
            let wire = Wire::open(nix::net::if_::if_nametoindex(link.as_str())?)?;
            // Knuth's multiplier: every number once, in scattered order.
            let flow = |n: u32| frame.of_flow(n.wrapping_mul(2_654_435_769));
            let mut frames: Vec<Frame> = (0..SOURCES).map(flow).collect();
            wire.repeat(&mut frames, |spent| spent >= time)
        })
    }

    pub(crate) fn arrived(&self) -> Result<Arrived> {
        let shown = self.agent.show("counters")?;
        let rows = shown.as_array().context("counters are a list")?;
        let count = |hook: &str, verdict: &str| {
            let row = rows.iter().find(|row| row["hook"] == hook && row["verdict"] == verdict);
            row.and_then(|row| row["packets"].as_u64()).unwrap_or(0)
        };
        let denied = count("to_pod", "ingress_denied");
        Ok(Arrived { denied, to_backend: count("from_netdev", "to_backend") })
    }
}

fn documents(node: &Node, pods: [&Pod; 3]) -> String {
    let [client, server, shut] = pods;
    let service = Service::new("web", &[IpAddr::from(CLUSTER_IP)]).spec("type: NodePort");
    let service = service.port("tcp", "TCP", 80, PORT).node_port(NODE_PORT);
    let slice = EndpointSlice::new("web-v4", "web", Family::V4).port("tcp", "TCP", PORT);
    let slice = slice.endpoint(Endpoint::new(server.v4.into()).node(&node.name));
    let namespace = |name| format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n");
    join([
        namespace("default"),
        namespace("shut"),
        manifests::node(node, None),
        manifests::pod(client),
        manifests::pod(server),
        manifests::pod(shut).replace("namespace: default", "namespace: shut"),
        POLICY.to_owned(),
        service.yaml(),
        slice.yaml(),
    ])
}
