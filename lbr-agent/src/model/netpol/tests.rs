use serde_json::{Value, json};

use super::super::{Protocol, Selector};
use super::*;

/// What is in force of a rejected policy.
fn remains(spec: Value) -> NetworkPolicy {
    let value = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    partial(&value, true).unwrap().alone()
}

fn convert(spec: Value) -> Converted<NetworkPolicy> {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "default"}, "spec": spec,
    });
    from_api(serde_json::from_value(object).unwrap())
}

/// Table A of the contract: number of rules per direction, `None` where the policy does not isolate.
#[test]
fn table_a() {
    for (row, spec, ingress, egress) in [
        ("A1", json!({}), Some(0), None),
        ("A1", json!({"policyTypes": [], "ingress": [], "egress": []}), Some(0), None),
        ("A2", json!({"egress": [{}]}), Some(0), Some(1)),
        ("A2", json!({"ingress": [{}, {}], "egress": [{}]}), Some(2), Some(1)),
        ("A3", json!({"policyTypes": ["Ingress"], "ingress": [{}], "egress": [{}]}), Some(1), None),
        ("A4", json!({"policyTypes": ["Egress"], "ingress": [{}]}), None, Some(0)),
        ("A5", json!({"policyTypes": ["Egress"], "egress": [{}]}), None, Some(1)),
        ("A6", json!({"policyTypes": ["Ingress", "Egress"]}), Some(0), Some(0)),
        ("A7", json!({"policyTypes": ["Ingress", "Egress"], "ingress": [{}]}), Some(1), Some(0)),
    ] {
        let converted = convert(spec);
        assert_eq!(converted.problems, [], "{row}");
        let policy = converted.object.unwrap();
        let lens = (policy.ingress.map(|r| r.len()), policy.egress.map(|r| r.len()));
        assert_eq!(lens, (ingress, egress), "{row}");
        assert_eq!(policy.pods, Selector::default(), "{row}");
    }
}

fn ingress_rule(rule: Value) -> PolicyRule {
    let converted = convert(json!({"ingress": [rule]}));
    assert_eq!(converted.problems, []);
    converted.object.unwrap().ingress.unwrap().remove(0)
}

/// Table B, peers.
#[test]
fn table_b_peers() {
    assert_eq!(ingress_rule(json!({"from": []})).peers, []);
    assert_eq!(ingress_rule(json!({"from": null})).peers, []);
    let all = Selector::default;
    for (row, peer, expected) in [
        ("B2", json!({"podSelector": {}}), Peer::Pods(all())),
        ("B3", json!({"namespaceSelector": {}}), Peer::Namespaces(all())),
        ("B4", json!({"namespaceSelector": {}, "podSelector": {}}), Peer::Both(all(), all())),
        (
            "B7",
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}),
            Peer::Block { cidr: "10.0.0.0/8".parse().unwrap(), except: vec!["10.1.0.0/16".parse().unwrap()] },
        ),
        (
            "B10",
            json!({"ipBlock": {"cidr": "10.161.0.0/8", "except": ["10.1.2.3/16"]}}),
            Peer::Block { cidr: "10.0.0.0/8".parse().unwrap(), except: vec!["10.1.0.0/16".parse().unwrap()] },
        ),
        (
            "one address",
            json!({"ipBlock": {"cidr": "fd00::1/128"}}),
            Peer::Block { cidr: "fd00::1/128".parse().unwrap(), except: vec![] },
        ),
    ] {
        assert_eq!(ingress_rule(json!({"from": [peer]})).peers, [expected], "{row}");
    }
}

/// JSON's null is an absent field, as in the API server's decoder.
#[test]
fn null_is_absent() {
    let rule =
        ingress_rule(json!({"from": [{"podSelector": {}, "namespaceSelector": null, "ipBlock": null}]}));
    assert_eq!(rule.peers, [Peer::Pods(Selector::default())]);
    let rule = ingress_rule(json!({"from": null, "ports": null}));
    assert_eq!((rule.peers, rule.ports), (vec![], vec![]));
    let rule = ingress_rule(json!({"ports": [{"port": 80, "endPort": null, "protocol": null}]}));
    assert_eq!(rule.ports, [PolicyPort { protocol: Protocol::Tcp, ports: PortSet::Range(80, 80) }]);
    let selector = json!({"matchLabels": null, "matchExpressions": null});
    for spec in [json!({"podSelector": null}), json!({"podSelector": selector}), json!({"podSelector": {}})] {
        let converted = convert(spec.clone());
        assert_eq!(converted.problems, [], "{spec}");
        let policy = converted.object.unwrap();
        assert_eq!(policy.pods, Selector::default(), "{spec}");
        assert_eq!((policy.ingress, policy.egress), (Some(vec![]), None), "{spec}");
    }
}

/// Table B, ports.
#[test]
fn table_b_ports() {
    assert_eq!(ingress_rule(json!({"ports": []})).ports, []);
    for (row, port, protocol, ports) in [
        ("B12", json!({}), Protocol::Tcp, PortSet::All),
        ("B13", json!({"protocol": "UDP"}), Protocol::Udp, PortSet::All),
        ("B14", json!({"port": 80}), Protocol::Tcp, PortSet::Range(80, 80)),
        ("B15", json!({"port": 80, "endPort": 90}), Protocol::Tcp, PortSet::Range(80, 90)),
        ("B15", json!({"port": 80, "endPort": 80}), Protocol::Tcp, PortSet::Range(80, 80)),
        ("B16", json!({"port": "http", "protocol": "UDP"}), Protocol::Udp, PortSet::Named("http".into())),
        ("B17", json!({"protocol": "SCTP", "port": 1}), Protocol::Sctp, PortSet::Range(1, 1)),
    ] {
        assert_eq!(ingress_rule(json!({"ports": [port]})).ports, [PolicyPort { protocol, ports }], "{row}");
    }
}

