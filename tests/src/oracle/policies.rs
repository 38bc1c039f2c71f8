//! Random NetworkPolicies: every form of a field that the API has, including absent, null and empty.

use serde_json::{Map, Value, json};

use super::Case;
use super::generate::{NAMESPACE_KEYS, NAMESPACES, POD_KEYS, PORT_NAMES, PORTS, VALUES, node_ips};
use super::random::Random;
use super::verdict::{pod_ips, text};

/// A policy that the API would accept or, occasionally, one that it would not (B5).
pub(super) fn policy(random: &mut Random, case: &Case, number: usize) -> Value {
    let mut policy = valid_policy(random, case, number);
    // As the last rule and alone in it, so that it does not matter whether a bad peer invalidates itself or its rule.
    if random.chance(2) {
        let bad = [
            json!({}),
            json!({"ipBlock": {"cidr": "0.0.0.0/0"}, "podSelector": {}}),
            json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "namespaceSelector": {}}),
        ];
        let (rules, peers) = random.pick(&[("ingress", "from"), ("egress", "to")]);
        let rule = json!({peers: [random.pick(&bad)]});
        match policy["spec"][rules].as_array_mut() {
            Some(rules) => rules.push(rule),
            None => policy["spec"][rules] = json!([rule]),
        }
    }
    policy
}

/// A policy that the API accepts.
pub(super) fn valid_policy(random: &mut Random, case: &Case, number: usize) -> Value {
    let mut metadata = json!({"name": format!("policy-{number}"), "namespace": namespace(random, case)});
    match random.below(20) {
        0..4 => metadata["annotations"] = json!({"lbr.dev/mode": "audit"}),
        4 => metadata["annotations"] = json!({"lbr.dev/mode": "enforce"}),
        5 => metadata["annotations"] = json!({"example.com/mode": "audit"}),
        _ => {}
    }
    let mut spec = Map::new();
    match random.below(10) {
        0 => {}
        1 => drop(spec.insert("podSelector".to_owned(), Value::Null)),
        2..5 => drop(spec.insert("podSelector".to_owned(), json!({}))),
        _ => drop(spec.insert("podSelector".to_owned(), selector(random, &POD_KEYS))),
    }
    match random.below(12) {
        0..3 => {}
        3 => drop(spec.insert("policyTypes".to_owned(), json!([]))),
        4 => drop(spec.insert("policyTypes".to_owned(), Value::Null)),
        5..7 => drop(spec.insert("policyTypes".to_owned(), json!(["Ingress"]))),
        7..9 => drop(spec.insert("policyTypes".to_owned(), json!(["Egress"]))),
        9 => drop(spec.insert("policyTypes".to_owned(), json!(["Egress", "Ingress"]))),
        _ => drop(spec.insert("policyTypes".to_owned(), json!(["Ingress", "Egress"]))),
    }
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        optional(random, &mut spec, rules, 25, |random| rule(random, case, peers));
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec,
    })
}

/// A namespace that has pods in most cases.
fn namespace(random: &mut Random, case: &Case) -> String {
    let of_pods: Vec<_> = case.of_kind("Pod").map(|pod| text(&pod["metadata"]["namespace"])).collect();
    let any = of_pods.is_empty() || random.chance(10);
    random.pick(if any { &NAMESPACES } else { &of_pods[..] }).to_owned()
}

fn rule(random: &mut Random, case: &Case, peers: &str) -> Value {
    let mut rule = Map::new();
    optional(random, &mut rule, peers, 20, |random| peer(random, case));
    optional(random, &mut rule, "ports", 35, port);
    rule.into()
}

/// A list with one to three items or, in this many of 100 cases, no list: absent, null, or empty.
fn optional(
    random: &mut Random,
    object: &mut Map<String, Value>,
    field: &str,
    without: usize,
    mut item: impl FnMut(&mut Random) -> Value,
) {
    let value = if !random.chance(without) {
        let count = random.pick(&[1, 1, 2, 3]);
        (0..count).map(|_| item(random)).collect::<Vec<_>>().into()
    } else {
        match random.below(4) {
            0 => Value::Null,
            1 => json!([]),
            _ => return,
        }
    };
    object.insert(field.to_owned(), value);
}

fn peer(random: &mut Random, case: &Case) -> Value {
    match random.below(10) {
        0..3 => json!({"podSelector": selector(random, &POD_KEYS)}),
        3..5 => json!({"namespaceSelector": namespace_selector(random)}),
        5..7 => {
            json!({"namespaceSelector": namespace_selector(random), "podSelector": selector(random, &POD_KEYS)})
        }
        _ => json!({"ipBlock": block(random, case)}),
    }
}

