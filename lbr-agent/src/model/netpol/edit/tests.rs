use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::super::{Object, Partial};
use super::super::{MODE, partial};
use super::*;

fn json_of(spec: &Value, mode: Option<&str>) -> Value {
    let annotations = mode.map(|mode| json!({MODE: mode})).unwrap_or_default();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "default", "annotations": annotations}, "spec": spec,
    })
}

fn accepted(spec: &Value, mode: Option<&str>) -> NetworkPolicy {
    let api = serde_json::from_value(json_of(spec, mode)).unwrap();
    super::super::from_api(api).object.unwrap_or_else(|| panic!("{spec} is not valid"))
}

/// What is in force when `edit` follows on `last`, though it is rejected.
fn after(last: &NetworkPolicy, edit: &Value, mode: Option<&str>) -> NetworkPolicy {
    let partial = Partial::NetworkPolicy(Box::new(partial(&json_of(edit, mode), true).unwrap()));
    match partial.over(Some(&Object::NetworkPolicy(last.clone()))) {
        Some(Object::NetworkPolicy(policy)) => policy,
        other => panic!("{other:?}"),
    }
}

fn web() -> Value {
    json!({"matchLabels": {"app": "web"}})
}

fn from(apps: &[&str]) -> Value {
    let peers: Vec<_> =
        apps.iter().map(|app| json!({"podSelector": {"matchLabels": {"app": app}}})).collect();
    json!({"from": peers})
}

/// A rule with a mistake.
fn bad() -> Value {
    json!({"from": [{"podSelector": {}}], "prots": [{"port": 80}]})
}

/// The table of the module: the last version, a rejected edit, and a valid policy that is the same as what is in force.
#[test]
fn an_edit_closes_what_it_evidently_closes_and_opens_nothing() {
    let (a, b, ab) = (from(&["a"]), from(&["b"]), from(&["a", "b"]));
    let dns = json!({"ports": [{"port": 53, "protocol": "UDP"}]});
    let types = |types: &[&str]| json!({"policyTypes": types});
    let two = ["Ingress", "Egress"];
    for (what, last, edit, expected) in [
        // A typo in the only rule does not cut off everything.
        ("a bad rule", json!({"ingress": [a]}), json!({"ingress": [bad()]}), json!({"ingress": [a]})),
        (
            "a rule that cannot be read may be the other one",
            json!({"ingress": [a, b]}),
            json!({"ingress": [a, bad()]}),
            json!({"ingress": [a, b]}),
        ),
        // The mistake is elsewhere: a rule, a peer or a port that is gone is gone.
        (
            "a removed rule",
            json!({"ingress": [a, b]}),
            json!({"ingress": [a], "egres": []}),
            json!({"ingress": [a]}),
        ),
        (
            "a removed peer",
            json!({"ingress": [ab]}),
            json!({"ingress": [a], "foo": 1}),
            json!({"ingress": [ab]}),
        ),
        (
            "a removed peer, beside a misspelt type",
            json!({"ingress": [ab], "policyTypes": ["Ingress"]}),
            json!({"ingress": [a], "policyTypes": ["ingress"]}),
            json!({"ingress": [a]}),
        ),
        (
            "all rules removed",
            json!({"ingress": [a]}),
            json!({"ingress": [], "policyTypes": ["Ingres"]}),
            json!({"ingress": []}),
        ),
        (
            "a new rule",
            json!({"ingress": [a]}),
            json!({"ingress": [a, b], "policyTypes": ["ingress"]}),
            json!({"ingress": [a]}),
        ),
        (
            "ports where all were",
            json!({"ingress": [{}]}),
            json!({"ingress": [{"ports": [{"port": 80}]}], "policyTypes": ["ingress"]}),
            json!({"ingress": [{"ports": [{"port": 80}]}]}),
        ),
        // Directions.
        (
            "egress isolated too",
            json!({"ingress": [a]}),
            json!({"ingress": [a], "egress": [dns, bad()]}),
            json!({"ingress": [a], "egress": [dns], "policyTypes": two}),
        ),
        (
            "egress isolated too, misspelt",
            json!({"ingress": [a]}),
            json!({"ingress": [a], "egres": [dns]}),
            json!({"ingress": [a], "egress": [], "policyTypes": two}),
        ),
        (
            "by its type",
            json!({"ingress": [a]}),
            json!({"ingress": [a], "policyTypes": ["Ingress", "egress"]}),
            json!({"ingress": [a], "policyTypes": two}),
        ),
        (
            "a type that may be either",
            json!({"ingress": [a]}),
            json!({"ingress": [a], "policyTypes": ["out"]}),
            json!({"ingress": [a], "policyTypes": two}),
        ),
        (
            "types that cannot be read",
            json!({"ingress": [a]}),
            json!({"ingress": [a], "policyTypes": 5}),
            json!({"ingress": [a]}),
        ),
        (
            "ingress not isolated any more",
            json!({"ingress": [a]}),
            json!({"policyTypes": ["egress"]}),
            json!({"ingress": [a], "policyTypes": two}),
        ),
        ("a spec that cannot be read", json!({"ingress": [a]}), json!("text"), json!({"ingress": [a]})),
        ("an empty one with a mistake", json!({"ingress": [a]}), json!({"foo": 1}), json!({"ingress": [a]})),
        ("both", types(&two), json!({"policyTypes": ["ingress"]}), types(&two)),
    ] {
        let with_pods = |mut spec: Value| {
            spec.as_object_mut().into_iter().for_each(|spec| drop(spec.insert("podSelector".into(), web())));
            spec
        };
        let last = accepted(&with_pods(last), None);
        let now = after(&last, &with_pods(edit), None);
        assert_eq!(now, accepted(&with_pods(expected), None), "{what}");
    }
}

