//! Which numbers stay, which change, and that nothing changes in place.

use std::collections::BTreeSet;

use lbr_common::id::PolicySetId;
use lbr_common::policy::class;

use super::*;

/// A change may remove or add entries that no packet reaches, and must not alter one in place.
pub(super) fn assert_make_before_break(old: &Desired, new: &Desired) {
    for (key, allow) in &old.verdicts {
        assert!(new.verdicts.get(key).is_none_or(|now| now == allow), "{key:?}");
    }
    for (key, class) in &old.port_class {
        assert!(new.port_class.get(key).is_none_or(|now| now == class), "{key:?}");
    }
    for (id, class) in &old.classes {
        assert!(new.classes.get(id).is_none_or(|now| now.hash == class.hash), "class {id}");
    }
    for (id, policy) in &old.policies {
        assert!(new.policies.get(id).is_none_or(|now| now.name == policy.name), "policy {id}");
    }
    // A set that both states share may differ by classes that only one of them has.
    let sets = |d: &Desired| d.set_members.keys().map(|key| key.set).collect::<BTreeSet<_>>();
    let shared: BTreeSet<PolicySetId> = sets(old).intersection(&sets(new)).copied().collect();
    for (a, b) in [(old, new), (new, old)] {
        for key in a.verdicts.keys().filter(|key| shared.contains(&key.set)) {
            let gone = !b.classes.contains_key(&key.class) && key.class != class::ANY;
            assert!(gone || b.verdicts.contains_key(key), "{key:?}");
        }
        for key in a.port_class.keys().filter(|key| shared.contains(&key.data.set)) {
            assert!(b.port_class.contains_key(key), "{key:?}");
        }
    }
}

fn world() -> World {
    let mut world = World::new();
    for (n, app) in (2..).zip(["web", "web", "db", "db", "job"]) {
        let pod = world.pod(&format!("a/{app}{n}"), &[&format!("10.244.0.{n}")], &[("app", app)]);
        named(pod, "http", Protocol::Tcp, 8080);
    }
    let web = json!([{"podSelector": {"matchLabels": {"app": "web"}}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]);
    let db = json!([{"podSelector": {"matchLabels": {"app": "db"}}}]);
    world.policy(
        "a/db",
        json!({"podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": web, "ports": [{"port": 80}, {"port": "http"}]}]}),
    );
    world.policy(
        "a/web",
        json!({"podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress", "Egress"],
        "egress": [{"to": db, "ports": [{"port": "http"}]}]}),
    );
    world
}

#[test]
fn the_same_state_gives_the_same_tables_also_after_a_restart() {
    let mut world = world();
    world.policy("a/audited", json!({"podSelector": {}})).audit = true;
    let first = world.compile();
    assert_eq!(world.compile(), first);
    // Other numbers than those that a new agent would count to.
    world.policy("a/db", json!({"podSelector": {}}));
    world.compile();
    world.policy("a/zz", json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}));
    let before = world.compile();
    assert_ne!(before.set_members, World { ids: Ids::new(), ..world.clone() }.compile().set_members);
    world.ids = Ids::restore(&before);
    assert_eq!(world.compile(), before);
    // Content that is new after the restart has numbers far from those of before.
    world.policy("a/zzz", json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {}}]}]}));
    let after = world.compile();
    assert_make_before_break(&before, &after);
    assert!(after.set_members.keys().all(|key| key.set.id > 1 << 16));
}

