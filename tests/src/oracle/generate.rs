//! Random nodes, namespaces and pods. Few names, labels, addresses and numbers, so that they often collide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lbr_agent::node::NodeView;
use lbr_agent::node::links::{LocalLink, LocalLinks};
use serde_json::{Map, Value, json};

use super::random::Random;
use super::verdict::{pod_ips, text};
use super::{Case, policies};

/// This node.
pub(super) const NODE: &str = "node-1";
pub(super) const NAMESPACES: [&str; 4] = ["blue", "green", "red", "grey"];
pub(super) const NAMESPACE_KEYS: [&str; 2] = ["team", "env"];
pub(super) const POD_KEYS: [&str; 2] = ["app", "tier"];
pub(super) const VALUES: [&str; 4] = ["a", "b", "c", ""];
pub(super) const PORT_NAMES: [&str; 3] = ["web", "dns", "admin"];
pub(super) const PORTS: [u16; 8] = [1, 53, 80, 81, 82, 443, 8080, 65535];

const OTHER_NODES: [&str; 2] = ["node-2", "node-3"];
const PODS: usize = 10;
const POLICIES: usize = 6;
/// Addresses of pods on each node: few, so that they are reused.
const ADDRESSES: usize = 12;
/// Interface index of the first pod link.
const FIRST_LINK: u32 = 10;

/// A whole cluster; with policies that the API refuses, if requested.
pub(super) fn case(random: &mut Random, with_refused: bool) -> Case {
    let mut objects = vec![node(NODE, 1)];
    objects.extend(OTHER_NODES.iter().zip(2..).map(|(name, number)| node(name, number)));
    let namespaces = 1 + random.below(NAMESPACES.len());
    for name in &NAMESPACES[..namespaces] {
        objects.push(namespace(random, name));
    }
    let mut case = Case { objects, node: NodeView::default() };
    for number in 0..=random.below(PODS) {
        let pod = pod(random, &NAMESPACES[..namespaces], number);
        case.objects.push(pod);
        if !is_valid(&case) {
            case.objects.pop();
        }
    }
    for number in 0..random.below(POLICIES + 1) {
        let make = if with_refused { policies::policy } else { policies::valid_policy };
        let policy = make(random, &case, number);
        case.objects.push(policy);
    }
    case.node = node_view(random, &case);
    case
}

/// Whether the specification has an answer for this cluster: an address has one owner at most, where a terminating
/// pod gives way to one that is not; and the namespaces of pods exist.
pub(super) fn is_valid(case: &Case) -> bool {
    let namespaces: BTreeSet<_> = case.of_kind("Namespace").map(|n| text(&n["metadata"]["name"])).collect();
    let mut owners: BTreeMap<IpAddr, (usize, usize)> = BTreeMap::new();
    for pod in case.of_kind("Pod") {
        if !namespaces.contains(text(&pod["metadata"]["namespace"])) {
            return false;
        }
        if pod["spec"]["hostNetwork"] == true
            || matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed")
        {
            continue;
        }
        for ip in pod_ips(pod) {
            let (stay, leave) = owners.entry(ip).or_default();
            *if pod["metadata"]["deletionTimestamp"].is_null() { stay } else { leave } += 1;
        }
    }
    owners.values().all(|&(stay, leave)| stay == 1 || (stay == 0 && leave == 1))
}

/// The links and addresses of this node's pods. A few are unknown, and one belongs to no pod.
pub(super) fn node_view(random: &mut Random, case: &Case) -> NodeView {
    let mut links = LocalLinks::default();
    let local = case.of_kind("Pod").filter(|pod| pod["spec"]["nodeName"] == NODE);
    let local = local.filter(|pod| pod["spec"]["hostNetwork"] != true);
    for (pod, index) in local.zip(FIRST_LINK..) {
        let (has_peer, has_master) = (random.chance(90), random.chance(20));
        links.links.insert(
            index,
            LocalLink { name: format!("veth{index}"), master: has_master.then_some(999), has_peer },
        );
        for ip in pod_ips(pod).into_iter().filter(|_| random.chance(90)) {
            links.addresses.insert(ip, index);
        }
    }
    if random.chance(30) {
        let link = LocalLink { name: "veth9".to_owned(), master: None, has_peer: true };
        links.links.insert(FIRST_LINK - 1, link);
        links.addresses.insert(stray(), FIRST_LINK - 1);
    }
    links.node_addresses = node_ips(1).into_iter().chain(["10.0.1.254", "fe80::1"]).filter_map(ip).collect();
    NodeView { name: NODE.to_owned(), links, ..NodeView::default() }
}