#[test]
fn pods_of_either_version_are_isolated() {
    let db = json!({"matchLabels": {"app": "db"}});
    let (a, b) = (from(&["a"]), from(&["b"]));
    let last = accepted(&json!({"podSelector": web(), "ingress": [a, b]}), None);
    // Other pods: isolated as the edit says, and nothing is allowed to them that the last version did not allow.
    let now =
        after(&last, &json!({"podSelector": db, "ingress": [a], "policyTypes": ["ingress", "egress"]}), None);
    let edit = now.edit.clone().unwrap();
    assert_eq!(
        NetworkPolicy { edit: None, ..now },
        accepted(&json!({"podSelector": web(), "ingress": [a]}), None)
    );
    let of_edit = json!({"podSelector": db, "ingress": [a], "policyTypes": ["Ingress", "Egress"]});
    assert_eq!(*edit, accepted(&of_edit, None));
    // A selector that cannot be read does not isolate the whole namespace.
    for selector in [json!("app=web"), json!({"matchExpressions": [{"key": "x", "operator": "is"}]})] {
        let now = after(&last, &json!({"podSelector": selector, "ingress": [a], "egress": [b]}), None);
        assert_eq!((now.pods.clone(), now.edit), (last.pods.clone(), None), "{selector}");
        assert_eq!(now.ingress.map(|rules| rules.len()), Some(1));
    }
}

#[test]
fn modes() {
    let spec = json!({"podSelector": web(), "ingress": [from(&["a"])]});
    let edit = json!({"podSelector": web(), "ingress": [], "policyTypes": ["ingress"]});
    for (before, now, audit, rules) in [
        (Some("audit"), None, false, 0),
        (Some("audit"), Some("audit"), true, 0),
        (Some("audit"), Some("adit"), true, 0),
        (None, Some("audit"), false, 1),
        (None, Some("Audit"), false, 0),
    ] {
        let policy = after(&accepted(&spec, before), &edit, now);
        assert_eq!((policy.audit, policy.ingress.unwrap().len()), (audit, rules), "{before:?} {now:?}");
    }
}

