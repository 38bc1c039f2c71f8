//! The cast: the same few pods, nodes and hosts in every case, with addresses that are easy to remember.
//!
//! ```text
//! node-a 172.18.0.1 (routed pods)      node-b 172.18.0.2 (bridged pods)     on the wire
//!   x/a 10.244.1.11                      x/c 10.244.2.13                      ext-100 172.18.0.100
//!   x/b 10.244.1.12                      y/b 10.244.2.22                      ext-200 172.18.0.200
//!   y/a 10.244.1.21                      z/a 10.244.2.31
//! ```
//!
//! IPv6 has the same digits: `fd00:10:244:1::11`, `fd00:172:18::100`. Pods have the label `pod: a`, namespaces `ns:
//! x` and the usual `kubernetes.io/metadata.name`. Each of the cast serves TCP and UDP on 80 and 81.
//!
//! Each has a Service, whose ports are **crossed**: its port 81 leads to 80, and 80 to 81. A proxy that judges a
//! packet before its translation fails every case.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use lbr_common::addr::Family;
use lbr_tests::manifests::{EndpointSlice, Service, join};
use lbr_tests::netns::{Netns, sysctl};
use lbr_tests::topology::{Bed, Node, Pod, PodNetwork, PodOptions};
use serde_json::{Value, json};

/// Namespace, name, on which node (0 or 1), last part of its addresses.
const PODS: [(&str, &str, usize, u16); 6] = [
    ("x", "a", 0, 11),
    ("x", "b", 0, 12),
    ("y", "a", 0, 21),
    ("x", "c", 1, 13),
    ("y", "b", 1, 22),
    ("z", "a", 1, 31),
];

/// Hosts that are no part of the cluster, by the last part of their addresses.
const EXTERNAL: [u8; 2] = [100, 200];

/// The ports where each server listens.
pub(crate) const PORTS: [u16; 2] = [80, 81];

/// A pod, node or host that sends and receives.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) name: String,
    pub(crate) ns: Netns,
    pub(crate) addresses: [IpAddr; 2],
    /// Addresses of its Service.
    pub(crate) service: [IpAddr; 2],
    /// Its pod, unless it is a node or a host outside.
    pub(crate) pod: Option<Pod>,
}

impl Actor {
    pub(crate) fn address(&self, family: Family) -> IpAddr {
        self.addresses[family.index()]
    }

    /// The object of the pod `namespace/name`, as the API server has it.
    pub(crate) fn object(&self) -> Option<Value> {
        let pod = self.pod.as_ref()?;
        let (namespace, name) = self.name.split_once('/')?;
        // One name, two numbers: `web` is another port in y/b, and `dual` is another one for UDP everywhere.
        let web = if self.name == "y/b" { 81 } else { 80 };
        let named = |name: &str, number: u16, protocol: &str| json!({"name": name, "containerPort": number, "protocol": protocol});
        let mut ports = vec![
            named("web", web, "TCP"),
            named("dual", 80, "TCP"),
            named("dual", 81, "UDP"),
            named("serve-80-sctp", 80, "SCTP"),
        ];
        for number in PORTS {
            ports.push(named(&format!("serve-{number}-tcp"), number, "TCP"));
            ports.push(named(&format!("serve-{number}-udp"), number, "UDP"));
        }
        let mut spec = json!({"nodeName": pod.node, "containers": [{"name": "main", "ports": ports}]});
        if self.name == "y/a" {
            spec["initContainers"] = json!([
                {"name": "once", "ports": [named("once", 80, "TCP")]},
                {"name": "sidecar", "restartPolicy": "Always", "ports": [named("mesh", 81, "TCP")]},
            ]);
        }
        let ips: Vec<Value> = self.addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
        Some(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "uid": self.name, "labels": {"pod": name}},
            "spec": spec,
            "status": {"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips},
        }))
    }
}

