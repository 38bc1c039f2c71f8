//! The content of the tables: endpoints, links, names, texts.

use lbr_common::id::ClassId;
use lbr_common::policy::{class, direction, policy_flags};
use lbr_common::text::policy_kind;

use super::super::rules_text::yaml;
use super::*;
use crate::model::{Node, Peer, PolicyRule};
use crate::node::links::LocalLink;

fn flags(d: &Desired, ip: &str) -> Option<(u32, u32)> {
    d.endpoints.get(&addr(ip)).map(|e| (e.ifindex, e.policy.flags))
}

#[test]
fn endpoints_are_pods_the_node_and_what_is_not_known_yet() {
    let mut world = World::new();
    let veth = |_: u32| LocalLink { name: String::new(), has_peer: true, master: None };
    let links = &mut world.node.links;
    links.links = [(5, veth(5)), (6, veth(6)), (7, veth(7))].into();
    links.routes = [("10.244.0.3/32".parse().unwrap(), 6)].into();
    let at = |ip: &str, link: u32| (ip.parse().unwrap(), link);
    links.addresses =
        [at("10.244.0.2", 5), at("10.244.0.9", 7), at("10.244.0.8", 99), at("10.244.1.4", 6)].into();
    // The bridge's link, shared with a pod without policies; one address behind it was learned.
    links.addresses.insert("fd00::5".parse().unwrap(), 5);
    links.node_addresses = ["192.0.2.1".parse().unwrap()].into();
    world.node.settings.node_ip = Some("192.0.2.4".parse().unwrap());
    let node = Node { name: "here".into(), addresses: vec!["192.0.2.2".parse().unwrap()], ..Node::default() };
    world.state.nodes.insert(ObjectName::cluster("here"), node.clone());
    world
        .state
        .nodes
        .insert(ObjectName::cluster("there"), Node { addresses: vec!["192.0.2.3".parse().unwrap()], ..node });
    world.pod("a/heard", &["10.244.0.2", "fd00::2"], &[]);
    world.pod("b/routed", &["10.244.0.3"], &[]);
    world.pod("b/second", &["10.244.0.5", "fd00::5"], &[]);
    world.pod("b/unlinked", &["10.244.0.4"], &[]);
    world.pod("b/away", &["10.244.1.4"], &[]).node = "there".to_owned();
    world.policy("a/deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let d = world.compile();
    let isolated = policy_flags::POD | policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT;
    for (ip, expected) in [
        ("10.244.0.2", Some((5, isolated))),
        ("fd00::2", Some((5, isolated))),
        ("10.244.0.3", Some((6, policy_flags::POD))),
        ("10.244.0.4", Some((0, policy_flags::POD))),
        ("10.244.0.5", Some((5, policy_flags::POD))),
        ("fd00::5", Some((5, policy_flags::POD))),
        ("10.244.1.4", None),
        ("10.244.0.9", Some((7, policy_flags::PENDING))),
        ("10.244.0.8", None),
        ("192.0.2.1", Some((0, policy_flags::NODE))),
        ("192.0.2.2", Some((0, policy_flags::NODE))),
        ("192.0.2.4", Some((0, policy_flags::NODE))),
        ("192.0.2.3", None),
    ] {
        assert_eq!(flags(&d, ip), expected, "{ip}");
    }
    assert_eq!(d.link_policy, [(5, isolated), (6, policy_flags::POD)].into());
    assert!(d.endpoints.values().all(|endpoint| endpoint.policy.audit.is_none()), "nothing is audited");
    let names: Vec<_> = d.pod_names.values().map(|n| n.name.as_str().to_owned()).collect();
    assert_eq!(names, ["heard", "routed", "unlinked", "second", "away", "heard", "second"]);
}

#[test]
fn a_pod_that_terminates_gives_its_address_to_the_next() {
    let mut world = World::new();
    world.pod("a/old", &["10.244.0.2"], &[("app", "web")]).terminating = true;
    world.pod("b/new", &["10.244.0.2"], &[]);
    world.pod("a/db", &["10.244.0.3"], &[("app", "db")]);
    let web = json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]);
    world.policy("a/p", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": web}));
    let d = world.compile();
    assert!(!tcp(&d, "10.244.0.2", "10.244.0.3", 1));
    assert_eq!(d.pod_names[&addr("10.244.0.2")].name.as_str(), "new");
    assert!(d.rejected.is_empty());
    world.state.pods.get_mut(&object_name("b/new")).unwrap().terminating = true;
    let d = world.compile();
    assert!(tcp(&d, "10.244.0.2", "10.244.0.3", 1), "now the first by name has it");
    let r = &d.rejected[&0];
    assert_eq!((r.object.as_str(), r.field.as_str()), ("Pod b/new", "status.podIPs"));
    assert!(r.reason.as_str().contains("Pod a/old"));
}

