//! Policies and maps that are too small for them: which packets pass, and what lbr reports.

use std::net::IpAddr;

use lbr_common::id::PolicySetId;
use lbr_common::policy::policy_flags;
use lbr_common::tuple::{Tuple, proto};
use serde_json::{Value, json};

use super::*;
use crate::cluster::Change;
use crate::dataplane::fake::Fake;
use crate::engine::Engine;
use crate::model::{Kind, Object, Pod, netpol};
use crate::policy::judge::judge;
use crate::table::Outcome;

/// An agent on maps that can be made small.
struct World {
    engine: Engine,
    fake: Fake,
}

const WEB: &str = "10.1.0.1";
const CLIENT: &str = "10.1.0.2";

impl World {
    /// Two pods of this node: `web` and `client`.
    fn new() -> Self {
        let mut fake = Fake::new(0).with_faults(0);
        let node = NodeView { name: "here".to_owned(), ..NodeView::default() };
        let mut engine = Engine::start(node, &mut fake).unwrap();
        for kind in Kind::ALL {
            engine.take(Change::Synced(kind));
        }
        let mut world = Self { engine, fake };
        world.pod("web", WEB);
        world.pod("client", CLIENT);
        assert!(world.write().is_converged());
        world
    }

    fn pod(&mut self, name: &str, ip: &str) {
        let pod = Pod {
            name: object_name(name),
            labels: [("app".to_owned(), name.to_owned())].into(),
            ips: vec![ip.parse().unwrap()],
            node: "here".to_owned(),
            ..Pod::default()
        };
        self.engine.take(Change::Apply(Object::Pod(pod)));
    }

    /// A policy for `web`. `mode` is `enforce` or `audit`.
    fn policy(&mut self, name: &str, mode: &str, spec: Value) {
        let mut spec = spec;
        spec["podSelector"] = json!({"matchLabels": {"app": "web"}});
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "ns", "annotations": {"lbr.dev/mode": mode}}, "spec": spec,
        });
        let policy = netpol::from_api(serde_json::from_value(object).unwrap()).object.unwrap();
        self.engine.take(Change::Apply(Object::NetworkPolicy(policy)));
    }

    /// One round of the agent, as after a change.
    fn write(&mut self) -> Outcome {
        self.engine.compile(&mut self.fake);
        self.engine.write(&mut self.fake)
    }

    fn is_without_room(&self, name: &str) -> bool {
        self.engine.without_room().contains_key(&object_name(name))
    }

    fn rejected(&self) -> Vec<String> {
        let tables = self.fake.in_force();
        let text =
            |r: &lbr_common::text::RejectedRecord| format!("{}: {}", r.object.as_str(), r.reason.as_str());
        tables.rejected.values().map(text).collect()
    }

    /// Whether TCP from here to `web` passes.
    fn passes(&self, from: &str, port: u16) -> bool {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
        let tuple =
            Tuple { src: addr(from), dst: addr(WEB), dst_port: port, proto: proto::TCP, ..Tuple::default() };
        judge(&self.fake.in_force(), &tuple).passes()
    }
}

fn object_name(name: &str) -> ObjectName {
    ObjectName::new("ns", name.to_owned())
}

/// Allows each of these ports from everywhere by a rule of its own: an entry of both maps for each.
fn ports(ports: &[u16]) -> Value {
    let rules: Vec<Value> = ports.iter().map(|port| json!({"ports": [{"port": port}]})).collect();
    json!({"ingress": rules})
}

fn many() -> Value {
    ports(&(0..100).map(|n| 1000 + 2 * n).collect::<Vec<_>>())
}

