//! Events in a cluster.

use serde_json::{Value, json};

use super::generate::{self, NAMESPACE_KEYS, NAMESPACES, NODE, POD_KEYS, labels};
use super::history::reference;
use super::random::Random;
use super::{Case, policies};

/// Names of pods, and of policies in each namespace: few, so that they recur.
const PODS: usize = 10;
const POLICIES: usize = 7;
/// Attempts until an event is possible.
const TRIES: usize = 20;

/// One event, never one for which the specification has no answer.
pub(super) fn step(random: &mut Random, case: &mut Case) {
    for _ in 0..TRIES {
        let mut next = case.clone();
        event(random, &mut next);
        if next != *case && generate::is_valid(&next) {
            *case = next;
            return;
        }
    }
}

fn event(random: &mut Random, case: &mut Case) {
    match random.below(100) {
        0..12 => create_pod(random, case),
        12..20 => delete(random, case, "Pod"),
        20..32 => edit(random, case, "Pod", |random, pod| relabel(random, pod, &POD_KEYS)),
        32..38 => edit(random, case, "Pod", |random, pod| {
            pod["status"]["phase"] = random.pick(&["Running", "Succeeded", "Failed"]).into();
        }),
        38..42 => edit(random, case, "Pod", |_, pod| {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }),
        42..50 => reuse_address(random, case),
        50..58 => edit(random, case, "Namespace", |random, object| relabel(random, object, &NAMESPACE_KEYS)),
        58..72 => {
            let number = random.below(POLICIES);
            let policy = policies::valid_policy(random, case, number);
            put(case, policy);
        }
        72..78 => delete(random, case, "NetworkPolicy"),
        78..84 => edit(random, case, "NetworkPolicy", flip_mode),
        84..92 => change_policy(random, case),
        92..94 => {
            let name = random.pick(&NAMESPACES);
            let namespace = generate::namespace(random, name);
            put(case, namespace);
        }
        94..95 => {
            let name = random.pick(&NAMESPACES);
            let inside = |o: &Value| o["metadata"]["namespace"] == name;
            case.objects
                .retain(|o| !(inside(o) || o["kind"] == "Namespace" && o["metadata"]["name"] == name));
        }
        _ => case.node = generate::node_view(random, case),
    }
}

/// Replaces the object with the same name, or adds it.
fn put(case: &mut Case, object: Value) {
    match case.objects.iter_mut().find(|other| reference(other) == reference(&object)) {
        Some(other) => *other = object,
        None => case.objects.push(object),
    }
}

fn of_kind(random: &mut Random, case: &Case, kind: &str) -> Option<usize> {
    let all: Vec<_> = (0..case.objects.len()).filter(|&i| case.objects[i]["kind"] == kind).collect();
    (!all.is_empty()).then(|| random.pick(&all))
}

fn delete(random: &mut Random, case: &mut Case, kind: &str) {
    if let Some(i) = of_kind(random, case, kind) {
        case.objects.remove(i);
    }
}

fn edit(random: &mut Random, case: &mut Case, kind: &str, change: impl Fn(&mut Random, &mut Value)) {
    if let Some(i) = of_kind(random, case, kind) {
        change(random, &mut case.objects[i]);
    }
}

fn create_pod(random: &mut Random, case: &mut Case) {
    let number = random.below(PODS);
    let pod = generate::pod(random, &NAMESPACES, number);
    put(case, pod);
    if random.chance(70) {
        case.node = generate::node_view(random, case);
    }
}

fn relabel(random: &mut Random, object: &mut Value, keys: &[&str]) {
    object["metadata"]["labels"] = labels(random, keys).into();
}

/// A pod of this node ends, terminates or is gone, and another one gets its addresses at once.
fn reuse_address(random: &mut Random, case: &mut Case) {
    let Some(i) = of_kind(random, case, "Pod") else { return };
    let old = &mut case.objects[i];
    if old["spec"]["hostNetwork"] == true || old["spec"]["nodeName"] != NODE {
        return;
    }
    let status =
        json!({"phase": "Running", "podIP": old["status"]["podIP"], "podIPs": old["status"]["podIPs"]});
    let number = random.below(PODS);
    let mut new = generate::pod(random, &NAMESPACES, number);
    new["spec"]["nodeName"] = NODE.into();
    new["spec"]["hostNetwork"] = false.into();
    new["status"] = status;
    match random.below(3) {
        0 => old["status"]["phase"] = "Succeeded".into(),
        1 => old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
        _ => drop(case.objects.remove(i)),
    }
    put(case, new);
}

fn flip_mode(_: &mut Random, policy: &mut Value) {
    let metadata = &mut policy["metadata"];
    let mode = if metadata["annotations"]["lbr.dev/mode"] == "audit" { "enforce" } else { "audit" };
    metadata["annotations"] = json!({"lbr.dev/mode": mode});
}

/// Takes one field of `spec` from another policy.
fn change_policy(random: &mut Random, case: &mut Case) {
    let field = random.pick(&["podSelector", "policyTypes", "ingress", "egress", "ingress", "egress"]);
    let other = policies::valid_policy(random, case, 0)["spec"][field].take();
    edit(random, case, "NetworkPolicy", |_, policy| policy["spec"][field] = other.clone());
}