/// The bad rule is between two good ones, which still count.
#[test]
fn invalid_rules_refuse_the_policy_and_isolate() {
    let block = |b: Value| json!({"from": [{"podSelector": {}}, {"ipBlock": b}]});
    let port = |p: Value| json!({"ports": [{"port": 1}, p]});
    for (rule, field) in [
        (json!({"from": [{}]}), "from[0]"),
        (json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}), "from[0]"),
        (json!({"from": [{"namespaceSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}), "from[0]"),
        (
            json!({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "x"}]}}]}),
            "from[0].podSelector.matchExpressions[0].operator",
        ),
        (block(json!({"cidr": "10.0.0.0"})), "from[1].ipBlock.cidr"),
        (block(json!({"cidr": "10.0.0.0/33"})), "from[1].ipBlock.cidr"),
        (block(json!({"cidr": ""})), "from[1].ipBlock.cidr"),
        (block(json!({"cidr": "::ffff:10.0.0.0/104"})), "from[1].ipBlock.cidr"),
        (block(json!({"cidr": "::ffff:0.0.0.0/96"})), "from[1].ipBlock.cidr"),
        (block(json!({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]})), "from[1].ipBlock.except[0]"),
        (block(json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]})), "from[1].ipBlock.except[0]"),
        (block(json!({"cidr": "10.0.0.0/8", "except": ["fd00::/16"]})), "from[1].ipBlock.except[0]"),
        (port(json!({"port": 0})), "ports[1].port"),
        (port(json!({"port": 65536})), "ports[1].port"),
        (port(json!({"port": "80"})), "ports[1].port"),
        (port(json!({"port": "HTTP"})), "ports[1].port"),
        (port(json!({"port": 80, "endPort": 79})), "ports[1].endPort"),
        (port(json!({"port": 80, "endPort": 70000})), "ports[1].endPort"),
        (port(json!({"endPort": 80})), "ports[1].endPort"),
        (port(json!({"port": "http", "endPort": 80})), "ports[1].endPort"),
        (port(json!({"protocol": "ICMP"})), "ports[1].protocol"),
    ] {
        let good = json!({"ports": [{"port": 7}]});
        let spec = json!({"ingress": [good, rule, good]});
        let converted = convert(spec.clone());
        assert_eq!(converted.object, None, "{rule}");
        let fields: Vec<_> = converted.problems.iter().map(|p| p.field.clone()).collect();
        assert_eq!(fields, [format!("spec.ingress[1].{field}")], "{rule}");
        assert!(!converted.problems[0].reason.is_empty(), "{rule}");
        assert_eq!(remains(spec).ingress.map(|r| r.len()), Some(2), "{rule}");
    }
}

#[test]
fn mistakes_of_the_whole_refuse() {
    for kind in ["ingress", "egress", "Ingres", ""] {
        let converted = convert(json!({"policyTypes": ["Ingress", kind], "ingress": [{}]}));
        assert_eq!(converted.object, None, "{kind}");
        assert_eq!(converted.problems[0].field, "spec.policyTypes[1]");
    }
    let bad = json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "x"}]}});
    let converted = convert(bad);
    assert_eq!(converted.object, None);
    assert_eq!(converted.problems[0].field, "spec.podSelector.matchExpressions[0].operator");
    let converted = convert(json!({"egress": [{"to": [{}]}]}));
    assert_eq!(converted.problems[0].field, "spec.egress[0].to[0]");
}

#[test]
fn a_mode_that_is_not_known_enforces() {
    for (mode, audit, is_refused) in [
        (json!({}), false, false),
        (json!({MODE: "enforce"}), false, false),
        (json!({MODE: "audit"}), true, false),
        (json!({MODE: "Audit"}), false, true),
        (json!({MODE: ""}), false, true),
    ] {
        let metadata = json!({"name": "p", "namespace": "default", "annotations": mode});
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": {},
        });
        let remains = partial(&object, true).unwrap().alone();
        let converted = from_api(serde_json::from_value(object).unwrap());
        let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
        let expected = if is_refused { vec!["metadata.annotations[lbr.dev/mode]"] } else { vec![] };
        assert_eq!((fields, converted.object.is_none()), (expected, is_refused), "{mode}");
        let policy = converted.object.unwrap_or(remains);
        assert_eq!((policy.audit, policy.ingress), (audit, Some(vec![])), "{mode}");
    }
}

#[test]
fn names_of_ports_are_those_of_the_api() {
    for name in ["a", "http", "web-2", "2-web", "a-b-c", "abcdefghijklmno"] {
        assert_eq!(check_port_name(name), Ok(()), "{name}");
    }
    for name in ["", "-", "7-7", "-a", "a-", "a--b", "A", "a_b", "a.b", "é", "abcdefghijklmnop"] {
        assert!(check_port_name(name).unwrap_err().contains("is not the name"), "{name}");
    }
    assert!(check_port_name("80").unwrap_err().contains("without quotes"));
}
