use lbr_common::service::{backend_flags, set};

use super::*;
use crate::model::Node;
use crate::node::links::LocalLinks;

fn away(addr: &str) -> Endpoint {
    Endpoint { node: "there".into(), ..endpoint(addr) }
}

fn in_zone(zone: &str, state: ClusterState) -> ClusterState {
    let labels = [("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into();
    let node = Node { name: "here".to_owned(), labels, ..Node::default() };
    ClusterState { nodes: [(ObjectName::cluster("here"), node)].into(), ..state }
}

/// Targets of a set, in the order of its slots.
fn targets(desired: &Desired, set: u32) -> Vec<String> {
    let slots = desired.slots.iter().filter(|(key, _)| key.set == set);
    let backends = slots.map(|(_, slot)| desired.backends[&slot.backend]);
    backends.map(|b| b.addr.to_string()).collect()
}

#[test]
fn hints_decide_if_every_ready_endpoint_has_them() {
    let hints = |addr: &str, nodes: &[&str], zones: &[&str]| {
        let all = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
        Endpoint { for_nodes: all(nodes), for_zones: all(zones), ..endpoint(addr) }
    };
    let (a, b, c) = ("10.244.0.1", "10.244.0.2", "10.244.0.3");
    for (what, endpoints, expected) in [
        ("same node", vec![hints(a, &["here"], &["z1"]), hints(b, &["there"], &["z1"])], vec![a]),
        (
            "no node hint on one: zones",
            vec![hints(a, &["here"], &["z1"]), hints(b, &[], &["z1"])],
            vec![a, b],
        ),
        (
            "no node hint names this node: zones",
            vec![hints(a, &["x"], &["z1"]), hints(b, &["y"], &["z2"])],
            vec![a],
        ),
        ("same zone", vec![hints(a, &[], &["z1", "z3"]), hints(b, &[], &["z2"])], vec![a]),
        ("no zone hint on one: all", vec![hints(a, &[], &["z1"]), hints(b, &[], &[])], vec![a, b]),
        ("no hint names this zone: all", vec![hints(a, &[], &["z2"]), hints(b, &[], &["z3"])], vec![a, b]),
        (
            "an endpoint that is not ready has no say",
            vec![
                hints(a, &[], &["z1"]),
                hints(b, &[], &["z2"]),
                Endpoint { ready: false, serving: false, ..endpoint(c) },
            ],
            vec![a],
        ),
        (
            "what terminates is not filtered",
            vec![Endpoint { for_zones: vec!["z2".into()], ..leaving(a) }],
            vec![a],
        ),
    ] {
        let d = compiled(&in_zone("z1", state(vec![web()], vec![slice("web", 8080, endpoints)])));
        assert_eq!(targets(&d, set::CLUSTER), expected, "{what}");
    }
    // A node without a known zone.
    let endpoints = vec![hints(a, &[], &["z1"]), hints(b, &[], &["z2"])];
    let d = compiled(&state(vec![web()], vec![slice("web", 8080, endpoints)]));
    assert_eq!(targets(&d, set::CLUSTER), [a, b]);
}

#[test]
fn only_sets_that_a_frontend_uses_are_written() {
    let endpoints = || vec![endpoint("10.244.0.2"), away("10.244.1.2")];
    let node_port = |external_policy, internal_policy| {
        let ports = vec![ServicePort { node_port: Some(30080), ..web().ports[0].clone() }];
        Service { external_policy, internal_policy, ports, ..web() }
    };
    let (cluster, local) = (TrafficPolicy::Cluster, TrafficPolicy::Local);
    let node = NodeView {
        name: "here".to_owned(),
        links: LocalLinks {
            uplinks: [(
                2,
                crate::node::links::LocalUplink { v4: Some([192, 0, 2, 1].into()), ..Default::default() },
            )]
            .into(),
            ..LocalLinks::default()
        },
        ..NodeView::default()
    };
    for (service, in_cluster, in_local, sets) in [
        (web(), 2, 0, vec![1, 1]),
        (Service { internal_policy: local, ..web() }, 0, 1, vec![2]),
        (node_port(cluster, cluster), 2, 0, vec![1, 1]),
        (node_port(cluster, local), 2, 1, vec![3, 1]),
        (node_port(local, cluster), 2, 1, vec![3, 1]),
        // The Service has no external address.
        (Service { external_policy: local, ..web() }, 2, 0, vec![1, 1]),
    ] {
        let state = state(vec![service.clone()], vec![slice("web", 8080, endpoints())]);
        let d = compile(&state, &node, &mut Ids::new());
        let counts = (targets(&d, set::CLUSTER).len(), targets(&d, set::LOCAL).len());
        assert_eq!(counts, (in_cluster, in_local), "{service:?}");
        assert_eq!(d.backends.values().map(|b| b.sets).collect::<Vec<_>>(), sets, "{service:?}");
    }
}

#[test]
fn sets_fall_back_to_terminating_endpoints_each_on_its_own() {
    let both = Service { internal_policy: TrafficPolicy::Local, ..web() };
    let ports = vec![ServicePort { node_port: Some(30080), ..web().ports[0].clone() }];
    let service = Service { ports, ..both };
    let endpoints = vec![
        leaving("10.244.0.2"),
        away("10.244.1.2"),
        Endpoint { node: "there".into(), ..leaving("10.244.1.3") },
    ];
    let d = compiled(&state(vec![service], vec![slice("web", 8080, endpoints)]));
    assert_eq!(targets(&d, set::CLUSTER), ["10.244.1.2"]);
    assert_eq!(targets(&d, set::LOCAL), ["10.244.0.2"]);
    assert_eq!(backends(&d), ["10.244.0.2:8080 2", "10.244.1.2:8080 1", "10.244.1.3:8080 0"]);
}

#[test]
fn endpoints_of_this_node_are_marked() {
    let unknown = |addr| Endpoint { node: "".into(), ..endpoint(addr) };
    let endpoints = vec![
        endpoint("10.244.0.2"),
        unknown("10.244.0.3"),
        unknown("192.0.2.1"),
        unknown("10.244.1.4"),
        away("10.244.1.5"),
    ];
    let links = LocalLinks {
        links: [(3, LocalLink { name: String::new(), has_peer: true, master: None })].into(),
        routes: [("10.244.0.3/32".parse().unwrap(), 3)].into(),
        node_addresses: ["192.0.2.1".parse().unwrap()].into(),
        ..LocalLinks::default()
    };
    let node = NodeView { name: "here".to_owned(), links, ..NodeView::default() };
    let d = compile(&state(vec![web()], vec![slice("web", 8080, endpoints)]), &node, &mut Ids::new());
    let here = d.backends.values().filter(|b| b.flags & backend_flags::HERE != 0);
    let here: Vec<_> = here.map(|b| b.addr.to_string()).collect();
    assert_eq!(here, ["10.244.0.2", "10.244.0.3", "192.0.2.1"]);
}
