//! Rows of the tables A and B of the contract that need more than one step to get right.

use super::*;
use crate::policy::judge::Side;

const WEB: &str = "10.244.0.2";
const DB: &str = "10.244.0.3";
const OUTSIDE: &str = "203.0.113.9";

/// `a/web` and `a/db` here.
fn pair() -> World {
    let mut world = World::new();
    world.namespace("a", &[]);
    world.pod("a/web", &[WEB, "fd00::2"], &[("app", "web")]);
    world.pod("a/db", &[DB, "fd00::3"], &[("app", "db")]);
    world
}

fn select(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

#[test]
fn without_a_policy_everything_passes_and_with_one_only_what_it_allows() {
    let mut world = pair();
    assert!(tcp(&world.compile(), WEB, DB, 5432));
    let from_web = json!([{"from": [{"podSelector": select("web")}], "ports": [{"port": 5432}]}]);
    world.policy("a/db", json!({"podSelector": select("db"), "ingress": from_web}));
    let d = world.compile();
    assert!(tcp(&d, WEB, DB, 5432) && tcp(&d, "fd00::2", "fd00::3", 5432));
    assert!(!tcp(&d, WEB, DB, 5433) && !tcp(&d, OUTSIDE, DB, 5432));
    assert!(!passes(&d, WEB, DB, proto::UDP, 5432));
    assert!(tcp(&d, DB, WEB, 1), "the other pod and the other direction are not isolated");
}

#[test]
fn b12_b13_a_protocol_alone_is_every_port_of_it() {
    let mut world = pair();
    world.policy("a/p", json!({"podSelector": select("db"), "ingress": [{"ports": [{"protocol": "UDP"}]}]}));
    let d = world.compile();
    for (protocol, expected) in [(proto::UDP, true), (proto::TCP, false), (proto::SCTP, false), (47, false)] {
        for port in [0, 1, 80, 65535] {
            assert_eq!(passes(&d, OUTSIDE, DB, protocol, port), expected, "{protocol} {port}");
        }
    }
    assert_eq!(d.port_class.len(), 1);
}

#[test]
fn b11_rules_without_ports_allow_every_protocol_also_beside_rules_with_ports() {
    let mut world = pair();
    let rules = json!([{"ports": [{"port": 80}]}, {"from": [{"podSelector": {}}]}]);
    world.policy("a/p", json!({"podSelector": select("db"), "ingress": rules}));
    let d = world.compile();
    for (protocol, port) in [(proto::TCP, 80), (proto::TCP, 81), (proto::ICMP, 0), (47, 0)] {
        assert!(passes(&d, WEB, DB, protocol, port), "{protocol} {port}");
        assert_eq!(passes(&d, OUTSIDE, DB, protocol, port), (protocol, port) == (proto::TCP, 80));
    }
}

#[test]
fn b17_sctp_is_its_own_protocol() {
    let mut world = pair();
    let ports = json!([{"ports": [{"protocol": "SCTP", "port": 80}]}]);
    world.policy("a/p", json!({"podSelector": select("db"), "ingress": ports}));
    let d = world.compile();
    assert!(passes(&d, WEB, DB, proto::SCTP, 80));
    assert!(!tcp(&d, WEB, DB, 80));
}

#[test]
fn b8_what_one_rule_excepts_another_may_allow() {
    let mut world = pair();
    let block = |cidr: &str, except: &[&str]| json!({"ipBlock": {"cidr": cidr, "except": except}});
    let to = |peers: Value, port: u16| json!({"to": peers, "ports": [{"port": port}]});
    let rules = json!([
        to(json!([block("10.0.0.0/8", &["10.1.0.0/16", "10.1.2.0/24"])]), 80),
        to(json!([block("10.1.2.0/24", &[])]), 81),
        to(json!([block("0.0.0.0/0", &["10.0.0.0/8"])]), 82),
        to(json!([block("10.1.2.3/32", &[])]), 80),
    ]);
    world.policy("a/p", json!({"podSelector": select("web"), "policyTypes": ["Egress"], "egress": rules}));
    let d = world.compile();
    for (dst, ports) in [
        ("10.9.9.9", vec![80]),
        ("10.1.9.9", vec![]),
        ("10.1.2.9", vec![81]),
        ("10.1.2.3", vec![80, 81]),
        ("192.0.2.1", vec![82]),
        ("2001:db8::1", vec![]),
    ] {
        let open: Vec<u16> = (80..=82).filter(|&port| tcp(&d, WEB, dst, port)).collect();
        assert_eq!(open, ports, "{dst}");
    }
    let hidden = d.cidr_class.iter().filter(|(_, c)| **c == lbr_common::policy::class::NONE).count();
    assert_eq!(hidden, 1, "10.1.0.0/16");
}

#[test]
fn b7_whole_families_are_blocks_too() {
    for (cidr, v4, v6) in [("0.0.0.0/0", true, false), ("::/0", false, true)] {
        let mut world = pair();
        let from = json!([{"from": [{"ipBlock": {"cidr": cidr}}]}]);
        world.policy("a/p", json!({"podSelector": select("db"), "ingress": from}));
        let d = world.compile();
        assert_eq!((tcp(&d, OUTSIDE, DB, 1), tcp(&d, "2001:db8::1", "fd00::3", 1)), (v4, v6), "{cidr}");
    }
}

#[test]
fn b9_blocks_match_pods_with_and_without_a_selector_that_does() {
    let mut world = pair();
    let from = json!([{"from": [{"ipBlock": {"cidr": "10.244.0.0/24", "except": ["10.244.0.4/32"]}}]}]);
    world.policy("a/p", json!({"podSelector": select("db"), "ingress": from}));
    world.pod("a/other", &["10.244.0.4"], &[("app", "web")]);
    let plain = world.compile();
    // A policy that mentions the label of both gives them entries of their own.
    world.policy(
        "a/q",
        json!({"podSelector": select("db"), "ingress": [
        {"from": [{"podSelector": select("web")}], "ports": [{"port": 9}]}]}),
    );
    let classed = world.compile();
    assert_eq!((plain.ip_class.len(), classed.ip_class.len()), (0, 3));
    for d in [plain, classed] {
        assert!(tcp(&d, WEB, DB, 1));
        assert!(!tcp(&d, "10.244.0.4", DB, 1));
    }
}

#[test]
fn b6_absent_labels_satisfy_not_in_and_does_not_exist() {
    for (operator, values, expected) in [
        ("NotIn", json!(["web"]), [false, true, true]),
        ("DoesNotExist", json!([]), [false, false, true]),
        ("Exists", json!([]), [true, true, false]),
        ("In", json!(["web", "db"]), [true, true, false]),
    ] {
        let mut world = pair();
        world.pod("a/bare", &["10.244.0.4"], &[]);
        world.pod("a/target", &["10.244.0.5"], &[("role", "target")]);
        let expression = json!({"key": "app", "operator": operator, "values": values});
        let from = json!([{"from": [{"podSelector": {"matchExpressions": [expression]}}]}]);
        world.policy("a/p", json!({"podSelector": {"matchLabels": {"role": "target"}}, "ingress": from}));
        let d = world.compile();
        assert_eq!([WEB, DB, "10.244.0.4"].map(|src| tcp(&d, src, "10.244.0.5", 1)), expected, "{operator}");
        assert!(!tcp(&d, OUTSIDE, "10.244.0.5", 1), "no address of a pod");
    }
}

#[test]
fn b2_to_b4_namespaces_and_pods_combine() {
    let mut world = pair();
    world.namespace("b", &[("team", "x")]);
    world.pod("b/web", &["10.244.0.12"], &[("app", "web")]);
    world.pod("b/cron", &["10.244.0.13"], &[]);
    // The namespace object is not known yet: the namespace has a name all the same.
    world.pod("c/web", &["10.244.0.14"], &[("app", "web")]);
    let team = json!({"matchLabels": {"team": "x"}});
    let by_name = json!({"matchLabels": {"kubernetes.io/metadata.name": "c"}});
    let sources = [WEB, "10.244.0.12", "10.244.0.13", "10.244.0.14", OUTSIDE];
    for (from, expected) in [
        (json!([{"podSelector": {}}]), [true, false, false, false, false]),
        (json!([{"namespaceSelector": {}}]), [true, true, true, true, false]),
        (json!([{"namespaceSelector": team}]), [false, true, true, false, false]),
        (
            json!([{"namespaceSelector": team, "podSelector": select("web")}]),
            [false, true, false, false, false],
        ),
        (
            json!([{"namespaceSelector": team}, {"podSelector": select("web")}]),
            [true, true, true, false, false],
        ),
        (json!([{"namespaceSelector": by_name}]), [false, false, false, true, false]),
    ] {
        world.policy("a/p", json!({"podSelector": select("db"), "ingress": [{"from": from}]}));
        let d = world.compile();
        assert_eq!(sources.map(|src| tcp(&d, src, DB, 1)), expected, "{from}");
    }
}

#[test]
fn b16_a_named_port_is_another_number_in_another_pod() {
    let mut world = pair();
    let replica = "10.244.0.6";
    named(world.pod("a/db2", &[replica], &[("app", "db")]), "sql", Protocol::Tcp, 6000);
    named(world.pod("a/db", &[DB], &[("app", "db")]), "sql", Protocol::Tcp, 5432);
    named(world.pod("a/db3", &["10.244.0.7"], &[("app", "db")]), "sql", Protocol::Udp, 5432);
    let ports = json!([{"port": "sql"}]);
    world.policy("a/in", json!({"podSelector": select("db"), "ingress": [{"ports": ports}]}));
    let to = json!([{"ports": ports}]);
    world.policy("a/out", json!({"podSelector": select("web"), "policyTypes": ["Egress"], "egress": to}));
    let d = world.compile();
    for (dst, open) in [(DB, vec![5432]), (replica, vec![6000]), ("10.244.0.7", vec![]), (OUTSIDE, vec![])] {
        let found: Vec<u16> = [5432, 6000].into_iter().filter(|&port| tcp(&d, WEB, dst, port)).collect();
        assert_eq!(found, open, "{dst}");
        let side = judge(&d, &tuple(WEB, dst, proto::TCP, 5432)).egress;
        assert_eq!(matches!(side, Side::Allowed(_)), dst == DB, "{dst}");
    }
    let ingress = |dst, port| judge(&d, &tuple(OUTSIDE, dst, proto::TCP, port)).ingress.passes();
    assert!(ingress(DB, 5432) && !ingress(DB, 6000) && ingress(replica, 6000));
    assert!(!ingress("10.244.0.7", 5432), "the name is of another protocol there");
    assert!(!passes(&d, WEB, "10.244.0.7", proto::UDP, 5432));
}

#[test]
fn a_named_port_on_egress_counts_on_the_peers_of_its_rule_only() {
    let mut world = pair();
    named(world.pod("a/db", &[DB], &[("app", "db")]), "sql", Protocol::Tcp, 5432);
    let rule = json!({"to": [{"podSelector": select("db")}], "ports": [{"port": "sql"}, {"port": 80}]});
    world.policy("a/out", json!({"podSelector": select("web"), "policyTypes": ["Egress"], "egress": [rule]}));
    let before = world.compile();
    named(world.pod("b/sql", &["10.244.0.9"], &[]), "sql", Protocol::Tcp, 7000);
    let d = world.compile();
    assert!(tcp(&d, WEB, DB, 5432) && tcp(&d, WEB, DB, 80));
    assert!(!tcp(&d, WEB, "10.244.0.9", 7000) && !tcp(&d, WEB, DB, 7000));
    assert_eq!(before.endpoints[&addr(WEB)], d.endpoints[&addr(WEB)], "a stranger's port is no new set");
}

#[test]
fn nested_blocks_may_have_different_ports() {
    let mut world = pair();
    let rule =
        |cidr: &str, port: u16| json!({"from": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": port}]});
    let rules = json!([rule("10.0.0.0/8", 80), rule("10.5.0.0/16", 81), rule("10.5.5.5/32", 82)]);
    world.policy("a/p", json!({"podSelector": select("db"), "ingress": rules}));
    let d = world.compile();
    for (src, open) in [
        ("10.1.1.1", vec![80]),
        ("10.5.1.1", vec![80, 81]),
        ("10.5.5.5", vec![80, 81, 82]),
        (OUTSIDE, vec![]),
    ] {
        let found: Vec<u16> = (80..=82).filter(|&port| tcp(&d, src, DB, port)).collect();
        assert_eq!(found, open, "{src}");
    }
}

#[test]
fn both_ends_must_agree_and_a_pod_may_always_reach_itself() {
    let mut world = pair();
    world.policy("a/all", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    world.policy("a/in", json!({"podSelector": select("db"), "ingress": [{}]}));
    let d = world.compile();
    assert!(!tcp(&d, WEB, DB, 1) && !tcp(&d, OUTSIDE, WEB, 1));
    assert!(tcp(&d, OUTSIDE, DB, 1), "the other policy allows it");
    assert!(tcp(&d, WEB, WEB, 1));
    world.policy("a/out", json!({"podSelector": select("web"), "policyTypes": ["Egress"], "egress": [{}]}));
    assert!(tcp(&world.compile(), WEB, DB, 1));
}

#[test]
fn c6_pods_in_the_nodes_network_are_matched_by_blocks_only() {
    let mut world = pair();
    let host = world.pod("a/host", &["192.0.2.1"], &[("app", "web")]);
    host.host_network = true;
    world.policy("a/p", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}));
    let d = world.compile();
    assert!(tcp(&d, WEB, DB, 1) && !tcp(&d, "192.0.2.1", DB, 1));
    assert!(!d.endpoints.contains_key(&addr("192.0.2.1")) && !d.pod_names.contains_key(&addr("192.0.2.1")));
    let from = json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]);
    world.policy("a/p", json!({"podSelector": {}, "ingress": from}));
    assert!(tcp(&world.compile(), "192.0.2.1", DB, 1));
}