/// The object of a namespace, with the label that the API server gives it.
pub(crate) fn namespace(name: &str) -> Value {
    let labels = json!({"ns": name, "kubernetes.io/metadata.name": name});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// Makes the nodes, pods and hosts in a bed.
pub(crate) fn build(bed: &mut Bed) -> Result<(Vec<Node>, BTreeMap<String, Actor>)> {
    let nodes = vec![bed.add_node("node-a")?, bed.add_node("node-b")?];
    let mut actors = Vec::new();
    for (namespace, name, node, host) in PODS {
        let network = [PodNetwork::Routed, PodNetwork::Bridge][node];
        let options = PodOptions { network, host: Some(host), ..PodOptions::default() };
        let pod = bed.add_pod(&nodes[node], &format!("{namespace}-{name}"), options)?;
        actors.push((format!("{namespace}/{name}"), pod.ns.clone(), pod.addresses(), Some(pod)));
    }
    for node in &nodes {
        actors.push((node.name.clone(), node.ns.clone(), node.addresses(), None));
    }
    for host in EXTERNAL {
        let ns = bed.namespace(&format!("ext-{host}"))?;
        let addresses = external(bed, &ns, host, &nodes)?;
        actors.push((format!("ext-{host}"), ns, addresses, None));
    }
    for (_, ns, ..) in &actors {
        ns.run(|| {
            // By default only one "port unreachable" a second goes to an address.
            sysctl("ipv4/icmp_ratelimit", "0")?;
            sysctl("ipv6/icmp/ratelimit", "0")
        })?;
    }
    let actors = actors.into_iter().zip(1..).map(|((name, ns, addresses, pod), number)| {
        (name.clone(), Actor { name, ns, addresses, service: vip(number), pod })
    });
    Ok((nodes, actors.collect()))
}

/// Connects a host to the wire between the nodes. Pods reach it, and it reaches pods, without translation.
fn external(bed: &Bed, ns: &Netns, host: u8, nodes: &[Node]) -> Result<[IpAddr; 2]> {
    let digits = u16::from_str_radix(&host.to_string(), 16)?;
    let v4 = Ipv4Addr::new(172, 18, 0, host);
    let v6 = Ipv6Addr::new(0xfd00, 0x172, 0x18, 0, 0, 0, 0, digits);
    bed.fabric().ip([
        format!("link add ext{host} type veth peer name eth0 netns {}", ns.name()),
        format!("link set ext{host} master br0 up"),
    ])?;
    let mut lines = vec![
        format!("addr add {v4}/24 dev eth0"),
        format!("addr add {v6}/64 dev eth0 nodad"),
        "link set eth0 up".to_owned(),
    ];
    for node in nodes {
        for (cidr, via) in node.pod_cidrs().iter().zip(node.addresses()) {
            lines.push(format!("route add {cidr} via {via}"));
        }
    }
    ns.ip(lines)?;
    Ok([v4.into(), v6.into()])
}

/// Both addresses of the n-th Service.
pub(crate) fn vip(n: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, n.into());
    [Ipv4Addr::new(10, 96, 0, n).into(), v6.into()]
}

/// The Service port that leads to a port.
pub(crate) fn crossed(port: u16) -> u16 {
    match port {
        80 => 81,
        81 => 80,
        other => other,
    }
}

/// Nodes and Services: what no case changes.
pub(crate) fn cluster(nodes: &[Node], actors: &BTreeMap<String, Actor>) -> String {
    let node = |node: &Node| {
        let address = |ip: IpAddr| json!({"type": "InternalIP", "address": ip.to_string()});
        let addresses: Vec<Value> = node.addresses().into_iter().map(address).collect();
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}, "status": {"addresses": addresses}})
    };
    let mut documents: Vec<String> = nodes.iter().map(|n| format!("{}\n", node(n))).collect();
    for actor in actors.values() {
        documents.extend(service(&actor.name.replace('/', "-"), actor.service, &[actor]));
    }
    join(documents)
}

/// A Service with crossed ports. Port 82 leads to itself, where no server listens.
pub(crate) fn service(name: &str, addresses: [IpAddr; 2], backends: &[&Actor]) -> Vec<String> {
    let ports = || {
        let protocols = ["TCP", "UDP"].into_iter();
        protocols.flat_map(|protocol| {
            [80, 81, 82].map(|port| (format!("{}-{port}", protocol.to_lowercase()), protocol, port))
        })
    };
    let mut service = Service::new(name, &addresses);
    for (port_name, protocol, port) in ports() {
        service = service.port(&port_name, protocol, port, crossed(port));
    }
    let slices = Family::ALL.map(|family| {
        let suffix = if family.is_v6() { "v6" } else { "v4" };
        let mut slice = EndpointSlice::new(&format!("{name}-{suffix}"), name, family);
        for (port_name, protocol, port) in ports() {
            slice = slice.port(&port_name, protocol, crossed(port));
        }
        slice.addresses(backends.iter().map(|actor| actor.address(family))).yaml()
    });
    let [v4, v6] = slices;
    vec![service.yaml(), v4, v6]
}
