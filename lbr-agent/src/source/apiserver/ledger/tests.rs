use serde_json::{Value, json};

use super::*;
use crate::source::decode::{Author, decode};

fn reference(kind: Kind, name: &str) -> ObjectRef {
    ObjectRef { kind, name: ObjectName::new("ns", name.to_owned()) }
}

fn service(name: &str, ip: &str) -> Seen {
    let value = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "ns"},
        "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
    });
    Seen::Item(reference(Kind::Service, name), Box::new(decode(Kind::Service, value, Author::ApiServer)))
}

fn policy(spec: Value) -> Seen {
    let value = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "ns"}, "spec": spec,
    });
    Seen::Item(
        reference(Kind::NetworkPolicy, "p"),
        Box::new(decode(Kind::NetworkPolicy, value, Author::ApiServer)),
    )
}

/// One word for each change: `+web 10.0.0.1`, `-web`, `=Service` for a listed kind.
fn text(changes: Vec<Change>) -> String {
    let word = |change: Change| match change {
        Change::Addresses(..) => panic!("no source of objects knows addresses before the API"),
        Change::Apply(Object::Service(service)) => {
            format!("+{} {}", service.name.name, service.cluster_ips[0])
        }
        Change::Apply(object) => format!("+{}", object.reference().name.name),
        Change::Restrict(partial) => format!("~{}", partial.reference().name.name),
        Change::Origin(object, origin) => panic!("{object:?} {origin}"),
        Change::Delete(reference) => format!("-{}", reference.name.name),
        Change::Synced(kind) => format!("={}", kind.as_str()),
        Change::Rejected(rejected) => format!("!{}", rejected.len()),
    };
    changes.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

fn play(ledger: &mut Ledger, events: Vec<Seen>) -> String {
    text(events.into_iter().flat_map(|event| ledger.apply(event)).collect())
}

#[test]
fn a_second_list_removes_what_it_does_not_name_and_only_at_its_end() {
    let mut ledger = Ledger::default();
    let first = vec![
        Seen::Listing(Kind::Service),
        service("a", "10.0.0.1"),
        service("b", "10.0.0.2"),
        Seen::Listed(Kind::Service),
    ];
    assert_eq!(play(&mut ledger, first), "+a 10.0.0.1 +b 10.0.0.2 =Service");
    assert_eq!(play(&mut ledger, vec![service("c", "10.0.0.3")]), "+c 10.0.0.3");
    // A list that is cut off removes nothing.
    let cut = vec![Seen::Listing(Kind::Service), service("a", "10.0.0.1")];
    assert_eq!(play(&mut ledger, cut), "+a 10.0.0.1");
    let again = vec![Seen::Listing(Kind::Service), service("b", "10.0.0.9"), Seen::Listed(Kind::Service)];
    assert_eq!(play(&mut ledger, again), "+b 10.0.0.9 -a -c =Service");
}

#[test]
fn other_kinds_are_not_concerned_by_a_list() {
    let mut ledger = Ledger::default();
    play(&mut ledger, vec![policy(json!({"podSelector": {}})), service("a", "10.0.0.1")]);
    let list = vec![Seen::Listing(Kind::Service), Seen::Listed(Kind::Service)];
    assert_eq!(play(&mut ledger, list), "-a =Service");
}

#[test]
fn what_is_deleted_while_a_list_is_read_is_gone() {
    let mut ledger = Ledger::default();
    let list = vec![
        Seen::Listing(Kind::Service),
        service("a", "10.0.0.1"),
        Seen::Gone(reference(Kind::Service, "a")),
        Seen::Gone(reference(Kind::Service, "never")),
        Seen::Listed(Kind::Service),
    ];
    assert_eq!(play(&mut ledger, list), "+a 10.0.0.1 -a =Service");
}

#[test]
fn a_rejected_version_leaves_the_last_one_in_force() {
    let mut ledger = Ledger::default();
    play(&mut ledger, vec![service("a", "10.0.0.1")]);
    assert_eq!(play(&mut ledger, vec![service("a", "nonsense")]), "~a");
    assert_eq!(text(ledger.rejected().into_iter().collect()), "!2", "the field, and what is in force");
    assert!(ledger.rejected().is_none(), "reported already");
    assert_eq!(play(&mut ledger, vec![service("a", "10.0.0.2")]), "+a 10.0.0.2");
    assert_eq!(text(ledger.rejected().into_iter().collect()), "!0");
    // An object that was never accepted leaves nothing to delete.
    assert_eq!(
        play(&mut ledger, vec![service("b", "nonsense"), Seen::Gone(reference(Kind::Service, "b"))]),
        ""
    );
    assert!(ledger.rejected.is_empty());
}

#[test]
fn a_policy_that_was_never_accepted_isolates() {
    let mut ledger = Ledger::default();
    let bad = || policy(json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80, "newField": true}]}]}));
    assert_eq!(play(&mut ledger, vec![bad()]), "~p");
    let Some(Change::Rejected(rejected)) = ledger.rejected() else { panic!("rejected") };
    assert!(rejected[0].reason.contains("upgrade lbr"), "{rejected:?}");
    assert_eq!(rejected[0].field, "spec.ingress[0].ports[0].newField");
    assert_eq!(rejected[1].reason, crate::model::netpol::FALLBACK);
    assert_eq!(play(&mut ledger, vec![policy(json!({"podSelector": {}}))]), "+p");
    assert_eq!(play(&mut ledger, vec![bad()]), "~p");
    let Some(Change::Rejected(rejected)) = ledger.rejected() else { panic!("rejected") };
    assert_eq!(rejected[1].reason, crate::model::netpol::EDITED);
    assert_eq!(play(&mut ledger, vec![Seen::Gone(reference(Kind::NetworkPolicy, "p"))]), "-p");
}

#[test]
fn a_problem_is_new_once_as_long_as_it_stays() {
    let mut ledger = Ledger::default();
    let list = |ledger: &mut Ledger, ip| {
        play(ledger, vec![Seen::Listing(Kind::Service), service("a", ip), Seen::Listed(Kind::Service)]);
        ledger.take_new().into_iter().map(|rejected| rejected.to_string()).collect::<Vec<_>>()
    };
    let new = list(&mut ledger, "nonsense");
    assert_eq!(new.len(), 1);
    assert!(new[0].starts_with("rejected: API server: Service ns/a: spec.clusterIP: "), "{new:?}");
    assert_eq!(list(&mut ledger, "nonsense"), [""; 0]);
    assert_ne!(list(&mut ledger, "other nonsense"), new);
    assert_eq!(list(&mut ledger, "10.0.0.1"), [""; 0]);
    let again = list(&mut ledger, "nonsense");
    assert_eq!((&again[..1], again.len()), (&new[..], 2), "and now a version was accepted");
}
