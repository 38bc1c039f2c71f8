use std::collections::BTreeSet;

use lbr_common::link::link_flags;
use lbr_common::maps;
use lbr_common::service::{Backend, Frontend, FrontendKey, SlotKey, frontend_flags};
use lbr_common::text::RejectedRecord;
use lbr_common::text::extent;
use lbr_common::tuple::proto;

use super::*;
use crate::cluster::{Change, Store};
use crate::model::Extent;
use crate::model::Object;
use crate::model::Rejected;
use crate::model::{
    Endpoint, EndpointPort, EndpointSlice, Kind, ObjectName, Protocol, Service, ServicePort, TrafficPolicy,
};
use crate::node::links::LocalLink;
use crate::node::links::LocalLinks;

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name.to_owned())
}

fn service(of: &str, ips: &[&str], ports: &[(&str, Protocol, u16)]) -> Service {
    Service {
        name: name(of),
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports: ports
            .iter()
            .map(|&(name, protocol, port)| ServicePort {
                name: name.to_owned(),
                protocol,
                port,
                node_port: None,
            })
            .collect(),
        ..Service::default()
    }
}

fn web() -> Service {
    service("web", &["10.96.0.10"], &[("http", Protocol::Tcp, 80)])
}

fn endpoint(addr: &str) -> Endpoint {
    Endpoint {
        addr: addr.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node: "here".into(),
        zone: "".into(),
        for_nodes: vec![],
        for_zones: vec![],
    }
}

fn leaving(addr: &str) -> Endpoint {
    Endpoint { ready: false, terminating: true, ..endpoint(addr) }
}

fn slice(of: &str, port: u16, endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        triggered: None,
        name: name(&format!("{of}-{port}")),
        service: of.to_owned(),
        endpoints,
        ports: vec![EndpointPort { name: "http".to_owned(), protocol: Protocol::Tcp, port }],
    }
}

fn state(services: Vec<Service>, slices: Vec<EndpointSlice>) -> ClusterState {
    let mut store = Store::new();
    let objects =
        services.into_iter().map(Object::Service).chain(slices.into_iter().map(Object::EndpointSlice));
    for object in objects {
        store.apply(Change::Apply(object));
    }
    store.state().clone()
}

fn compiled(state: &ClusterState) -> Desired {
    let node = NodeView { name: "here".to_owned(), ..NodeView::default() };
    compile(state, &node, &mut Ids::new())
}

fn frontend(desired: &Desired, addr: &str, port: u16, proto: u8) -> Option<Frontend> {
    let ip: std::net::IpAddr = addr.parse().unwrap();
    let key = FrontendKey { addr: ip.into(), port, proto, ..FrontendKey::default() };
    desired.frontends.get(&key).copied()
}

fn backends(desired: &Desired) -> Vec<String> {
    desired.backends.values().map(|b: &Backend| format!("{}:{} {}", b.addr, b.port, b.sets)).collect()
}

#[test]
fn a_service_becomes_frontend_slots_and_backends() {
    let d = compiled(&state(
        vec![web()],
        vec![slice("web", 8080, vec![endpoint("10.244.0.3"), endpoint("10.244.0.2")])],
    ));
    let f = frontend(&d, "10.96.0.10", 80, proto::TCP).unwrap();
    assert_eq!((f.service.id, f.count, f.flags), (1, 2, 0));
    let address = frontend(&d, "10.96.0.10", 0, 0).unwrap();
    assert_eq!((address.service.id, address.count, address.flags), (0, 0, frontend_flags::WILDCARD));
    assert_eq!(backends(&d), ["10.244.0.2:8080 1", "10.244.0.3:8080 1"]);
    assert_eq!(
        d.slots.keys().collect::<Vec<_>>(),
        [
            &SlotKey { service: 1.into(), ..SlotKey::default() },
            &SlotKey { service: 1.into(), slot: 1, ..SlotKey::default() }
        ]
    );
    assert_eq!(d.services[&1.into()].port.as_str(), "http");
    assert!(d.rejected.is_empty());
}

#[test]
fn the_same_state_gives_the_same_tables_and_ids_outlive_it() {
    let full = state(vec![web()], vec![slice("web", 8080, vec![endpoint("10.244.0.2")])]);
    let empty = state(vec![web()], vec![]);
    let node = NodeView::default();
    let mut ids = Ids::new();
    let first = compile(&full, &node, &mut ids);
    assert_eq!(compile(&full, &node, &mut ids), first);
    compile(&empty, &node, &mut ids);
    let again = compile(&full, &node, &mut ids);
    assert_eq!(again.frontends, first.frontends, "the service kept its id");
    assert_ne!(again.backends, first.backends, "the backend was gone in between");
}

