//! Faults on the way must remove nothing.

use std::time::Duration;

use lbr_agent::cluster::Change;
use lbr_agent::model::Kind;
use lbr_tests::apiserver::{End, Fault, NETWORK_POLICY, SERVICE, StreamingLists, Verb, When};
use serde_json::json;

use super::reader::{Reader, populated, service};

fn deletes(changes: &[Change]) -> usize {
    changes.iter().filter(|change| matches!(change, Change::Delete(_))).count()
}

/// Relists that break off remove nothing.
#[test]
fn cut_list_deletes_nothing() {
    for lists in [StreamingLists::Served, StreamingLists::Refused] {
        let server = populated();
        server.streaming_lists(lists);
        let reader = Reader::start(&server);
        reader.follows(&server, "at first");
        server.fault(4, When::kind(&SERVICE), Fault::Cut(1));
        server.compact_all();
        server.end_watches(End::Expired);
        reader.follows(&server, "again");
        reader.look(|seen| assert_eq!(deletes(&seen.changes), 0));
    }
}

#[test]
fn object_deleted_meanwhile_is_deleted_once() {
    let mut server = populated();
    let reader = Reader::start(&server);
    reader.follows(&server, "at first");
    server.stop();
    server.delete(&SERVICE, "default", "s2");
    server.compact_all();
    server.resume().unwrap();
    reader.follows(&server, "again");
    reader.look(|seen| {
        assert_eq!(deletes(&seen.changes), 1);
        // After all objects in the list.
        let last = seen
            .changes
            .iter()
            .rposition(|c| matches!(c, Change::Apply(o) if o.reference().kind == Kind::Service));
        let gone = seen.changes.iter().position(|c| matches!(c, Change::Delete(_)));
        assert!(last < gone);
    });
}

#[test]
fn the_store_is_complete_only_when_every_kind_was_listed() {
    let server = populated();
    server.fault(3, When::kind(&NETWORK_POLICY), Fault::Refuse(503, None));
    let reader = Reader::start(&server);
    reader.wait("Services", |seen| seen.store.state().services.len() == 5);
    reader.look(|seen| {
        let listed = seen.changes.contains(&Change::Synced(Kind::NetworkPolicy));
        assert!(listed || !seen.store.is_synced());
    });
    reader.follows(&server, "all");
}

#[test]
fn unreachable_server_deletes_nothing_and_its_silence_is_measured() {
    let mut server = populated();
    let reader = Reader::start(&server);
    reader.follows(&server, "at first");
    let before = reader.look(super::reader::picture);
    server.stop();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(reader.look(super::reader::picture), before);
    assert!(reader.contact.silent_for() > Duration::from_secs(1));
    server.resume().unwrap();
    super::reader::churn(&server, 1);
    reader.follows(&server, "back");
    reader.wait("silence", |_| reader.contact.silent_for() == Duration::ZERO);
}

#[test]
fn a_server_that_is_down_when_lbr_starts_is_waited_for() {
    let mut server = populated();
    server.stop();
    let reader = Reader::start(&server);
    std::thread::sleep(Duration::from_secs(1));
    reader.look(|seen| assert!(!seen.store.is_synced()));
    server.resume().unwrap();
    reader.follows(&server, "up");
}

/// The API server would refuse it; an older one, or another controller's, may not have.
#[test]
fn invalid_object_affects_no_other() {
    for lists in [StreamingLists::Served, StreamingLists::Refused] {
        let server = populated();
        server.streaming_lists(lists);
        let mut odd = service("odd", "10.0.0.8");
        odd["spec"]["ports"] = json!("none");
        server.put(odd).unwrap();
        let reader = Reader::start(&server);
        reader.wait("the others", |seen| seen.store.state().services.len() == 5 && seen.store.is_synced());
        reader.wait("rejected", |seen| {
            seen.store.state().rejected.iter().any(|r| r.object.to_string() == "Service default/odd")
        });
        // An accepted object keeps its last accepted version.
        let mut bad = service("s2", "10.0.0.1");
        bad["spec"]["ports"] = json!([{"port": "http"}]);
        server.put(bad).unwrap();
        reader.wait("rejected too", |seen| {
            seen.store.state().rejected.iter().any(|r| r.object.to_string() == "Service default/s2")
        });
        reader.look(|seen| assert_eq!(seen.store.state().services.len(), 5));
        server.put(service("s2", "10.0.0.2")).unwrap();
        server.delete(&SERVICE, "default", "odd");
        reader.wait("corrected", |seen| seen.store.state().rejected.is_empty());
        reader.follows(&server, "corrected");
    }
}

#[test]
fn policy_with_an_unknown_field_isolates_and_is_rejected() {
    let server = populated();
    let policy = |spec| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "default", "name": "new"}, "spec": spec,
        })
    };
    server.put(policy(json!({"podSelector": {}, "ingress": [{"onlyOnSundays": true}]}))).unwrap();
    let reader = Reader::start(&server);
    reader.wait("shown", |seen| seen.store.state().rejected.iter().any(|r| r.reason.contains("upgrade lbr")));
    reader.look(|seen| {
        let name = lbr_agent::model::ObjectName::new("default", "new");
        assert_eq!(seen.store.state().policies[&name].ingress, Some(Vec::new()));
    });
}

#[test]
fn a_fault_of_one_kind_does_not_hold_up_the_others() {
    let server = populated();
    server.fault(1_000, When { verb: None, ..When::kind(&NETWORK_POLICY) }, Fault::Refuse(500, None));
    let reader = Reader::start(&server);
    reader.wait("Services", |seen| seen.store.state().services.len() == 5);
    server.put(service("late", "10.0.0.5")).unwrap();
    reader.wait("another Service", |seen| seen.store.state().services.len() == 6);
    assert!(reader.contact.silent_for() > Duration::ZERO);
    assert!(server.count(Verb::Watch, &NETWORK_POLICY) + server.count(Verb::List, &NETWORK_POLICY) < 30);
}