#[test]
fn what_rules_have_in_common() {
    let (pod, port) =
        (|app: &str| json!({"podSelector": {"matchLabels": {"app": app}}}), |n: u16| json!({"port": n}));
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    for (last, edit, expected) in [
        (json!({}), json!({"from": [pod("a")]}), Some(json!({"from": [pod("a")]}))),
        (json!({"from": [pod("a")]}), json!({}), Some(json!({"from": [pod("a")]}))),
        (json!({"from": [pod("a")]}), json!({"from": [pod("b")]}), None),
        (
            json!({"from": [{"podSelector": {}}]}),
            json!({"from": [pod("a")]}),
            Some(json!({"from": [pod("a")]})),
        ),
        (
            json!({"from": [block("10.0.0.0/8", &[])]}),
            json!({"from": [block("10.1.0.0/16", &["10.1.1.0/24"])]}),
            Some(json!({"from": [block("10.1.0.0/16", &["10.1.1.0/24"])]})),
        ),
        (
            json!({"from": [block("10.0.0.0/8", &["10.1.0.0/16"])]}),
            json!({"from": [block("10.1.0.0/16", &[])]}),
            None,
        ),
        (
            json!({"from": [{"namespaceSelector": {}}]}),
            json!({"from": [{"namespaceSelector": {}, "podSelector": {}}]}),
            Some(json!({"from": [{"namespaceSelector": {}, "podSelector": {}}]})),
        ),
        (
            json!({"ports": [port(80), port(81)]}),
            json!({"ports": [port(81)]}),
            Some(json!({"ports": [port(81)]})),
        ),
        (
            json!({"ports": [{"port": 80, "endPort": 90}]}),
            json!({"ports": [{"port": 85, "endPort": 99}]}),
            Some(json!({"ports": [{"port": 85, "endPort": 90}]})),
        ),
        (json!({"ports": [{"protocol": "UDP"}]}), json!({"ports": [port(80)]}), None),
        (json!({"ports": [port(80)]}), json!({"ports": [{"port": "http"}]}), None),
    ] {
        let of = |rule: &Value| {
            let policy = accepted(&json!({"podSelector": {}, "ingress": [rule]}), None);
            policy.ingress.unwrap().remove(0)
        };
        assert_eq!(rule(&of(&last), &of(&edit)), expected.as_ref().map(of), "{last} {edit}");
        assert_eq!(rule(&of(&edit), &of(&last)), expected.as_ref().map(of), "{edit} {last}");
    }
}

/// A packet from a peer to a port, in a small world.
#[derive(Clone, Copy, Debug)]
struct Packet {
    /// Labels of the pod and of its namespace; 0: none.
    pod: u8,
    namespace: u8,
    ip: IpAddr,
    /// TCP, else UDP.
    is_tcp: bool,
    port: u16,
}

fn packets() -> impl Iterator<Item = Packet> {
    let ips: [IpAddr; 3] = [[10, 1, 1, 1].into(), [10, 1, 2, 1].into(), [10, 2, 0, 1].into()];
    (0..72u8).map(move |n| Packet {
        pod: n % 3,
        namespace: n / 3 % 2,
        ip: ips[usize::from(n / 6 % 3)],
        is_tcp: n / 18 % 2 == 0,
        port: if n < 36 { 80 } else { 85 },
    })
}

fn peers() -> Vec<Value> {
    let app = |n: u8| json!({"matchLabels": {"app": n.to_string()}});
    let team = json!({"matchLabels": {"team": "1"}});
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    vec![
        json!({"podSelector": {}}),
        json!({"podSelector": app(1)}),
        json!({"namespaceSelector": {}}),
        json!({"namespaceSelector": team}),
        json!({"namespaceSelector": team, "podSelector": app(2)}),
        json!({"namespaceSelector": {}, "podSelector": app(2)}),
        block("10.0.0.0/8", &[]),
        block("10.1.0.0/16", &["10.1.2.0/24"]),
        block("10.0.0.0/8", &["10.1.0.0/16"]),
        block("10.1.1.0/24", &[]),
    ]
}

fn ports() -> Vec<Value> {
    vec![
        json!({"port": 80}),
        json!({"port": 80, "endPort": 90}),
        json!({"port": 85, "endPort": 99}),
        json!({"protocol": "UDP"}),
        json!({"protocol": "UDP", "port": 85}),
    ]
}