fn block(cidr: &str, except: &[&str]) -> Value {
    json!({"ingress": [{"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}]})
}

#[test]
fn a_new_policy_without_room_isolates_and_the_others_stay() {
    let mut world = World::new();
    world.policy("small", "enforce", ports(&[80]));
    assert!(world.write().is_converged());
    let set =
        |world: &World| world.fake.in_force().endpoints[&WEB.parse::<IpAddr>().unwrap().into()].policy.set;
    let before = set(&world);
    world.fake.set_max_entries("port_class", 20);
    world.policy("many", "enforce", many());
    world.write();
    assert!(world.is_without_room("many") && !world.is_without_room("small"));
    assert_eq!((set(&world), world.passes(CLIENT, 80), world.passes(CLIENT, 1000)), (before, true, false));
    let said = world.rejected();
    assert!(said[0].starts_with("NetworkPolicy ns/many: map port_class is full (20 entries)"), "{said:?}");
    assert!(said[0].ends_with("it allows nothing"), "{said:?}");

    world.fake.set_max_entries("port_class", 1000);
    assert!(world.write().is_converged());
    assert_eq!((world.passes(CLIENT, 80), world.passes(CLIENT, 1000)), (true, true));
    assert_eq!(world.rejected(), [""; 0]);
}

#[test]
fn the_only_policy_without_room_closes_the_pod() {
    let mut world = World::new();
    world.fake.set_max_entries("verdicts", 20);
    world.policy("many", "enforce", many());
    world.write();
    assert!(world.is_without_room("many"));
    assert!(!world.passes(CLIENT, 1000) && !world.passes(CLIENT, 80));
}

#[test]
fn an_update_without_room_leaves_the_last_version_in_force_until_it_fits() {
    let mut world = World::new();
    world.policy("p", "enforce", ports(&[80, 81]));
    world.policy("q", "enforce", ports(&[90]));
    assert!(world.write().is_converged());
    world.fake.set_max_entries("verdicts", 30);
    world.policy("p", "enforce", many());
    world.policy("q", "enforce", ports(&[91]));
    world.write();
    let passes = |world: &World| [80, 81, 90, 91, 1000].map(|port| world.passes(CLIENT, port));
    assert_eq!(passes(&world), [true, true, false, true, false], "p is what it was, q is new");
    assert!(world.is_without_room("p") && !world.is_without_room("q"));
    assert!(world.rejected()[0].contains("its last version that fitted stays in force"));
    // However often it is tried.
    let generation = world.fake.generation();
    for _ in 0..3 {
        world.write();
        assert_eq!(passes(&world), [true, true, false, true, false]);
    }
    assert_eq!(world.fake.generation(), generation, "trying again changes nothing");

    world.policy("p", "enforce", ports(&[82]));
    assert!(world.write().is_converged());
    assert!(world.passes(CLIENT, 82) && !world.passes(CLIENT, 80));
}

#[test]
fn an_update_without_room_isolates_the_pods_that_it_selects_now() {
    let mut world = World::new();
    world.policy("p", "enforce", json!({"policyTypes": ["Egress"]}));
    assert!(world.write().is_converged());
    assert!(world.passes(CLIENT, 80));
    world.fake.set_max_entries("port_class", 20);
    world.policy("p", "enforce", many());
    world.write();
    assert!(world.is_without_room("p"));
    assert!(!world.passes(CLIENT, 80) && !world.passes(CLIENT, 1000));
    let flags = world.fake.in_force().endpoints[&WEB.parse::<IpAddr>().unwrap().into()].policy.flags;
    assert_eq!(flags, policy_flags::POD | policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT);
}

#[test]
fn a_block_without_room_does_not_take_the_class_of_the_one_around_it() {
    let mut world = World::new();
    world.policy("p", "enforce", block("10.0.0.0/8", &[]));
    world.fake.set_max_entries("cidr_class", 1);
    assert!(world.write().is_converged());
    assert!(world.passes("10.9.0.1", 80));
    // The exceptions need entries of their own.
    world.policy("q", "enforce", block("192.168.0.0/16", &["192.168.1.0/24"]));
    world.write();
    assert!(world.is_without_room("q") && !world.is_without_room("p"));
    assert_eq!(
        ["10.9.0.1", "192.168.0.1", "192.168.1.1"].map(|from| world.passes(from, 80)),
        [true, false, false]
    );
    world.policy("p", "enforce", block("10.0.0.0/8", &["10.9.0.0/16"]));
    world.write();
    assert!(world.passes("10.9.0.1", 80), "its last version that fitted");

    world.fake.set_max_entries("cidr_class", 4);
    assert!(world.write().is_converged());
    let froms = ["10.8.0.1", "10.9.0.1", "192.168.0.1", "192.168.1.1"];
    assert_eq!(froms.map(|from| world.passes(from, 80)), [true, false, true, false]);
}

#[test]
fn an_audited_policy_without_room_audits_what_it_did_or_nothing() {
    let mut world = World::new();
    world.policy("p", "audit", ports(&[80]));
    assert!(world.write().is_converged());
    let flags = |world: &World| {
        let endpoint = world.fake.in_force().endpoints[&WEB.parse::<IpAddr>().unwrap().into()];
        (endpoint.policy.flags, endpoint.policy.audit)
    };
    let before = flags(&world);
    assert_eq!(before.0, policy_flags::POD | policy_flags::AUDIT_IN);
    world.fake.set_max_entries("verdicts", 20);
    world.policy("p", "audit", many());
    world.policy("q", "audit", many());
    world.write();
    assert!(world.is_without_room("p") && world.is_without_room("q"));
    assert_eq!(flags(&world), before);
    assert!(world.passes(CLIENT, 1));
}

/// No policy changed, but a new pod needs a set of its own.
#[test]
fn where_no_policy_is_to_blame_the_pod_closes() {
    let mut world = World::new();
    world.policy("p", "enforce", ports(&[80]));
    assert!(world.write().is_converged());
    let p = json!({"ingress": [{"ports": [{"port": "http"}, {"port": 80}]}]});
    world.policy("named", "enforce", p);
    assert!(world.write().is_converged());
    let tables = world.fake.in_force();
    let (map, used) = ("verdicts", u32::try_from(tables.verdicts.len()).unwrap());
    world.fake.set_max_entries(map, used);
    world.pod("other", "10.1.0.3");
    let mut pod = world.engine.state().pods[&object_name("other")].clone();
    pod.labels = [("app".to_owned(), "web".to_owned())].into();
    pod.named_ports = [(("http".to_owned(), crate::model::Protocol::Tcp), 8080)].into();
    world.engine.take(Change::Apply(Object::Pod(pod)));
    let outcome = world.write();
    assert_eq!(
        outcome.problems.iter().map(|p| (p.map, p.key.as_str())).collect::<Vec<_>>(),
        [(map, "NetworkPolicy ns/named, ns/p")]
    );
    assert!(world.engine.without_room().is_empty());
    assert!(world.passes(CLIENT, 80));
    let other = world.fake.in_force().endpoints[&"10.1.0.3".parse::<IpAddr>().unwrap().into()].policy;
    assert_eq!((other.set, other.flags), (PolicySetId::NONE, policy_flags::POD | policy_flags::ISOLATED_IN));
}
