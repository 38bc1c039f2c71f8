//! Random histories: what a change makes of the tables must be what all of the cluster makes of them.

use super::random::Random;
use super::*;
use crate::cluster::Change;
use crate::dataplane::fake::Fake;
use crate::engine::Engine;
use crate::model::{Kind, Object, ObjectRef};

/// The changes from one state to another.
fn changes(before: &ClusterState, after: &ClusterState) -> Vec<Change> {
    let mut changes = Vec::new();
    for (kind, gone) in [
        (Kind::Pod, missing(&before.pods, &after.pods)),
        (Kind::Namespace, missing(&before.namespaces, &after.namespaces)),
        (Kind::NetworkPolicy, missing(&before.policies, &after.policies)),
    ] {
        changes.extend(gone.into_iter().map(|name| Change::Delete(ObjectRef { kind, name })));
    }
    let policies = after.policies.values().cloned().map(Arc::unwrap_or_clone).map(Object::NetworkPolicy);
    let pods = after.pods.values().cloned().map(Object::Pod);
    let namespaces = after.namespaces.values().cloned().map(Object::Namespace);
    // Those that did not change have no effect.
    changes.extend(policies.chain(pods).chain(namespaces).map(Change::Apply));
    changes
}

fn missing<V>(before: &BTreeMap<ObjectName, V>, after: &BTreeMap<ObjectName, V>) -> Vec<ObjectName> {
    before.keys().filter(|name| !after.contains_key(*name)).cloned().collect()
}

fn engine(fake: &mut Fake) -> Engine {
    let node = NodeView { name: "here".to_owned(), ..NodeView::default() };
    let mut engine = Engine::start(node, fake).unwrap();
    for kind in Kind::ALL {
        engine.take(Change::Synced(kind));
    }
    engine
}

#[test]
fn a_change_makes_the_tables_that_all_of_the_cluster_makes() {
    let mut random = Random(41);
    for history in 0..150 {
        let mut fake = Fake::new(history).with_faults(0);
        let (mut world, mut engine) = (World::new(), engine(&mut fake));
        for step in 0..30 {
            let before = world.state.clone();
            for _ in 0..=random.below(3) {
                random.change(&mut world);
            }
            for change in changes(&before, &world.state) {
                engine.take(change);
            }
            engine.compile(&mut fake);
            let (made, expected) = (engine.desired(), engine.from_scratch());
            assert!(made == expected, "history {history}, step {step}: {}", difference(&made, &expected));
            if random.below(3) == 0 {
                assert!(engine.write(&mut fake).is_converged());
                assert!(
                    fake.in_force() == engine.desired(),
                    "history {history}, step {step}: not in the maps"
                );
            }
        }
        let before = std::mem::take(&mut world.state);
        for change in changes(&before, &world.state) {
            engine.take(change);
        }
        engine.compile(&mut fake);
        assert!(engine.write(&mut fake).is_converged());
        assert!(engine.desired() == Desired::default(), "history {history}: something is left");
    }
}

/// The tables in which two differ, with some of the entries.
fn difference(made: &Desired, expected: &Desired) -> String {
    fn one<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
        name: &str,
        made: &BTreeMap<K, V>,
        expected: &BTreeMap<K, V>,
    ) -> Option<String> {
        let wrong = made.iter().filter(|(key, value)| expected.get(key) != Some(value)).take(3);
        let missing = expected.iter().filter(|(key, value)| made.get(key) != Some(value)).take(3);
        let (wrong, missing): (Vec<_>, Vec<_>) = (wrong.collect(), missing.collect());
        (made != expected).then(|| format!("{name}: {wrong:?}, and not {missing:?}"))
    }
    macro_rules! each {
        ($($table:ident)*) => {
            [$(one(stringify!($table), &made.$table, &expected.$table)),*]
        };
    }
    let all = each!(
        endpoints link_policy ip_class cidr_class classes port_class verdicts set_members policies rules pod_names rejected
    );
    all.into_iter().flatten().collect::<Vec<_>>().join("\n")
}
