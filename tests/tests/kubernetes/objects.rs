//! Objects as the API server has them.

use lbr_tests::topology::Pod;
use serde_json::{Value, json};

/// Address and port of the Service `web`.
pub(crate) const WEB: &str = "10.96.0.10:80";
/// Address and port of the Service `other`.
pub(crate) const OTHER: &str = "10.96.0.11:80";
/// The port where the backends listen.
pub(crate) const PORT: u16 = 8080;

pub(crate) fn namespace(name: &str, team: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "team": team } } })
}

pub(crate) fn pod(namespace: &str, pod: &Pod) -> Value {
    let ips: Vec<_> = pod.addresses().iter().map(|ip| json!({ "ip": ip.to_string() })).collect();
    let app = if pod.name.starts_with("backend") { "backend" } else { "client" };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": pod.name, "labels": { "app": app } },
        "spec": { "nodeName": pod.node, "containers": [] },
        "status": { "phase": "Running", "podIP": pod.v4.to_string(), "podIPs": ips },
    })
}

pub(crate) fn service(name: &str, at: &str) -> Value {
    let (ip, port) = at.split_once(':').unwrap();
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "namespace": "default", "name": name },
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ports": [{ "name": "http", "protocol": "TCP", "port": port.parse::<u16>().unwrap() }],
        },
    })
}

pub(crate) fn slice(service: &str, pods: &[&Pod]) -> Value {
    let endpoints: Vec<_> = pods.iter().map(|pod| json!({ "addresses": [pod.v4.to_string()] })).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default", "name": format!("{service}-1"),
            "labels": { "kubernetes.io/service-name": service },
        },
        "addressType": "IPv4", "ports": [{ "name": "http", "protocol": "TCP", "port": PORT }],
        "endpoints": endpoints,
    })
}

/// Only pods in namespaces of team `shop` reach the backends.
pub(crate) fn policy() -> Value {
    let shop = json!({ "namespaceSelector": { "matchLabels": { "team": "shop" } } });
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "namespace": "default", "name": "only-shop" },
        "spec": {
            "podSelector": { "matchLabels": { "app": "backend" } }, "policyTypes": ["Ingress"],
            "ingress": [{ "from": [shop] }],
        },
    })
}