#[test]
fn labels_and_ports_that_no_policy_mentions_make_no_class() {
    let mut world = World::new();
    for n in 0..50 {
        let (ip, unique) = (format!("10.244.0.{n}"), format!("u{n}"));
        let pod = world.pod(&format!("a/p{n}"), &[&ip], &[("app", "web"), ("hash", &unique)]);
        named(pod, "metrics", Protocol::Tcp, 9000 + n);
    }
    let from = json!([{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]);
    let to = json!([{"ports": [{"port": "http"}]}]);
    world.policy("a/p", json!({"podSelector": {}, "ingress": from, "egress": to}));
    // The policy selects no pod here.
    let by_hash = json!([{"from": [{"podSelector": {"matchLabels": {"hash": "u1"}}}]}]);
    world.policy("a/q", json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": by_hash}));
    let d = world.compile();
    assert_eq!((d.classes.len(), d.ip_class.len(), d.verdicts.len()), (1, 50, 1));
    assert_eq!((d.policies.len(), d.set_members.len(), d.port_class.len()), (1, 1, 0));
    let record = d.classes[&class::FIRST];
    assert_eq!((record.pods, record.matches.as_str()), (50, "pods app=web in namespace a"));
}

#[test]
fn what_every_peer_may_is_stored_once() {
    let mut world = World::new();
    world.pod("a/web", &["10.244.0.2"], &[("app", "web")]);
    let from = json!([{"podSelector": {}}]);
    world.policy(
        "a/p",
        json!({"podSelector": {}, "ingress": [
        {"from": from, "ports": [{"port": 80}, {"port": 81}]}, {"ports": [{"port": 80}]}]}),
    );
    let d = world.compile();
    let classes: Vec<ClassId> = d.verdicts.keys().map(|key| key.class).collect();
    assert_eq!(classes, [class::ANY, class::FIRST]);
    // Of two rules for every peer, the first is reported.
    let rules = json!([{"ports": [{"port": 80}]}, {"ports": [{"port": 80}]}]);
    world.policy("a/p", json!({"podSelector": {}, "ingress": rules}));
    let rules: Vec<u32> = world.compile().verdicts.values().map(|allow| allow.rule).collect();
    assert_eq!(rules, [0]);
}

#[test]
fn a_range_costs_few_prefixes() {
    let mut world = World::new();
    world.pod("a/web", &["10.244.0.2"], &[]);
    let ports = json!([{"ports": [{"port": 1024, "endPort": 65535}]}]);
    world.policy("a/p", json!({"podSelector": {}, "ingress": ports}));
    assert_eq!(world.compile().port_class.len(), 6);
}

#[test]
fn people_can_read_what_is_in_force() {
    let mut world = World::new();
    world.namespace("a", &[("team", "x")]);
    named(world.pod("a/web", &["10.244.0.2"], &[("app", "web")]), "http", Protocol::Tcp, 8080);
    world.pod("a/two", &["10.244.0.3"], &[("app", "web")]);
    let expression = json!([{"key": "tier", "operator": "NotIn", "values": ["true", "b"]}]);
    let rules = json!([
        {},
        {"to": [
            {"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": {"matchLabels": {"app": "web"}}},
            {"podSelector": {"matchExpressions": expression}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ], "ports": [{"port": "http"}, {"port": 80, "endPort": 90}, {"protocol": "UDP"}]},
        {"to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "::/0"}}]},
    ]);
    let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules});
    world.policy("a/p", spec).audit = true;
    let d = world.compile();
    let of_block = d.classes.values().find(|class| class.matches.as_str().starts_with("block 10"));
    assert_eq!(of_block.map(|class| (class.pods, class.blocks)), Some((0, 1)));
    let record = d.policies[&1.into()];
    assert_eq!((record.namespace.as_str(), record.name.as_str(), record.pods), ("a", "p", 2));
    assert_eq!((record.ingress_rules, record.egress_rules), (0, 3));
    assert_eq!(record.kind, policy_kind::EGRESS | policy_kind::AUDIT);
    let texts: Vec<&str> = d.rules.values().map(|rule| rule.yaml.as_str()).collect();
    let second = "to:
- namespaceSelector:
    matchLabels:
      team: x
  podSelector:
    matchLabels:
      app: web
- podSelector:
    matchExpressions:
    - {key: tier, operator: NotIn, values: [b, \"true\"]}
- ipBlock:
    cidr: 10.0.0.0/8
    except:
    - 10.1.0.0/16
ports:
- protocol: TCP
  port: http
- protocol: TCP
  port: 80
  endPort: 90
- protocol: UDP";
    let third = "to:\n- namespaceSelector: {}\n- ipBlock:\n    cidr: \"::/0\"";
    assert_eq!(texts, ["{}", second, third]);
    let classes: Vec<&str> = d.classes.values().map(|class| class.matches.as_str()).collect();
    assert!(classes.contains(&"block 10.0.0.0/8 except 10.1.0.0/16"), "{classes:?}");
    let web = d.classes[&d.ip_class[&addr("10.244.0.2")]];
    assert_eq!(
        web.matches.as_str(),
        "all pods in all namespaces; block 10.0.0.0/8 except 10.1.0.0/16; pods app=web in namespaces team=x; \
         pods tier notin (b,true) in namespace a; port http=8080/TCP"
    );
}

/// The model rejects all of these objects; they must not stop the agent.
#[test]
fn odd_objects_are_survived() {
    use crate::model::{PolicyPort, PortSet, Requirement, Selector};
    let mut world = World::new();
    world.pod("a/web", &["10.244.0.2", "10.244.0.2", "::ffff:10.244.0.2"], &[("", "")]);
    let none = Selector { requirements: vec![Requirement::In(String::new(), [].into())] };
    let block = |cidr: &str, except: &[&str]| Peer::Block {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|e| e.parse().unwrap()).collect(),
    };
    let peers = vec![
        Peer::Both(none.clone(), none),
        block("10.0.0.0/8", &["10.0.0.0/8", "0.0.0.0/0", "::/0"]),
        block("::/0", &["::/0"]),
    ];
    let ports = [(0, 65535), (1, 65535), (9, 3), (0, 0), (65535, 65535)]
        .map(|(first, last)| PolicyPort { protocol: Protocol::Tcp, ports: PortSet::Range(first, last) });
    let rule = PolicyRule { peers, ports: ports.to_vec() };
    let policy = world.policy("a/p", json!({}));
    policy.ingress = Some(vec![rule.clone(), PolicyRule::default()]);
    policy.egress = Some(vec![rule]);
    let d = world.compile();
    assert!(tcp(&d, "10.0.0.1", "10.244.0.2", 9) && !tcp(&d, "10.244.0.2", "10.0.0.1", 9));
    world.policy("a/p", json!({})).ingress = None;
    assert!(world.compile().policies.is_empty(), "it isolates nothing");
    for (peers, ports) in
        [(vec![block("10.0.0.0/8", &["0.0.0.0/0"])], vec![]), (vec![], vec![ports[2].clone()])]
    {
        world.policy("a/p", json!({})).ingress = Some(vec![PolicyRule { peers, ports }]);
        assert!(!tcp(&world.compile(), "10.0.0.1", "10.244.0.2", 5), "nothing is left of it");
    }
    world.pod("a/web", &[], &[]);
    assert!(world.compile().policies.is_empty(), "it selects nothing with an address");
}

#[test]
fn both_directions_have_their_rules_in_order() {
    let mut world = World::new();
    world.pod("a/web", &["10.244.0.2"], &[]);
    let rules = |field: &str| json!([{}, {field: [{"podSelector": {}}], "ports": [{"port": 1}]}]);
    world.policy("a/p", json!({"podSelector": {}, "ingress": rules("from"), "egress": rules("to")}));
    let d = world.compile();
    let record = d.policies[&1.into()];
    assert_eq!(record.kind, policy_kind::INGRESS | policy_kind::EGRESS);
    let rules: Vec<_> = d
        .rules
        .iter()
        .map(|(key, text)| (key.direction, key.rule, text.yaml.as_str().split_once('\n')))
        .collect();
    let rest = "- podSelector: {}\nports:\n- protocol: TCP\n  port: 1";
    let [ingress, egress] = [direction::INGRESS, direction::EGRESS];
    let expected = [
        (ingress, 0, None),
        (ingress, 1, Some(("from:", rest))),
        (egress, 0, None),
        (egress, 1, Some(("to:", rest))),
    ];
    assert_eq!(rules, expected);
}

/// All names and values that are allowed, and some that are not.
#[test]
fn a_rule_reads_back_as_it_was() {
    let mut world = World::new();
    for text in
        ["web", "true", "No", "1e3", "7", "-", ".a", "a: b", "0x1f", "a b", "a#", "", "x.y/z-1_2", "é"]
    {
        let expressions = json!([
            {"key": "in", "operator": "In", "values": [text, "other"]},
            {"key": "in", "operator": "In", "values": [text]},
            {"key": "in", "operator": "In", "values": ["again"]},
            {"key": "not", "operator": "NotIn", "values": [text]},
            {"key": text, "operator": "Exists"}, {"key": "no", "operator": "DoesNotExist"},
        ]);
        let labels = json!({"a": text, "b": "2"});
        let mut selector = json!({"matchLabels": labels, "matchExpressions": expressions});
        if text.is_empty() {
            selector["matchExpressions"].as_array_mut().unwrap().remove(4);
        }
        let rule = json!({"from": [{"podSelector": selector}, {"namespaceSelector": selector}]});
        let mut rules =
            |rule: Value| world.policy("a/p", json!({"ingress": [rule]})).ingress.clone().unwrap();
        let before = rules(rule);
        let shown = yaml(&before[0], "from");
        assert!(shown.contains("\n      b: \"2\"\n"), "{shown}");
        let again = rules(serde_saphyr::from_str(&shown).unwrap());
        assert_eq!(sorted(again), sorted(before), "{shown}");
    }
}

/// Without the order of requirements, which has no meaning.
fn sorted(mut rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    for peer in rules.iter_mut().flat_map(|rule| &mut rule.peers) {
        if let Peer::Pods(selector) | Peer::Namespaces(selector) = peer {
            selector.requirements.sort();
        }
    }
    rules
}
