//! Table B: what a rule matches. Unless a row says otherwise, the policies select all pods of namespace x.

use serde_json::{Value, json};

use crate::tables::row;

fn from(peers: Value) -> Value {
    json!({"ingress": [{"from": peers}]})
}

fn ports(ports: Value) -> Value {
    json!({"ingress": [{"ports": ports}]})
}

fn out(rule: Value) -> Value {
    json!({"policyTypes": ["Egress"], "egress": [rule]})
}

#[test]
fn b1_no_peers_are_every_peer() {
    for rule in [json!({}), json!({"from": []}), json!({"from": null})] {
        let spec = json!({"ingress": [rule]});
        row(
            "B1",
            &[spec],
            &[("TCP c a 1", true), ("TCP 203.0.113.1 a 1", true), ("TCP 2001:db8::1 fd00::1 1", true)],
        );
    }
    row("B1", &[out(json!({}))], &[("TCP a 203.0.113.1 1", true)]);
}

#[test]
fn b2_pods_of_the_policy_s_namespace() {
    let spec = from(json!([{"podSelector": {}}]));
    row("B2", &[spec], &[("TCP b a 1", true), ("TCP c a 1", false), ("TCP 203.0.113.1 a 1", false)]);
    let spec = from(json!([{"podSelector": {"matchLabels": {"app": "a"}}}]));
    row("B2", &[spec], &[("TCP a b 1", true), ("TCP c b 1", false)]);
}

#[test]
fn b3_pods_of_namespaces() {
    let spec = from(json!([{"namespaceSelector": {}}]));
    row(
        "B3",
        &[spec],
        &[
            ("TCP b a 1", true),
            ("TCP c a 1", true),
            ("TCP 203.0.113.1 a 1", false),
            ("TCP 192.168.0.2 a 1", false),
        ],
    );
    let spec = from(json!([{"namespaceSelector": {"matchLabels": {"team": "y"}}}]));
    row("B3", &[spec], &[("TCP b a 1", false), ("TCP c a 1", true), ("TCP d a 1", true)]);
}

#[test]
fn b4_one_item_is_and_two_items_are_or() {
    let (pods, namespaces) = (json!({"matchLabels": {"app": "a"}}), json!({"matchLabels": {"team": "y"}}));
    let spec = from(json!([{"podSelector": pods, "namespaceSelector": namespaces}]));
    row("B4", &[spec], &[("TCP c b 1", true), ("TCP d b 1", false), ("TCP a b 1", false)]);
    let spec = from(json!([{"podSelector": pods}, {"namespaceSelector": namespaces}]));
    row(
        "B4",
        &[spec],
        &[("TCP c b 1", true), ("TCP d b 1", true), ("TCP a b 1", true), ("TCP b a 1", false)],
    );
}

#[test]
fn b5_invalid_peers_match_nothing() {
    let block = json!({"cidr": "0.0.0.0/0"});
    for peer in [
        json!({}),
        json!({"ipBlock": block, "podSelector": {}}),
        json!({"ipBlock": block, "namespaceSelector": {}}),
    ] {
        row("B5", &[from(json!([peer]))], &[("TCP b a 1", false), ("TCP 203.0.113.1 a 1", false)]);
    }
}

#[test]
fn b6_selectors() {
    let not_in = |values: Value| json!([{"key": "app", "operator": "NotIn", "values": values}]);
    for (selector, expected) in [
        (json!({"matchLabels": {"app": "a"}}), [true, false, true, false]),
        (
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "z"]}]}),
            [true, false, true, false],
        ),
        (json!({"matchExpressions": not_in(json!(["a"]))}), [false, true, false, true]),
        (json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), [true, true, true, false]),
        (
            json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
            [false, false, false, true],
        ),
        (json!({"matchLabels": {"app": "a"}, "matchExpressions": not_in(json!(["a"]))}), [false; 4]),
        (
            json!({"matchExpressions": [not_in(json!(["a"]))[0], not_in(json!(["b"]))[0]]}),
            [false, false, false, true],
        ),
        (json!({"matchLabels": {}, "matchExpressions": []}), [true; 4]),
        (json!({"matchLabels": null, "matchExpressions": null}), [true; 4]),
    ] {
        // To a on port 1 for b, c, d; to b for a.
        let spec = from(json!([{"namespaceSelector": {}, "podSelector": selector}]));
        let [a, b, c, d] = expected;
        row("B6", &[spec], &[("TCP a b 1", a), ("TCP b a 1", b), ("TCP c a 1", c), ("TCP d a 1", d)]);
    }
    let by_name = json!({"matchLabels": {"kubernetes.io/metadata.name": "y"}});
    row("B6", &[from(json!([{"namespaceSelector": by_name}]))], &[("TCP c a 1", true), ("TCP b a 1", false)]);
}