fn namespace_selector(random: &mut Random) -> Value {
    let by_name = "kubernetes.io/metadata.name";
    match random.below(6) {
        0 => json!({"matchLabels": {by_name: random.pick(&NAMESPACES)}}),
        1 => {
            let operator = random.pick(&["In", "NotIn"]);
            let values = [random.pick(&NAMESPACES), random.pick(&NAMESPACES)];
            json!({"matchExpressions": [{"key": by_name, "operator": operator, "values": values}]})
        }
        _ => selector(random, &NAMESPACE_KEYS),
    }
}

fn selector(random: &mut Random, keys: &[&str]) -> Value {
    let mut selector = Map::new();
    if random.chance(20) {
        return selector.into();
    }
    if random.chance(60) {
        let mut labels = Map::new();
        for _ in 0..random.pick(&[0, 1, 1, 1, 2]) {
            labels.insert(random.pick(keys).to_owned(), random.pick(&VALUES).into());
        }
        selector.insert("matchLabels".to_owned(), labels.into());
    }
    if random.chance(50) {
        let count = random.pick(&[0, 1, 1, 1, 2]);
        let expressions: Vec<_> = (0..count).map(|_| expression(random, keys)).collect();
        selector.insert("matchExpressions".to_owned(), expressions.into());
    }
    selector.into()
}

fn expression(random: &mut Random, keys: &[&str]) -> Value {
    let key = random.pick(keys);
    match random.below(4) {
        n @ (0 | 1) => {
            let values: Vec<_> = (0..=random.below(2)).map(|_| random.pick(&VALUES)).collect();
            json!({"key": key, "operator": if n == 0 { "In" } else { "NotIn" }, "values": values})
        }
        2 => json!({"key": key, "operator": "Exists"}),
        _ => json!({"key": key, "operator": "DoesNotExist", "values": []}),
    }
}

/// A block around an existing address or one outside, with host bits in half of the cases.
fn block(random: &mut Random, case: &Case) -> Value {
    let mut bases: Vec<_> = case.of_kind("Pod").flat_map(pod_ips).collect();
    bases.extend(
        (1..=3)
            .flat_map(node_ips)
            .chain(["203.0.113.77", "2001:db8::77"])
            .filter_map(|ip| ip.parse::<std::net::IpAddr>().ok()),
    );
    let base = random.pick(&bases);
    let lens: &[u8] = match base.is_ipv4() {
        true => &[0, 1, 8, 16, 22, 23, 24, 28, 29, 30, 31, 32],
        false => &[0, 1, 16, 48, 62, 63, 64, 120, 124, 126, 127, 128],
    };
    let len = random.pick(lens);
    let mut block = json!({"cidr": cidr(random, base, len)});
    let longer: Vec<u8> = lens.iter().copied().filter(|&l| l > len).collect();
    let inside: Vec<_> =
        bases.into_iter().filter(|&ip| super::block::contains(&format!("{base}/{len}"), ip)).collect();
    if !longer.is_empty() {
        optional_map(random, &mut block, |random| {
            let (ip, len) = (random.pick(&inside), random.pick(&longer));
            cidr(random, ip, len).into()
        });
    }
    block
}

fn optional_map(random: &mut Random, block: &mut Value, item: impl FnMut(&mut Random) -> Value) {
    if let Some(block) = block.as_object_mut() {
        optional(random, block, "except", 50, item);
    }
}

fn cidr(random: &mut Random, ip: std::net::IpAddr, len: u8) -> String {
    let text = format!("{ip}/{len}");
    match super::block::range(&text) {
        Some((first, _)) if random.chance(50) => format!("{first}/{len}"),
        _ => text,
    }
}

fn port(random: &mut Random) -> Value {
    let mut port = Map::new();
    if random.chance(60) {
        port.insert("protocol".to_owned(), random.pick(&["TCP", "UDP", "SCTP"]).into());
    }
    match random.below(10) {
        0..2 => {}
        2..5 => drop(port.insert("port".to_owned(), random.pick(&PORTS).into())),
        5..7 => {
            let (a, b) = (random.pick(&PORTS), random.pick(&PORTS));
            port.insert("port".to_owned(), a.min(b).into());
            port.insert("endPort".to_owned(), a.max(b).into());
        }
        _ => {
            let names = [PORT_NAMES[0], PORT_NAMES[1], PORT_NAMES[2], "nobody"];
            port.insert("port".to_owned(), random.pick(&names).into());
        }
    }
    port.into()
}