/// An address behind a pod link without a known pod.
pub(super) fn stray() -> IpAddr {
    IpAddr::from([10, 0, 1, 200])
}

/// The addresses of a node.
pub(super) fn node_ips(number: usize) -> [&'static str; 2] {
    match number {
        1 => ["192.168.0.1", "fd00:c0::1"],
        2 => ["192.168.0.2", "fd00:c0::2"],
        _ => ["192.168.0.3", "fd00:c0::3"],
    }
}

fn ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn node(name: &str, number: usize) -> Value {
    let addresses = node_ips(number).map(|ip| json!({"type": "InternalIP", "address": ip}));
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": addresses},
    })
}

pub(super) fn namespace(random: &mut Random, name: &str) -> Value {
    let mut metadata = json!({"name": name});
    let mut labels = labels(random, &NAMESPACE_KEYS);
    if random.chance(50) {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
    put_labels(random, &mut metadata, labels);
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

pub(super) fn labels(random: &mut Random, keys: &[&str]) -> Map<String, Value> {
    let mut labels = Map::new();
    for key in keys {
        if random.chance(60) {
            labels.insert((*key).to_owned(), random.pick(&VALUES).into());
        }
    }
    labels
}

pub(super) fn put_labels(random: &mut Random, metadata: &mut Value, labels: Map<String, Value>) {
    if !labels.is_empty() || random.chance(50) {
        metadata["labels"] = labels.into();
    }
}

pub(super) fn pod(random: &mut Random, namespaces: &[&str], number: usize) -> Value {
    let name = format!("pod-{number}");
    let mut metadata =
        json!({"name": name, "namespace": random.pick(namespaces), "uid": format!("uid-{number}")});
    let labels = labels(random, &POD_KEYS);
    put_labels(random, &mut metadata, labels);
    if random.chance(10) {
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    let on = if random.chance(65) { 1 } else { 2 + random.below(OTHER_NODES.len()) };
    let mut spec = json!({
        "nodeName": if on == 1 { NODE } else { OTHER_NODES[on - 2] },
        "containers": (0..=random.below(2)).map(|i| container(random, &format!("c{i}"))).collect::<Vec<_>>(),
    });
    if random.chance(25) {
        let mut sidecar = container(random, "sidecar");
        if random.chance(70) {
            sidecar["restartPolicy"] = "Always".into();
        }
        spec["initContainers"] = json!([sidecar]);
    }
    let host_network = random.chance(10);
    if host_network || random.chance(20) {
        spec["hostNetwork"] = host_network.into();
    }
    let mut status = if host_network {
        let [v4, v6] = node_ips(on);
        json!({"podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]})
    } else {
        addresses(random, on)
    };
    if random.chance(90) {
        let phases =
            ["Running", "Running", "Running", "Running", "Pending", "Succeeded", "Failed", "Unknown"];
        status["phase"] = random.pick(&phases).into();
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
}

/// `status` of a pod with addresses of one family, of both, or none yet.
fn addresses(random: &mut Random, node: usize) -> Value {
    let host = 1 + random.below(ADDRESSES);
    let v4 = format!("10.0.{node}.{host}");
    let v6 =
        format!("fd00:0:0:{node}::{:x}", if random.chance(80) { host } else { 1 + random.below(ADDRESSES) });
    match random.below(20) {
        0 => json!({}),
        1 => json!({"podIP": v4}),
        2 => json!({"podIP": v6}),
        3..6 => json!({"podIP": v4, "podIPs": [{"ip": v4}]}),
        6 => json!({"podIP": v6, "podIPs": [{"ip": v6}]}),
        7..10 => json!({"podIPs": [{"ip": v6}, {"ip": v4}]}),
        _ => json!({"podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]}),
    }
}

fn container(random: &mut Random, name: &str) -> Value {
    let mut ports = Vec::new();
    for _ in 0..random.below(4) {
        let mut port = json!({"containerPort": random.pick(&PORTS)});
        if random.chance(80) {
            port["name"] = random.pick(&PORT_NAMES).into();
        }
        if random.chance(50) {
            port["protocol"] = random.pick(&["TCP", "UDP", "SCTP"]).into();
        }
        ports.push(port);
    }
    json!({"name": name, "ports": ports})
}
