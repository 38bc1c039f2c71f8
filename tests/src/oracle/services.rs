//! Random Services of every kind with their endpoints, for a cluster that has pods already.

use std::net::IpAddr;

use ipnet::IpNet;
use lbr_agent::node::links::LocalUplink;
use lbr_common::tuple::proto;
use serde_json::{Value, json};

use super::generate::{NODE, node_ips};
use super::random::Random;
use super::verdict::{list, pod_ips, text};
use super::{Case, tuples};

/// The blocks of ClusterIPs.
pub(super) const CIDRS: [&str; 2] = ["10.96.0.0/24", "fd00:96::/120"];
/// The block in which `externalIPs` are honoured.
const EXTERNAL: &str = "198.51.100.0/24";
/// Another block: external addresses in it are rejected.
const FOREIGN: &str = "100.64.0.1";
/// Endpoints on this node that are no pods.
const UNKNOWN: [&str; 2] = ["10.0.1.201", "fd00:0:0:1::c9"];
const SERVICES: usize = 6;
const PORTS: [u16; 4] = [53, 80, 81, 443];
const TARGETS: [u16; 5] = [53, 80, 81, 8080, 65535];

/// Adds Services, EndpointSlices and a ServiceCIDR, and what the node has for them: an uplink with this index, routes to
/// pods, settings.
pub(super) fn add(random: &mut Random, case: &mut Case, uplink: u32) {
    if random.chance(80) {
        case.objects.push(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": CIDRS},
        }));
    }
    for number in 1..=1 + random.below(SERVICES) {
        let service = service(random, number);
        let slices = slices(random, case, &service, number);
        case.objects.push(service);
        case.objects.extend(slices);
    }
    let [v4, v6] = node_ips(1).map(|ip| ip.parse::<IpAddr>().ok());
    let mut link = LocalUplink { name: "uplink".to_owned(), ..LocalUplink::default() };
    if let (Some(IpAddr::V4(v4)), Some(IpAddr::V6(v6))) = (v4, v6) {
        (link.v4, link.v6) = (Some(v4), Some(v6));
    }
    case.node.links.uplinks.insert(uplink, link);
    for (ip, index) in &case.node.links.addresses {
        if random.chance(60) {
            case.node.links.routes.insert((*ip).into(), *index);
        }
    }
    // An address that the API does not know, routed to a pod.
    let links: Vec<u32> = case.node.links.links.keys().copied().collect();
    if !links.is_empty() && random.chance(70) {
        for ip in UNKNOWN {
            case.node.links.routes.extend(ip.parse::<IpAddr>().map(|ip| (ip.into(), random.pick(&links))));
        }
    }
    case.node.settings.external_ips.extend(EXTERNAL.parse::<IpNet>());
}

fn service(random: &mut Random, number: usize) -> Value {
    let mut ips = vec![format!("10.96.0.{number}"), format!("fd00:96::{number}")];
    match random.below(10) {
        0 | 1 => ips.truncate(1),
        2 => drop(ips.remove(0)),
        3 => ips.reverse(),
        _ => {}
    }
    let kind =
        random.pick(&["ClusterIP", "ClusterIP", "NodePort", "NodePort", "LoadBalancer", "LoadBalancer"]);
    let mut spec = json!({"type": kind, "clusterIP": ips[0], "clusterIPs": ips});
    let mut ports = Vec::new();
    for index in 0..=random.below(2) {
        // The same port of two protocols is frequent: DNS.
        let proto = random.pick(&["TCP", "TCP", "UDP", "SCTP"]);
        let mut port = json!({
            "name": format!("p{index}"), "port": random.pick(&PORTS) + index as u16 * 1000, "protocol": proto,
        });
        if kind != "ClusterIP" && random.chance(85) {
            port["nodePort"] = (30_000 + number * 10 + index).into();
        }
        ports.push(port);
    }
    spec["ports"] = ports.into();
    if random.chance(25) {
        spec["internalTrafficPolicy"] = "Local".into();
    }
    if kind != "ClusterIP" && random.chance(35) {
        spec["externalTrafficPolicy"] = "Local".into();
    }
    if random.chance(20) {
        spec["sessionAffinity"] = "ClientIP".into();
    }
    if random.chance(30) {
        let address = random.pick(&["198.51.100.1", "198.51.100.2", FOREIGN, "2001:db8:e::1"]);
        spec["externalIPs"] = json!([address]);
    }
    let mut metadata = json!({"name": format!("svc-{number}"), "namespace": "blue"});
    let mut annotations = json!({});
    if random.chance(20) {
        annotations["lbr.dev/algorithm"] = "maglev".into();
    }
    if random.chance(15) {
        annotations["lbr.dev/forwarding"] = random.pick(&["dsr", "dsr-ipip"]).into();
    }
    if annotations != json!({}) {
        metadata["annotations"] = annotations;
    }
    match random.below(20) {
        0 => spec = json!({"clusterIP": "None", "ports": spec["ports"]}),
        1 => spec = json!({"type": "ExternalName", "externalName": "example.org"}),
        2 => metadata["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"}),
        _ => {}
    }
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec});
    if spec["type"] == "LoadBalancer" {
        balance(random, &mut service);
    }
    service
}