#[test]
fn audited_policies_deny_nothing_and_say_what_they_would() {
    let mut world = pair();
    let rule = |port: u16| json!([{"ports": [{"port": port}]}]);
    world.policy("a/audited", json!({"podSelector": select("db"), "ingress": rule(81)})).audit = true;
    let sides = |d: &Desired, port| {
        let judged = judge(d, &tuple(WEB, DB, proto::TCP, port));
        (judged.ingress.passes(), judged.audited_ingress.passes())
    };
    let d = world.compile();
    assert_eq!([80, 81, 82].map(|port| sides(&d, port)), [(true, false), (true, true), (true, false)]);
    let policy = d.endpoints[&addr(DB)].policy;
    assert_eq!((policy.set.is_none(), policy.audit.is_none()), (true, false));
    world.policy("a/enforced", json!({"podSelector": select("db"), "ingress": rule(80)}));
    let d = world.compile();
    assert_eq!([80, 81, 82].map(|port| sides(&d, port)), [(true, true), (false, true), (false, false)]);
}

#[test]
fn the_first_rule_by_policy_and_index_is_named() {
    let mut world = pair();
    let web = json!([{"podSelector": select("web")}]);
    world.policy("a/2", json!({"podSelector": select("db"), "ingress": [{"from": web}]}));
    world.policy(
        "a/1",
        json!({"podSelector": select("db"), "ingress": [{"ports": [{"port": 9}], "from": web},
        {"from": web, "ports": [{"port": 80}]}, {"from": web, "ports": [{"port": 80}]}]}),
    );
    let d = world.compile();
    let by = |port| match judge(&d, &tuple(WEB, DB, proto::TCP, port)).ingress {
        Side::Allowed(allow) => (d.policies[&allow.policy].name.as_str().to_owned(), allow.rule),
        other => panic!("{other:?}"),
    };
    assert_eq!((by(80), by(81)), (("1".to_owned(), 1), ("2".to_owned(), 0)));
}