#[test]
fn a_changed_policy_is_a_new_set_for_its_pods_alone() {
    let mut world = world();
    let before = world.compile();
    world.policy(
        "a/db",
        json!({"podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"ports": [{"port": 81}]}]}),
    );
    let after = world.compile();
    assert_make_before_break(&before, &after);
    let set = |d: &Desired, ip: &str| d.endpoints[&addr(ip)].policy.set;
    assert_eq!(set(&before, "10.244.0.2"), set(&after, "10.244.0.2"));
    assert_ne!(set(&before, "10.244.0.4"), set(&after, "10.244.0.4"));
    assert_eq!(set(&after, "10.244.0.4"), set(&after, "10.244.0.5"), "replicas share one");
    assert_eq!(before.policies.keys().collect::<Vec<_>>(), after.policies.keys().collect::<Vec<_>>());
}

#[test]
fn replicas_share_a_set_unless_a_named_port_differs() {
    let mut world = world();
    named(world.state.pods.get_mut(&object_name("a/db5")).unwrap(), "http", Protocol::Tcp, 9090);
    let d = world.compile();
    let set = |ip: &str| d.endpoints[&addr(ip)].policy.set;
    assert_eq!(set("10.244.0.2"), set("10.244.0.3"));
    assert_ne!(set("10.244.0.4"), set("10.244.0.5"));
    assert_eq!(set("10.244.0.6"), PolicySetId::NONE);
    world.ids = Ids::restore(&d);
    assert_eq!(world.compile(), d, "a new agent can tell them apart");
    // A missing port is not any port.
    named(world.state.pods.get_mut(&object_name("a/db4")).unwrap(), "http", Protocol::Tcp, 1);
    world.state.pods.get_mut(&object_name("a/db5")).unwrap().named_ports.clear();
    let d = world.compile();
    assert!(tcp(&d, "10.0.0.9", "10.244.0.4", 1) && !tcp(&d, "10.0.0.9", "10.244.0.5", 1));
}

#[test]
fn a_relabelled_pod_moves_alone() {
    let mut world = world();
    // Another pod stays as it is, so that the class stays, too.
    named(world.pod("a/job7", &["10.244.0.7"], &[("app", "job")]), "http", Protocol::Tcp, 8080);
    let before = world.compile();
    let job = world.state.pods.get_mut(&object_name("a/job6")).unwrap();
    job.labels.insert("app".into(), "other".into());
    assert_eq!(world.compile(), before, "it is no peer of any rule with either label");
    let job = world.state.pods.get_mut(&object_name("a/job6")).unwrap();
    // As a peer it gets the class of `web`; it is no pod of this node.
    job.node = "there".into();
    let before = world.compile();
    let job = world.state.pods.get_mut(&object_name("a/job6")).unwrap();
    job.labels.insert("app".into(), "web".into());
    let mut after = world.compile();
    let web = before.ip_class[&addr("10.244.0.2")];
    assert_ne!(before.ip_class.get(&addr("10.244.0.6")), Some(&web));
    assert_eq!(after.ip_class.insert(addr("10.244.0.6"), before.ip_class[&addr("10.244.0.6")]), Some(web));
    assert_eq!((&after.ip_class, &after.verdicts), (&before.ip_class, &before.verdicts));
    assert_eq!((&after.endpoints, &after.set_members), (&before.endpoints, &before.set_members));
}

#[test]
fn without_policies_nothing_but_names_is_left() {
    let mut world = world();
    world.compile();
    world.state.policies.clear();
    let d = world.compile();
    assert!(d.policies.is_empty() && d.rules.is_empty() && d.set_members.is_empty() && d.classes.is_empty());
    assert!(d.verdicts.is_empty() && d.port_class.is_empty() && d.ip_class.is_empty());
    assert!(d.cidr_class.is_empty() && d.endpoints.len() == 5);
    world.state.pods.clear();
    assert_eq!(world.compile(), Desired::default());
}

/// A policy for every pod with these ingress and egress rules.
fn both_ways(ingress: Value, egress: Value) -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress})
}

/// Contents of a policy, each a little different from another.
fn contents() -> Vec<Value> {
    let select = |key: &str, operator: &str, values: &[&str]| match values {
        [] => json!({"matchExpressions": [{"key": key, "operator": operator}]}),
        _ => json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}),
    };
    let selectors = vec![
        json!({}),
        select("a", "In", &["b"]),
        select("a", "In", &["c"]),
        select("a", "In", &["b", "c"]),
        select("a", "In", &["bc"]),
        select("a", "In", &["a", "bc"]),
        select("a", "In", &["ab", "c"]),
        select("ab", "In", &["c"]),
        select("a", "NotIn", &["b"]),
        select("a", "NotIn", &["c"]),
        select("a", "Exists", &[]),
        select("a", "DoesNotExist", &[]),
        select("b", "Exists", &[]),
    ];
    let mut peers: Vec<Value> = selectors.iter().map(|s| json!({"podSelector": s})).collect();
    peers.extend(selectors.iter().map(|s| json!({"namespaceSelector": s})));
    peers.extend(selectors[1..].iter().map(|s| json!({"namespaceSelector": {}, "podSelector": s})));
    for except in
        [json!([]), json!(["10.1.0.0/16"]), json!(["10.1.0.0/17"]), json!(["10.1.0.0/16", "10.2.0.0/16"])]
    {
        peers.push(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": except}}));
    }
    peers.push(json!({"ipBlock": {"cidr": "10.0.0.0/9"}}));
    let ports = [
        json!({}),
        json!({"protocol": "UDP"}),
        json!({"port": 80}),
        json!({"port": 81}),
        json!({"port": 80, "endPort": 81}),
        json!({"port": 80, "protocol": "UDP"}),
        json!({"port": "http"}),
        json!({"port": "htt"}),
        json!({"port": "http", "protocol": "SCTP"}),
    ];
    let mut rules: Vec<Value> = peers.iter().map(|peer| json!({"from": [peer]})).collect();
    rules.extend(ports.iter().map(|port| json!({"ports": [port]})));
    rules.extend([json!({}), json!({"from": [peers[0], peers[1]]}), json!({"ports": [ports[2], ports[3]]})]);
    let mut contents: Vec<Value> = rules.iter().map(|rule| both_ways(json!([rule]), json!([]))).collect();
    contents.extend([
        both_ways(json!([]), json!([])),
        both_ways(json!([]), json!([{}])),
        both_ways(json!([{}]), json!([{}])),
        both_ways(json!([{}, {}]), json!([])),
    ]);
    contents
}

