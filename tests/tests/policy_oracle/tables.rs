//! A small cluster for the rows of the specification's tables.
//!
//! | name | namespace (`team`) | `app` | address | ports |
//! |---|---|---|---|---|
//! | a | x (x) | a | 10.0.1.1, fd00::1 | web 80, dns 53/UDP |
//! | b | x (x) | b | 10.0.1.2, fd00::2 | web 81, init container: gone 7; sidecar: mesh 15000 |
//! | c | y (y) | a | 10.0.1.3, fd00::3 | web 8080, dns 5353/UDP |
//! | d | y (y) | - | 10.0.1.4, fd00::4 | |
//!
//! All are on this node, 192.168.0.1; a host network pod of namespace x has the address of node 192.168.0.2.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbr_agent::node::NodeView;
use lbr_common::tuple::{Tuple, proto};
use lbr_tests::oracle::{Case, Expected};
use serde_json::{Value, json};

/// Checks a row: policies of namespace x, given as their `spec`, and connections with whether they pass, each as `TCP
/// a b 80` (protocol, source, destination, port; an end is a pod's name or an address).
pub(crate) fn row(name: &str, specs: &[Value], connections: &[(&str, bool)]) {
    let case = cluster(specs);
    for (connection, passes) in connections {
        let expected = expected(&case, connection);
        assert_eq!(expected.passes(), *passes, "{name}: {connection}: {expected:?}");
    }
}

/// The cluster with these policies in namespace x.
pub(crate) fn cluster(specs: &[Value]) -> Case {
    let port = |name: &str, number: u16, protocol: &str| json!({"name": name, "containerPort": number, "protocol": protocol});
    let pod = |namespace: &str, name: &str, number: u8, labels: Value, ports: Vec<Value>| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": ports}]},
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": format!("10.0.1.{number}")}, {"ip": format!("fd00::{number}")}],
            },
        })
    };
    let mut b = pod("x", "b", 2, json!({"app": "b"}), vec![port("web", 81, "TCP")]);
    b["spec"]["initContainers"] = json!([
        {"name": "init", "ports": [port("gone", 7, "TCP")]},
        {"name": "sidecar", "restartPolicy": "Always", "ports": [port("mesh", 15000, "TCP")]},
    ]);
    let mut host = pod("x", "host", 9, json!({"app": "a"}), vec![]);
    host["spec"]["hostNetwork"] = true.into();
    host["status"]["podIPs"] = json!([{"ip": "192.168.0.2"}]);
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"team": "x"}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "y", "labels": {"team": "y"}}}),
        pod("x", "a", 1, json!({"app": "a"}), vec![port("web", 80, "TCP"), port("dns", 53, "UDP")]),
        b,
        pod("y", "c", 3, json!({"app": "a"}), vec![port("web", 8080, "TCP"), port("dns", 5353, "UDP")]),
        pod("y", "d", 4, json!({}), vec![]),
        host,
    ];
    for (i, spec) in specs.iter().enumerate() {
        objects.push(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("p{i}"), "namespace": "x"}, "spec": spec,
        }));
    }
    let mut node = NodeView { name: "node".to_owned(), ..NodeView::default() };
    node.links.node_addresses = BTreeSet::from([IpAddr::from([192, 168, 0, 1])]);
    Case { objects, node }
}

/// The oracle's answer for a connection.
pub(crate) fn expected(case: &Case, connection: &str) -> Expected {
    let [protocol, src, dst, port] = connection.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{connection:?}");
    };
    let ip = |name: &str| -> IpAddr {
        match name {
            "a" => IpAddr::from([10, 0, 1, 1]),
            "b" => IpAddr::from([10, 0, 1, 2]),
            "c" => IpAddr::from([10, 0, 1, 3]),
            "d" => IpAddr::from([10, 0, 1, 4]),
            ip => ip.parse().unwrap(),
        }
    };
    let proto = match protocol {
        "TCP" => proto::TCP,
        "UDP" => proto::UDP,
        "SCTP" => proto::SCTP,
        "ICMP" => proto::ICMP,
        number => number.parse().unwrap(),
    };
    let (src, dst) = (ip(src).into(), ip(dst).into());
    case.expected(&Tuple { src, dst, dst_port: port.parse().unwrap(), proto, ..Tuple::default() })
}