/// Whether the rules allow it. The policy is in namespace 0.
fn allows(rules: &[PolicyRule], packet: Packet) -> bool {
    let selects = |selector: &Selector, key: &str, value: u8| {
        selector.requirements.iter().all(|requirement| match requirement {
            super::super::super::Requirement::In(name, values) => {
                name == key && values.contains(&value.to_string())
            }
            other => panic!("{other:?}"),
        })
    };
    let pods = |selector: &Selector| selects(selector, "app", packet.pod);
    let namespaces = |selector: &Selector| selects(selector, "team", packet.namespace);
    let is_peer = |peer: &Peer| match peer {
        Peer::Pods(selector) => packet.namespace == 0 && pods(selector),
        Peer::Namespaces(selector) => namespaces(selector),
        Peer::Both(of, selector) => namespaces(of) && pods(selector),
        Peer::Block { cidr, except } => {
            cidr.contains(&packet.ip) && !except.iter().any(|hole| hole.contains(&packet.ip))
        }
    };
    let is_port = |port: &PolicyPort| {
        (port.protocol == super::super::super::Protocol::Tcp) == packet.is_tcp
            && match port.ports {
                PortSet::All => true,
                PortSet::Range(first, last) => (first..=last).contains(&packet.port),
                PortSet::Named(_) => false,
            }
    };
    rules.iter().any(|rule| {
        (rule.peers.is_empty() || rule.peers.iter().any(is_peer))
            && (rule.ports.is_empty() || rule.ports.iter().any(is_port))
    })
}

/// A rule by the numbers of its peers and ports.
type Numbers = (Vec<usize>, Vec<usize>);

fn to_rules(numbers: &[Numbers]) -> Vec<PolicyRule> {
    let rule = |(of_peers, of_ports): &Numbers| {
        let (all_peers, all_ports) = (peers(), ports());
        let peers: Vec<_> = of_peers.iter().map(|&n| all_peers[n].clone()).collect();
        let ports: Vec<_> = of_ports.iter().map(|&n| all_ports[n].clone()).collect();
        json!({"from": peers, "ports": ports})
    };
    let rules: Vec<_> = numbers.iter().map(rule).collect();
    accepted(&json!({"podSelector": {}, "ingress": rules}), None).ingress.unwrap()
}

fn numbers() -> impl Strategy<Value = Vec<Numbers>> {
    let rule = (prop::collection::vec(0..peers().len(), 0..4), prop::collection::vec(0..ports().len(), 0..3));
    prop::collection::vec(rule, 0..4)
}

proptest! {
    /// Nothing passes that one of the two versions does not allow.
    #[test]
    fn what_two_versions_have_in_common_is_allowed_by_both(last in numbers(), edit in numbers()) {
        let (last, edit) = (to_rules(&last), to_rules(&edit));
        let now = both(&Some(last.clone()), Some(edit.clone()), true).unwrap();
        for packet in packets().filter(|packet| allows(&now, *packet)) {
            prop_assert!(allows(&last, packet) && allows(&edit, packet), "{packet:?}: {now:?}");
        }
    }

    /// An edit that only removes rules, peers or ports is in force as it is.
    #[test]
    fn removing_closes_nothing_else(last in numbers(), keep in prop::collection::vec(any::<bool>(), 30)) {
        let mut keep = keep.into_iter().cycle();
        let mut edit = last.clone();
        for (peers, ports) in &mut edit {
            for list in [peers, ports] {
                let before = list.clone();
                list.retain(|_| keep.next().unwrap());
                // An empty list would mean everything.
                if list.is_empty() {
                    *list = before;
                }
            }
        }
        edit.retain(|_| keep.next().unwrap());
        let (last, edit) = (to_rules(&last), to_rules(&edit));
        let now = both(&Some(last), Some(edit.clone()), true).unwrap();
        for packet in packets() {
            prop_assert_eq!(allows(&now, packet), allows(&edit, packet), "{:?}: {:?}", packet, now);
        }
    }
}