/// Addresses of a load balancer: its own, shared with another Service, or nodes' (k3s).
fn balance(random: &mut Random, service: &mut Value) {
    let mut ingress = Vec::new();
    for _ in 0..1 + random.below(3) {
        let ip = random.pick(&[
            "203.0.113.1",
            "203.0.113.2",
            "2001:db8:cb::1",
            "2001:db8:cb::2",
            node_ips(1)[0],
            node_ips(2)[0],
            node_ips(3)[1],
        ]);
        let mut entry = json!({"ip": ip});
        if random.chance(15) {
            entry["ipMode"] = random.pick(&["Proxy", "VIP"]).into();
        }
        ingress.push(entry);
    }
    service["status"] = json!({"loadBalancer": {"ingress": ingress}});
    if random.chance(60) {
        let ranges = [
            "8.8.8.0/24",
            "203.0.113.0/24",
            "10.0.1.0/28",
            "10.0.0.0/14",
            "192.168.0.0/30",
            "192.168.0.2/32",
            "fd00::/16",
            "2001:db8::/32",
            "0.0.0.0/0",
        ];
        let count = 1 + random.below(2);
        service["spec"]["loadBalancerSourceRanges"] = (0..count).map(|_| random.pick(&ranges)).collect();
    }
}

fn slices(random: &mut Random, case: &Case, service: &Value, number: usize) -> Vec<Value> {
    let mut slices = Vec::new();
    for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
        if random.chance(15) {
            continue;
        }
        let mut endpoints = Vec::new();
        for _ in 0..random.below(4) {
            endpoints.extend(endpoint(random, case, is_v4));
        }
        let target = random.pick(&TARGETS);
        let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let ports = ports.iter().zip(0u16..).map(|(port, index)| {
            json!({
                "name": port["name"], "protocol": port["protocol"], "port": target.saturating_sub(index),
            })
        });
        let ports: Vec<Value> = ports.collect();
        slices.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
            "metadata": {
                "name": format!("svc-{number}-{}", family.to_lowercase()), "namespace": "blue",
                "labels": {"kubernetes.io/service-name": format!("svc-{number}")},
            },
            "endpoints": endpoints, "ports": ports,
        }));
    }
    slices
}

/// Of a pod, one of the host network too; seldom of a host elsewhere, or of a pod that lbr does not know.
fn endpoint(random: &mut Random, case: &Case, is_v4: bool) -> Option<Value> {
    let pods: Vec<&Value> = case.of_kind("Pod").collect();
    let (ip, node) = if pods.is_empty() || random.chance(20) {
        let outside = if is_v4 { "172.16.0.9" } else { "2001:db8:f::9" };
        let unknown = UNKNOWN[usize::from(!is_v4)];
        let (ip, node) =
            random.pick(&[(outside, ""), ("10.0.1.200", NODE), (unknown, NODE), (unknown, NODE)]);
        (ip.parse().ok()?, node.to_owned())
    } else {
        let pod = random.pick(&pods);
        let ips = pod_ips(pod).into_iter().filter(|ip| ip.is_ipv4() == is_v4).collect::<Vec<_>>();
        (*ips.first()?, text(&pod["spec"]["nodeName"]).to_owned())
    };
    if ip.is_ipv4() != is_v4 {
        return None;
    }
    let mut endpoint = json!({"addresses": [ip.to_string()]});
    if !node.is_empty() {
        endpoint["nodeName"] = node.into();
    }
    match random.below(10) {
        0 => endpoint["conditions"] = json!({"ready": false}),
        1 => endpoint["conditions"] = json!({"ready": false, "serving": true, "terminating": true}),
        2 => {}
        _ => endpoint["conditions"] = json!({"ready": true}),
    }
    Some(endpoint)
}

/// Addresses and ports that Services ask for, and some beside them.
pub(super) struct Places {
    pub(super) ips: Vec<IpAddr>,
    pub(super) ports: Vec<u16>,
    /// An address of a Service, one of its ports, and that one's protocol.
    pub(super) frontends: Vec<(IpAddr, u16, u8)>,
}

pub(super) fn places(case: &Case) -> Places {
    let mut frontends = Vec::new();
    let own: Vec<&str> = node_ips(1).into_iter().chain(["127.0.0.1", "::1"]).collect();
    let mut ips = vec!["10.96.0.99", "fd00:96::99", FOREIGN, "198.51.100.1", "2001:db8:e::1"];
    let mut ports: Vec<u16> = TARGETS.to_vec();
    for service in case.of_kind("Service") {
        let (spec, status) = (&service["spec"], &service["status"]["loadBalancer"]);
        let mut of_it: Vec<&str> = Vec::new();
        for addresses in [&spec["clusterIPs"], &spec["externalIPs"]] {
            of_it.extend(list(addresses).iter().map(text));
        }
        of_it.extend(list(&status["ingress"]).iter().map(|entry| text(&entry["ip"])));
        for port in list(&spec["ports"]) {
            let proto = match text(&port["protocol"]) {
                "UDP" => proto::UDP,
                "SCTP" => proto::SCTP,
                _ => proto::TCP,
            };
            for (number, at) in [(&port["port"], &of_it), (&port["nodePort"], &own)] {
                let Some(number) = tuples::number(number) else { continue };
                ports.push(number);
                let at = at.iter().filter_map(|ip| ip.parse().ok());
                frontends.extend(at.map(|ip: IpAddr| (ip, number, proto)));
            }
        }
        ips.extend(of_it);
    }
    Places { ips: ips.into_iter().filter_map(|ip| ip.parse().ok()).collect(), ports, frontends }
}
