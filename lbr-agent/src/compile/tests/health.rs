use std::collections::BTreeMap;

use lbr_common::text::extent;

use super::external::{ips, node, node_port, on, rejected};
use super::*;
use crate::desired::HealthPort;

#[test]
fn health_check_ports_count_ready_endpoints_of_this_node() {
    let balancer = |of: &str| Service {
        name: name(of),
        health_check_port: Some(32000),
        external_policy: TrafficPolicy::Local,
        load_balancer_ips: ips(&["203.0.113.1"]),
        ports: vec![
            web().ports[0].clone(),
            ServicePort { name: "admin".to_owned(), ..web().ports[0].clone() },
        ],
        cluster_ips: ips(&["10.96.0.10", "fd00::10"]),
        ..Service::default()
    };
    let away = Endpoint { node: "there".into(), ..endpoint("10.244.1.2") };
    let endpoints = vec![
        endpoint("10.244.0.2"),
        endpoint("fd01::2"),
        endpoint("10.244.0.3"),
        leaving("10.244.0.4"),
        away,
    ];
    let mut slice = slice("web", 8080, endpoints);
    slice.ports.push(EndpointPort { name: "admin".to_owned(), ..slice.ports[0].clone() });
    let with = |services| compile(&state(services, vec![slice.clone()]), &node(), &mut Ids::new());
    let expected = HealthPort { service: name("web"), local_ready: 2 };
    assert_eq!(with(vec![balancer("web")]).health_ports, [(32000, expected.clone())].into());
    let d = with(vec![balancer("web"), balancer("zoo")]);
    assert_eq!(d.health_ports, [(32000, expected)].into());
    assert!(
        rejected(&d).iter().any(|said| said.contains("zoo spec.healthCheckNodePort: 32000 already belongs"))
    );
}

#[test]
fn a_health_check_port_that_cannot_be_had_is_reported() {
    let balancer = Service {
        name: name("balanced"),
        cluster_ips: ips(&["10.96.0.11"]),
        health_check_port: Some(32000),
        external_policy: TrafficPolicy::Local,
        load_balancer_ips: ips(&["203.0.113.1"]),
        ..web()
    };
    let with = |node: &NodeView, other: Service| on(node, vec![balancer.clone(), other]);
    // Of another process.
    let busy = NodeView { refused_ports: [(32000, "in use".to_owned())].into(), ..node() };
    let d = with(&busy, web());
    assert!(d.health_ports.contains_key(&32000), "still wanted");
    assert_eq!(d.rejected[&0].extent, extent::LIMITED);
    assert!(
        rejected(&d)[0].contains("balanced spec.healthCheckNodePort: in use: load balancers"),
        "{:?}",
        rejected(&d)
    );
    // Of a NodePort, which gets the packets.
    let d = with(&node(), node_port(32000));
    assert_eq!(d.health_ports, BTreeMap::new());
    let said = rejected(&d);
    assert!(
        said[0].contains("spec.healthCheckNodePort: 32000 is also the NodePort of Service default/web"),
        "{said:?}"
    );
    assert_eq!(rejected(&with(&node(), node_port(32001))), [""; 0]);
}