/// The order does not depend on how policies are found by the labels they need.
#[test]
fn the_first_policy_by_name_is_named_whatever_it_selects_by() {
    let mut world = pair();
    world.policy("a/1", json!({"podSelector": {}, "ingress": [{}]}));
    world.policy("a/2", json!({"podSelector": select("db"), "ingress": [{}]}));
    let d = world.compile();
    let Side::Allowed(allow) = judge(&d, &tuple(WEB, DB, proto::TCP, 1)).ingress else { panic!("denied") };
    assert_eq!(d.policies[&allow.policy].name.as_str(), "1");
}

/// The same place in both lists of rules: a port number of the peers is not one of the pod itself.
#[test]
fn a_named_port_of_both_directions_is_found_in_each() {
    let mut world = pair();
    named(world.pod("a/db", &[DB], &[("app", "db")]), "sql", Protocol::Tcp, 5432);
    named(world.pod("a/web", &[WEB], &[("app", "web")]), "sql", Protocol::Tcp, 7000);
    let rules = json!([{"ports": [{"port": "sql"}]}]);
    world.policy(
        "a/p",
        json!({"podSelector": select("db"), "policyTypes": ["Ingress", "Egress"],
        "ingress": rules, "egress": rules}),
    );
    let d = world.compile();
    assert!(tcp(&d, OUTSIDE, DB, 5432) && !tcp(&d, WEB, DB, 7000));
    assert!(tcp(&d, DB, WEB, 7000) && !tcp(&d, DB, WEB, 5432) && !tcp(&d, DB, OUTSIDE, 7000));
}