#[test]
fn terminating_endpoints_drain_unless_nothing_else_is_left() {
    let drain = slice("web", 8080, vec![endpoint("10.244.0.2"), leaving("10.244.0.3")]);
    let d = compiled(&state(vec![web()], vec![drain]));
    assert_eq!(frontend(&d, "10.96.0.10", 80, proto::TCP).unwrap().count, 1);
    assert_eq!(backends(&d), ["10.244.0.2:8080 1", "10.244.0.3:8080 0"]);

    let not_serving = Endpoint { serving: false, ..leaving("10.244.0.4") };
    let last = slice("web", 8080, vec![leaving("10.244.0.3"), not_serving]);
    let d = compiled(&state(vec![web()], vec![last]));
    assert_eq!(backends(&d), ["10.244.0.3:8080 1"]);
    assert!(d.backends.values().all(|b| b.sets != 0));
}

#[test]
fn the_living_one_of_two_endpoints_with_one_address_counts() {
    for terminating_first in [true, false] {
        let mut both = vec![leaving("10.244.0.2"), endpoint("10.244.0.2")];
        if !terminating_first {
            both.reverse();
        }
        let slices = both
            .into_iter()
            .enumerate()
            .map(|(n, e)| EndpointSlice { name: name(&format!("web-{n}")), ..slice("web", 8080, vec![e]) });
        // Without a third endpoint, a terminating one would be used all the same.
        let other = slice("web", 8080, vec![endpoint("10.244.0.3")]);
        let d = compiled(&state(vec![web()], slices.chain([other]).collect()));
        assert_eq!(backends(&d), ["10.244.0.2:8080 1", "10.244.0.3:8080 1"]);
        assert_eq!(frontend(&d, "10.96.0.10", 80, proto::TCP).unwrap().count, 2);
    }
}

#[test]
fn local_policy_drops_only_what_others_could_serve() {
    let local = Service { internal_policy: TrafficPolicy::Local, ..web() };
    let away = Endpoint { node: "there".into(), ..endpoint("10.244.1.2") };
    let with = |endpoints| {
        let d = compiled(&state(vec![local.clone()], vec![slice("web", 8080, endpoints)]));
        let f = frontend(&d, "10.96.0.10", 80, proto::TCP).unwrap();
        (f.count, f.flags, backends(&d))
    };
    let flag = frontend_flags::LOCAL_ONLY;
    let here = vec!["10.244.0.2:8080 2".to_owned()];
    assert_eq!(with(vec![away.clone(), endpoint("10.244.0.2")]), (1, flag, here.clone()));
    assert_eq!(with(vec![away.clone(), leaving("10.244.0.2")]), (1, flag, here));
    assert_eq!(with(vec![away]), (0, flag, vec![]));
    assert_eq!(with(vec![]), (0, 0, vec![]), "no node serves it: refused, not dropped");
}

#[test]
fn one_id_for_all_addresses_of_a_family() {
    let ips = ["10.96.0.10", "fd00::10", "10.96.0.11", "10.96.0.10"];
    let d = compiled(&state(
        vec![service("web", &ips, &[("http", Protocol::Tcp, 80)])],
        vec![slice("web", 8080, vec![endpoint("10.244.0.2"), endpoint("fd01::2"), endpoint("fd01::3")])],
    ));
    let f = |ip: &str| frontend(&d, ip, 80, proto::TCP).unwrap();
    assert_eq!(f("10.96.0.10"), f("10.96.0.11"));
    assert_eq!((f("10.96.0.10").count, f("fd00::10").count), (1, 2));
    assert_ne!(f("10.96.0.10").service, f("fd00::10").service);
    assert_eq!((d.frontends.len(), d.services.len()), (6, 2));
    assert!(d.rejected.is_empty());
}

#[test]
fn the_first_of_two_claims_wins_and_the_other_is_reported() {
    let other = service("zoo", &["10.96.0.10", "10.96.0.11"], &[("http", Protocol::Tcp, 80)]);
    let d = compiled(&state(vec![other, web()], vec![slice("zoo", 9000, vec![endpoint("10.244.0.9")])]));
    assert_eq!(frontend(&d, "10.96.0.10", 80, proto::TCP).unwrap().count, 0);
    assert_eq!(frontend(&d, "10.96.0.11", 80, proto::TCP).unwrap().count, 1);
    let r = &d.rejected[&0];
    assert_eq!((r.object.as_str(), r.field.as_str()), ("Service default/zoo", "spec.ports[0]"));
    assert_eq!(r.reason.as_str(), "10.96.0.10:80/TCP already belongs to Service default/web");
}