/// An entry that packets can reach keeps its meaning, even for an agent that has only the hashes.
#[test]
fn another_content_is_another_set() {
    let contents = contents();
    let mut hashes = BTreeSet::new();
    for (number, content) in contents.iter().enumerate() {
        let mut world = world();
        world.policy("a/db", content.clone());
        let before = world.compile();
        let set = before.endpoints[&addr("10.244.0.6")].policy.set;
        let member = before.set_members.iter().find(|(key, _)| key.set == set).unwrap().1;
        assert!(hashes.insert(member.hash), "{content}: the hash of another");
        let next = &contents[(number + 1) % contents.len()];
        for restarts in [false, true] {
            let mut world = world.clone();
            if restarts {
                world.ids = Ids::restore(&before);
            }
            world.policy("a/db", next.clone());
            let after = world.compile();
            assert_make_before_break(&before, &after);
            assert_ne!(after.endpoints[&addr("10.244.0.6")].policy.set, set, "{content} and {next}");
        }
    }
}

#[test]
fn a_named_port_that_moves_on_the_peers_is_another_set() {
    let mut world = world();
    let before = world.compile();
    for pod in ["a/db4", "a/db5"] {
        named(world.state.pods.get_mut(&object_name(pod)).unwrap(), "http", Protocol::Tcp, 9090);
    }
    let after = world.compile();
    assert_make_before_break(&before, &after);
    let set = |d: &Desired| d.endpoints[&addr("10.244.0.2")].policy.set;
    assert_ne!(set(&before), set(&after));
}

#[test]
fn order_and_repetition_say_nothing() {
    let mut world = world();
    let app = |values: &[&str]| json!({"key": "app", "operator": "In", "values": values});
    let block = |except: &[&str]| json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": except}});
    let pods = |expressions: Value| json!({"podSelector": {"matchExpressions": expressions}});
    let exists = json!({"key": "tier", "operator": "DoesNotExist"});
    let [first, second] = [pods(json!([app(&["web"]), exists])), block(&["10.1.0.0/16", "10.2.0.0/16"])];
    let spec =
        |from: Value| json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"from": from}]});
    world.policy("a/db", spec(json!([first, second])));
    let before = world.compile();
    let again = pods(json!([exists, app(&["web"]), exists]));
    let except = block(&["10.2.0.0/16", "10.1.0.0/16", "10.2.0.0/16"]);
    world.policy("a/db", spec(json!([except, again, second, first])));
    let after = world.compile();
    assert_eq!((&after.endpoints, &after.ip_class), (&before.endpoints, &before.ip_class));
    assert_eq!((&after.cidr_class, &after.verdicts), (&before.cidr_class, &before.verdicts));
    // Terms that another policy uses first keep their number, and so do sets made of them.
    world.policy(
        "a/aa",
        json!({"podSelector": {"matchLabels": {"app": "job"}}, "ingress": [{"from": [second]}]}),
    );
    let after = world.compile();
    for ip in ["10.244.0.2", "10.244.0.4"] {
        assert_eq!(after.endpoints[&addr(ip)], before.endpoints[&addr(ip)], "{ip}");
        assert_eq!(after.ip_class[&addr(ip)], before.ip_class[&addr(ip)], "{ip}");
    }
}
