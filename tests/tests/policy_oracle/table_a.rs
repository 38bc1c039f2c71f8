//! Table A: which direction is isolated. And table C, as far as it concerns new connections.

use lbr_tests::oracle::Answer;
use serde_json::json;

use crate::tables::{cluster, expected, row};

#[test]
fn a1_no_types_and_no_egress_rules() {
    for spec in [json!({}), json!({"policyTypes": [], "ingress": [], "egress": []})] {
        row("A1", &[spec], &[("TCP b a 80", false), ("TCP a c 80", true), ("TCP c d 80", true)]);
    }
    row("A1", &[json!({"ingress": [{}]})], &[("TCP b a 80", true), ("TCP a c 80", true)]);
}

#[test]
fn a2_no_types_but_egress_rules() {
    row(
        "A2",
        &[json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.1.3/32"}}]}]})],
        &[("TCP c a 80", false), ("TCP a c 80", true), ("TCP a d 80", false)],
    );
}

#[test]
fn a3_ingress_alone_leaves_egress_rules_inert() {
    let spec = json!({"policyTypes": ["Ingress"], "egress": [{"ports": [{"port": 1}]}]});
    row("A3", &[spec], &[("TCP a c 80", true), ("TCP c a 80", false)]);
}

#[test]
fn a4_egress_alone_leaves_ingress_rules_inert() {
    let spec = json!({"policyTypes": ["Egress"], "ingress": [{"ports": [{"port": 1}]}]});
    row("A4", &[spec], &[("TCP c a 80", true), ("TCP a c 80", false)]);
    row("A4", &[json!({"policyTypes": ["Egress"], "egress": []})], &[("TCP a c 80", false)]);
}

#[test]
fn a5_egress_of_everything() {
    let case = cluster(&[json!({"policyTypes": ["Egress"], "egress": [{}]})]);
    let expected = expected(&case, "TCP a c 80");
    assert!(matches!(expected.egress, Answer::Allowed(rules) if rules.len() == 1 && rules[0].rule == 0));
    assert_eq!(expected.ingress, Answer::NotIsolated);
}

#[test]
fn a6_both_and_no_rules() {
    let spec = json!({"policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []});
    row("A6", &[spec], &[("TCP c a 80", false), ("TCP a c 80", false), ("TCP c d 80", true)]);
}

#[test]
fn a7_all_in_and_nothing_out() {
    let spec = json!({"policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": []});
    row("A7", &[spec], &[("TCP c a 80", true), ("TCP a c 80", false)]);
}

/// An audited policy changes nothing, and its verdict is known.
#[test]
fn audited() {
    let mut case = cluster(&[json!({}), json!({"ingress": [{"ports": [{"port": 80}]}]})]);
    for policy in case.objects.iter_mut().filter(|o| o["kind"] == "NetworkPolicy").take(1) {
        policy["metadata"]["annotations"] = json!({"lbr.dev/mode": "audit"});
    }
    let got = expected(&case, "TCP c a 81");
    assert_eq!((got.ingress, got.audited_ingress), (Answer::Denied, Answer::Denied));
    case.objects.pop();
    let got = expected(&case, "TCP c a 81");
    assert_eq!((got.ingress, got.audited_ingress), (Answer::NotIsolated, Answer::Denied));
}

/// C1, C2, C4, C5, C6, C9, C11, C20.
#[test]
fn c_traffic_classes() {
    let none = json!({"policyTypes": ["Ingress", "Egress"]});
    row("C1", std::slice::from_ref(&none), &[("TCP a a 80", true)]);
    row("C4", std::slice::from_ref(&none), &[("TCP a 192.168.0.1 22", true)]);
    row("C5", &[none], &[("TCP a 192.168.0.2 22", false), ("TCP 192.168.0.2 a 22", false)]);
    let pods = json!({"ingress": [{"from": [{"podSelector": {}}, {"namespaceSelector": {}}]}]});
    row("C6", std::slice::from_ref(&pods), &[("TCP 192.168.0.2 a 1", false), ("TCP b a 1", true)]);
    let tcp = json!({"ingress": [{"ports": [{}]}]});
    row("C9, C11", std::slice::from_ref(&tcp), &[("ICMP b a 0", false), ("47 b a 0", false)]);
    row("C9, C11", &[tcp, json!({"ingress": [{}]})], &[("ICMP b a 0", true), ("47 b a 0", true)]);

    let mut case = cluster(&[pods]);
    let b = case.objects.iter_mut().find(|o| o["metadata"]["name"] == "b").unwrap();
    b["status"]["phase"] = "Succeeded".into();
    assert_eq!(expected(&case, "TCP b a 1").ingress, Answer::Denied, "C20: no peer");
    assert_eq!(expected(&case, "TCP a b 1").ingress, Answer::NoPod, "C20: no subject");
}