#[test]
fn each_protocol_has_its_own_frontend() {
    let ports = [("s", Protocol::Sctp, 53), ("u", Protocol::Udp, 53), ("t", Protocol::Tcp, 53)];
    let d = compiled(&state(vec![service("web", &["10.96.0.10"], &ports)], vec![]));
    let services = [proto::SCTP, proto::UDP, proto::TCP]
        .map(|proto| frontend(&d, "10.96.0.10", 53, proto).map(|f| f.service));
    assert!(services.iter().all(Option::is_some), "{services:?}");
    assert_eq!(BTreeSet::from(services).len(), 3, "{services:?}");
    assert!(d.rejected.is_empty());
}

#[test]
fn links_say_how_they_are_reached() {
    let link = |has_peer, has_master: bool| LocalLink {
        name: String::new(),
        has_peer,
        master: has_master.then_some(9),
    };
    let links = LocalLinks {
        links: [(3, link(true, false)), (4, link(true, true)), (5, link(false, false))].into(),
        routes: [("10.244.0.2/32".parse().unwrap(), 3), ("10.244.0.0/24".parse().unwrap(), 4)].into(),
        ..LocalLinks::default()
    };
    let node = NodeView { links, ..NodeView::default() };
    let endpoints = vec![endpoint("10.244.0.2"), endpoint("10.244.0.3")];
    let d = compile(&state(vec![web()], vec![slice("web", 8080, endpoints)]), &node, &mut Ids::new());
    let flags: Vec<_> = d.links.values().map(|l| l.flags).collect();
    assert_eq!(flags, [link_flags::PEER | link_flags::ROUTED, link_flags::PEER, 0]);
    let links: Vec<_> = d.backends.values().map(|b| b.ifindex).collect();
    assert_eq!(links, [3, 0]);
}

/// Addresses of NodePorts, load balancers and external IPs.
mod external;
mod health;
mod maglev;
/// The sets of endpoints.
mod sets;

/// A Service that gets none of its addresses is rejected; one that lacks a port is limited. Both have their place.
#[test]
fn conflicts_have_an_extent_and_an_origin() {
    let ports = [("http", Protocol::Tcp, 80), ("own", Protocol::Tcp, 81)];
    let services = vec![
        web(),
        service("x-nowhere", &["10.96.0.10"], &ports[..1]),
        service("y-twice", &["10.96.0.10"], &ports),
    ];
    let twice = Kind::Service.named(&ObjectName::new("default", "y-twice"));
    let place = (twice, "y.yaml, document 2".to_owned());
    let state =
        ClusterState { origins: [place].into(), origin: "API server".to_owned(), ..state(services, vec![]) };
    let d = compiled(&state);
    let of = |record: &RejectedRecord| {
        (record.extent, record.object.as_str().to_owned(), record.origin.as_str().to_owned())
    };
    let expected = [
        (extent::REJECTED, "Service default/x-nowhere", "API server"),
        (extent::LIMITED, "Service default/y-twice", "y.yaml, document 2"),
    ];
    let expected = expected.map(|(extent, object, place)| (extent, object.to_owned(), place.to_owned()));
    assert_eq!(d.rejected.values().map(of).collect::<Vec<_>>(), expected);
}

#[test]
fn rejected_objects_are_counted_when_they_do_not_fit() {
    let one = |n: usize| Rejected {
        extent: if n == 7 { Extent::Rejected } else { Extent::Limited },
        object: Kind::Service.named(&ObjectName::new("default", format!("{n:05}"))).into(),
        origin: String::new(),
        field: String::new(),
        reason: String::new(),
    };
    let rejected = (0..maps::REJECTED.max_entries + 10).rev().map(one).collect();
    let d = compiled(&ClusterState { rejected, ..ClusterState::default() });
    assert_eq!(d.rejected.len(), maps::REJECTED.max_entries);
    // Those that are rejected as a whole come first.
    assert_eq!(d.rejected[&0].object.as_str(), "Service default/00007");
    assert_eq!(d.rejected[&1].object.as_str(), "Service default/00000");
    let last = d.rejected.values().last().unwrap();
    assert_eq!(last.reason.as_str(), "11 more objects or fields belong here; this list has no room for them");
    assert_eq!((d.rejected[&0].extent, last.extent), (extent::REJECTED, extent::LIMITED));
}
