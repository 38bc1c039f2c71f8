use std::net::IpAddr;

use super::*;
use crate::model::{Endpoint, Node, ObjectRef, Service};

fn observer() -> Observer {
    Observer::new(Origin::ApiServer(Box::new(|| Duration::from_secs(7)))).unwrap()
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("ns", name.to_owned())
}

fn slice(addr: &str, triggered: Option<SystemTime>) -> Change {
    let addr: IpAddr = addr.parse().unwrap();
    let (node, zone) = ("".into(), "".into());
    let (for_nodes, for_zones) = (Vec::new(), Vec::new());
    let (ready, serving, terminating) = (true, true, false);
    let endpoint = Endpoint { addr, ready, serving, terminating, node, zone, for_nodes, for_zones };
    let slice = EndpointSlice {
        name: name("web-1"),
        triggered,
        endpoints: vec![endpoint],
        ..EndpointSlice::default()
    };
    Change::Apply(Object::EndpointSlice(slice))
}

fn service() -> Change {
    Change::Apply(Object::Service(Service { name: name("web"), ..Service::default() }))
}

fn later(now: Moment, seconds: u64) -> Moment {
    let passed = Duration::from_secs(seconds);
    Moment { clock: now.clock + passed, wall: now.wall + passed }
}

/// Ends a round with this many pending entries.
fn wrote(observer: &Observer, at: Moment, pending: usize, state: &ClusterState) {
    let outcome = Outcome { pending, ..Outcome::default() };
    let entries = vec![("frontends", 3)];
    let compiled = Duration::from_millis(1);
    let round = Round {
        without_room: 0,
        did: Default::default(),
        rejected: &[],
        began: at.clock,
        compiled,
        is_synced: true,
        outcome: &outcome,
        state,
        node: "here",
        entries,
        health_ports: BTreeMap::new(),
    };
    observer.wrote(round, at);
}

fn with_node(node: Node) -> ClusterState {
    ClusterState { nodes: [(ObjectName::cluster("here"), node)].into(), ..ClusterState::default() }
}

#[test]
fn changes_are_pending_until_all_is_in_force() {
    let (observer, now) = (observer(), Moment::now());
    let removal = Change::Delete(ObjectRef { kind: Kind::EndpointSlice, name: name("web-1") });
    for change in [service(), slice("10.0.0.1", None), removal, Change::Synced(Kind::Pod)] {
        observer.queued(Note::of(&change), now);
    }
    let counts = || {
        let figures = observer.snapshot();
        let (services, endpoints) = (figures.services, figures.endpoints);
        [services.pending, services.total, endpoints.pending, endpoints.total]
    };
    assert_eq!(counts(), [1, 1, 2, 2]);
    wrote(&observer, later(now, 1), 1, &with_node(Node::default()));
    assert_eq!(counts(), [1, 1, 2, 2], "an entry is not written");
    wrote(&observer, later(now, 2), 0, &with_node(Node::default()));
    assert_eq!(counts(), [0, 1, 0, 2]);
    let figures = observer.snapshot();
    assert_eq!((figures.queued, figures.applied), (Some(now.wall), Some(later(now, 2).wall)));
}

#[test]
fn writes_that_fail_make_it_unhealthy_with_and_without_a_change() {
    let (observer, now) = (observer(), Moment::now());
    let state = with_node(Node::default());
    wrote(&observer, now, 0, &state);
    assert!(observer.livez(later(now, 10_000)).is_ok);
    wrote(&observer, later(now, 10), 1, &state);
    wrote(&observer, later(now, 40), 1, &state);
    assert!(observer.livez(later(now, 69)).is_ok);
    assert!(!observer.livez(later(now, 70)).is_ok);
    wrote(&observer, later(now, 80), 0, &state);
    assert!(observer.livez(later(now, 80)).is_ok);
    let figures = observer.snapshot();
    assert_eq!(figures.livez, [(200, 3), (503, 1)].into());
    assert_eq!(figures.healthz, BTreeMap::new());
}

#[test]
fn the_node_is_the_one_of_this_name() {
    let (observer, now) = (observer(), Moment::now());
    wrote(&observer, now, 0, &ClusterState::default());
    assert!(!observer.healthz(now).is_ok, "the API server does not know it");
    wrote(&observer, now, 0, &with_node(Node::default()));
    assert!(observer.healthz(now).is_ok);
    wrote(&observer, now, 0, &with_node(Node { is_to_be_deleted: true, ..Node::default() }));
    assert!(!observer.healthz(now).is_ok);
    assert!(observer.livez(now).is_ok);
    let folder = Observer::new(Origin::Folder).unwrap();
    wrote(&folder, now, 0, &ClusterState::default());
    assert!(folder.healthz(now).is_ok, "a folder need not describe nodes");
}

#[test]
fn programming_is_measured_from_the_change_of_the_cluster() {
    let (observer, now) = (observer(), Moment::now());
    let before_the_start = now.wall - Duration::from_secs(3600);
    let trigger = |seconds| Some(later(now, seconds).wall);
    for change in [
        slice("10.0.0.1", trigger(1)),
        slice("10.0.0.1", trigger(2)),
        slice("fd00::1", trigger(3)),
        slice("10.0.0.1", Some(before_the_start)),
        slice("10.0.0.1", None),
    ] {
        observer.queued(Note::of(&change), later(now, 4));
    }
    let observed = || {
        let families = observer.histograms().families();
        let family = families.iter().find(|f| f.name() == "kubeproxy_network_programming_duration_seconds");
        let metrics = family.unwrap().get_metric().iter();
        let mut observed: Vec<_> = metrics
            .map(|m| {
                let h = m.get_histogram();
                (m.get_label()[0].value().to_owned(), h.get_sample_count(), h.get_sample_sum())
            })
            .collect();
        observed.sort_by(|a, b| a.0.cmp(&b.0));
        observed
    };
    wrote(&observer, later(now, 4), 1, &ClusterState::default());
    assert_eq!(observed(), [("IPv4".to_owned(), 0, 0.0), ("IPv6".to_owned(), 0, 0.0)]);
    wrote(&observer, later(now, 5), 0, &ClusterState::default());
    wrote(&observer, later(now, 9), 0, &ClusterState::default());
    assert_eq!(observed(), [("IPv4".to_owned(), 2, 7.0), ("IPv6".to_owned(), 1, 2.0)]);
}

#[test]
fn only_an_api_server_can_be_silent() {
    assert_eq!(observer().silence(), Some(Duration::from_secs(7)));
    assert_eq!(Observer::new(Origin::Folder).unwrap().silence(), None);
}