#[test]
fn b7_blocks() {
    let spec = from(json!([{"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.64/26"]}}]));
    row(
        "B7",
        &[spec],
        &[
            ("TCP 203.0.112.255 a 1", false),
            ("TCP 203.0.113.0 a 1", true),
            ("TCP 203.0.113.63 a 1", true),
            ("TCP 203.0.113.64 a 1", false),
            ("TCP 203.0.113.127 a 1", false),
            ("TCP 203.0.113.128 a 1", true),
            ("TCP 203.0.113.255 a 1", true),
            ("TCP 203.0.114.0 a 1", false),
        ],
    );
    let v6 = from(json!([{"ipBlock": {"cidr": "::/0"}}]));
    row("B7", &[v6], &[("TCP 2001:db8::1 fd00::1 1", true), ("TCP 203.0.113.1 a 1", false)]);
    let v4 = from(json!([{"ipBlock": {"cidr": "0.0.0.0/0"}}]));
    row("B7", &[v4], &[("TCP 2001:db8::1 fd00::1 1", false), ("TCP 203.0.113.1 a 1", true)]);
}

#[test]
fn b8_an_exception_is_no_denial() {
    let but = from(json!([{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.1.2/32"]}}]));
    row("B8", std::slice::from_ref(&but), &[("TCP b a 1", false), ("TCP c a 1", true)]);
    for other in [json!({"podSelector": {}}), json!({"ipBlock": {"cidr": "10.0.1.2/31"}})] {
        row("B8", &[but.clone(), from(json!([other]))], &[("TCP b a 1", true)]);
        let two_rules = json!({"ingress": [but["ingress"][0], {"from": [other]}]});
        row("B8", &[two_rules], &[("TCP b a 1", true)]);
    }
}

#[test]
fn b9_blocks_match_pods() {
    let spec = out(json!({"to": [{"ipBlock": {"cidr": "10.0.1.3/32"}}]}));
    row("B9", &[spec], &[("TCP a c 1", true), ("TCP a d 1", false)]);
}

#[test]
fn b10_host_bits_do_not_count() {
    let spec = from(json!([{"ipBlock": {"cidr": "10.161.0.0/8", "except": ["10.0.1.3/31"]}}]));
    row(
        "B10",
        &[spec],
        &[("TCP 10.9.9.9 a 1", true), ("TCP b a 1", false), ("TCP c a 1", false), ("TCP d a 1", true)],
    );
}

#[test]
fn b11_no_ports_are_all_ports_of_all_protocols() {
    for rule in [json!({}), json!({"ports": []}), json!({"ports": null})] {
        let all = [
            ("TCP b a 1", true),
            ("UDP b a 1", true),
            ("SCTP b a 1", true),
            ("ICMP b a 0", true),
            ("47 b a 0", true),
        ];
        row("B11", &[json!({"ingress": [rule]})], &all);
    }
}

#[test]
fn b12_an_empty_port_is_all_of_tcp() {
    row(
        "B12",
        &[ports(json!([{}]))],
        &[
            ("TCP b a 0", true),
            ("TCP b a 65535", true),
            ("UDP b a 1", false),
            ("SCTP b a 1", false),
            ("ICMP b a 0", false),
        ],
    );
}

#[test]
fn b13_a_protocol_alone() {
    row("B13", &[ports(json!([{"protocol": "UDP"}]))], &[("UDP b a 1", true), ("TCP b a 1", false)]);
}

#[test]
fn b14_a_number_is_of_tcp() {
    row(
        "B14",
        &[ports(json!([{"port": 80}]))],
        &[("TCP b a 79", false), ("TCP b a 80", true), ("TCP b a 81", false), ("UDP b a 80", false)],
    );
}

#[test]
fn b15_ranges_are_inclusive() {
    row(
        "B15",
        &[ports(json!([{"port": 80, "endPort": 90}]))],
        &[
            ("TCP b a 79", false),
            ("TCP b a 80", true),
            ("TCP b a 90", true),
            ("TCP b a 91", false),
            ("UDP b a 85", false),
        ],
    );
}

#[test]
fn b16_named_ports_are_the_destination_s() {
    row(
        "B16 in",
        &[ports(json!([{"port": "web"}]))],
        &[
            ("TCP c a 80", true),
            ("TCP c a 81", false),
            ("TCP c b 81", true),
            ("TCP c b 80", false),
            ("UDP c a 80", false),
        ],
    );
    row("B16 protocol", &[ports(json!([{"port": "dns"}]))], &[("TCP b a 53", false), ("UDP b a 53", false)]);
    row("B16 protocol", &[ports(json!([{"port": "dns", "protocol": "UDP"}]))], &[("UDP b a 53", true)]);
    row("B16 sidecar", &[ports(json!([{"port": "mesh"}]))], &[("TCP a b 15000", true)]);
    row("B16 init", &[ports(json!([{"port": "gone"}]))], &[("TCP a b 7", false)]);
    row(
        "B16 out",
        &[out(json!({"ports": [{"port": "web"}]}))],
        &[
            ("TCP a c 8080", true),
            ("TCP a c 80", false),
            ("TCP a b 81", true),
            ("TCP a b 80", false),
            ("TCP a d 80", false),
            ("TCP a 203.0.113.1 80", false),
            ("TCP a 192.168.0.2 80", false),
        ],
    );
}

#[test]
fn b17_sctp_is_a_protocol_of_its_own() {
    row(
        "B17",
        &[ports(json!([{"protocol": "SCTP", "port": 80}]))],
        &[("SCTP b a 80", true), ("TCP b a 80", false), ("UDP b a 80", false), ("TCP b a 81", false)],
    );
}
