//! `networking.k8s.io/v1` NetworkPolicy.
//!
//! Anything invalid rejects the whole policy. If no accepted version of it is known, a fallback isolates the same pods
//! in the same directions and allows what the valid rules allow: a mistake in a policy closes more than was meant,
//! never less. See [`isolation()`] for a policy that cannot be read so far.

mod isolation;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use self::isolation::Directions;
pub use self::isolation::isolation;
use super::convert::{Converted, Problems, namespaced, port_number, protocol};
use super::{NetworkPolicy, Peer, PolicyPort, PolicyRule, PortSet, selector};

/// Annotation for whether a policy is enforced (`enforce`, the default) or audited (`audit`).
pub const MODE: &str = "lbr.dev/mode";

/// Reported with a fallback for a policy that was never accepted.
pub const FALLBACK: &str = "until it is corrected, each pod that it may select is isolated in each direction that it may \
                            mean, and only its valid rules allow anything";

/// Reduces a NetworkPolicy to what matters here.
pub fn from_api(api: api::NetworkPolicy) -> Converted<NetworkPolicy> {
    let mut problems = Problems::default();
    let name = namespaced(&api.metadata, &mut problems);
    let audit = is_audited(&api.metadata, &mut problems);
    let spec = api.spec.unwrap_or_default();
    let pods = selector::from_api(&spec.pod_selector.unwrap_or_default(), "spec.podSelector", &mut problems);
    let types = spec.policy_types.unwrap_or_default();
    for (i, policy_type) in types.iter().enumerate() {
        if !matches!(policy_type.as_str(), "Ingress" | "Egress") {
            let reason = format!("{policy_type:?} is not a policy type: write Ingress or Egress");
            problems.refuse(format!("spec.policyTypes[{i}]"), reason);
        }
    }
    let ingress = spec.ingress.unwrap_or_default().into_iter().map(|r| ("from", r.from, r.ports)).collect();
    let egress = spec.egress.unwrap_or_default().into_iter().map(|r| ("to", r.to, r.ports)).collect();
    // Table A. Without policyTypes a policy isolates ingress, even if it only has egress rules.
    let directions = match types.is_empty() {
        true => Directions { ingress: true, egress: !Vec::is_empty(&egress) },
        false => Directions::of(&types),
    };
    // The rules of a direction that the policy does not isolate have no effect, but must be valid.
    let ingress = rules(ingress, "spec.ingress", &mut problems);
    let egress = rules(egress, "spec.egress", &mut problems);
    let Some(pods) = pods else {
        // More pods may be selected than were meant, so the rules must not allow anything: see `isolation`.
        return problems.finish(NetworkPolicy::default());
    };
    let policy = NetworkPolicy {
        name,
        audit,
        pods,
        ingress: directions.ingress.then_some(ingress),
        egress: directions.egress.then_some(egress),
    };
    problems.finish_or(policy.clone(), Some(policy))
}

/// An unknown mode rejects the policy: the fallback is enforced until the mode is corrected.
fn is_audited(meta: &ObjectMeta, problems: &mut Problems) -> bool {
    match meta.annotations.as_ref().and_then(|all| all.get(MODE)).map(String::as_str) {
        None | Some("enforce") => false,
        Some("audit") => true,
        Some(other) => {
            let reason = format!("{other:?} is not a mode: write enforce or audit");
            problems.refuse(format!("metadata.annotations[{MODE}]"), reason);
            false
        }
    }
}

type ApiRule = (&'static str, Option<Vec<api::NetworkPolicyPeer>>, Option<Vec<api::NetworkPolicyPort>>);

/// The valid rules. A bad peer or port makes the whole rule invalid: without it the rule could mean every peer.
fn rules(api: Vec<ApiRule>, path: &str, problems: &mut Problems) -> Vec<PolicyRule> {
    let mut rules = Vec::new();
    for (i, (field, api_peers, api_ports)) in api.into_iter().enumerate() {
        let mut valid = true;
        let mut rule = PolicyRule::default();
        for (j, p) in api_peers.into_iter().flatten().enumerate() {
            match peer(p, &format!("{path}[{i}].{field}[{j}]"), problems) {
                Some(peer) => rule.peers.push(peer),
                None => valid = false,
            }
        }
        for (j, p) in api_ports.into_iter().flatten().enumerate() {
            match port(&p) {
                Ok(port) => rule.ports.push(port),
                Err((name, reason)) => {
                    problems.refuse(format!("{path}[{i}].ports[{j}].{name}"), reason);
                    valid = false;
                }
            }
        }
        if valid {
            rules.push(rule);
        }
    }
    rules
}

fn peer(api: api::NetworkPolicyPeer, path: &str, problems: &mut Problems) -> Option<Peer> {
    let pods_at = format!("{path}.podSelector");
    let namespaces_at = format!("{path}.namespaceSelector");
    match (api.ip_block, api.namespace_selector, api.pod_selector) {
        (Some(ip_block), None, None) => block(ip_block, &format!("{path}.ipBlock"), problems),
        (None, Some(namespaces), None) => {
            selector::from_api(&namespaces, &namespaces_at, problems).map(Peer::Namespaces)
        }
        (None, None, Some(pods)) => selector::from_api(&pods, &pods_at, problems).map(Peer::Pods),
        (None, Some(namespaces), Some(pods)) => {
            let namespaces = selector::from_api(&namespaces, &namespaces_at, problems);
            let pods = selector::from_api(&pods, &pods_at, problems);
            Some(Peer::Both(namespaces?, pods?))
        }
        (Some(_), _, _) => {
            problems.refuse(path, "has an ipBlock and a selector: write them as two items of the list");
            None
        }
        (None, None, None) => {
            problems.refuse(path, "is empty: write an ipBlock, a podSelector or a namespaceSelector");
            None
        }
    }
}

fn block(api: api::IPBlock, path: &str, problems: &mut Problems) -> Option<Peer> {
    let cidr = cidr(&api.cidr).map_err(|reason| problems.refuse(format!("{path}.cidr"), reason)).ok()?;
    let mut except = Vec::new();
    let mut valid = true;
    for (i, text) in api.except.iter().flatten().enumerate() {
        match exception(text, cidr) {
            Ok(net) => except.push(net),
            Err(reason) => {
                problems.refuse(format!("{path}.except[{i}]"), reason);
                valid = false;
            }
        }
    }
    valid.then_some(Peer::Block { cidr, except })
}

fn exception(text: &str, outer: IpNet) -> Result<IpNet, String> {
    let net = cidr(text)?;
    if outer.contains(&net) && net.prefix_len() > outer.prefix_len() {
        Ok(net)
    } else {
        Err(format!("{net} is not a smaller block inside {outer}"))
    }
}

/// A masked block: older API servers accepted host bits, and newer ones keep such objects (B10).
fn cidr(text: &str) -> Result<IpNet, String> {
    let wrong = || format!("{text:?} is not an address block: write it like 10.0.0.0/8 or fd00::/8");
    let net = text.parse::<IpNet>().map_err(|_| wrong())?.trunc();
    match net {
        IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some() && v6.prefix_len() >= 96 => Err(wrong()),
        _ => Ok(net),
    }
}

fn port(api: &api::NetworkPolicyPort) -> Result<PolicyPort, (&'static str, String)> {
    let protocol = protocol(api.protocol.as_deref()).map_err(|reason| ("protocol", reason))?;
    let ports = match (&api.port, api.end_port) {
        (None, None) => PortSet::All,
        (None, Some(_)) => return Err(("endPort", "needs port, the start of the range".to_owned())),
        (Some(IntOrString::Int(first)), last) => {
            let first = port_number(*first).map_err(|reason| ("port", reason))?;
            let last = last.map_or(Ok(first), port_number).map_err(|reason| ("endPort", reason))?;
            if last < first {
                return Err(("endPort", format!("{last} is below port {first}")));
            }
            PortSet::Range(first, last)
        }
        (Some(IntOrString::String(_)), Some(_)) => {
            return Err(("endPort", "needs a number as port: a named port has no range".to_owned()));
        }
        (Some(IntOrString::String(name)), None) => {
            check_port_name(name).map_err(|reason| ("port", reason))?;
            PortSet::Named(name.clone())
        }
    };
    Ok(PolicyPort { protocol, ports })
}

/// The API's rule for the names of ports (IANA service name).
fn check_port_name(name: &str) -> Result<(), String> {
    if name.parse::<u64>().is_ok() {
        return Err(format!("{name:?} is text, and so the name of a port: write the number without quotes"));
    }
    let valid = (1..=15).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.bytes().any(|b| b.is_ascii_lowercase())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if valid {
        return Ok(());
    }
    Err(format!("{name:?} is not the name of a port: up to 15 lower case letters, digits and '-'"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{Protocol, Selector};
    use super::*;

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
            assert_eq!((converted.problems, converted.fallback), (vec![], None), "{row}");
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
                Peer::Block {
                    cidr: "10.0.0.0/8".parse().unwrap(),
                    except: vec!["10.1.0.0/16".parse().unwrap()],
                },
            ),
            (
                "B10",
                json!({"ipBlock": {"cidr": "10.161.0.0/8", "except": ["10.1.2.3/16"]}}),
                Peer::Block {
                    cidr: "10.0.0.0/8".parse().unwrap(),
                    except: vec!["10.1.0.0/16".parse().unwrap()],
                },
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
            assert_eq!(
                ingress_rule(json!({"ports": [port]})).ports,
                [PolicyPort { protocol, ports }],
                "{row}"
            );
        }
    }

    /// The bad rule is between two good ones, which the fallback allows.
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
            let converted = convert(json!({"ingress": [good, rule, good]}));
            assert_eq!(converted.object, None, "{rule}");
            let fields: Vec<_> = converted.problems.iter().map(|p| p.field.clone()).collect();
            assert_eq!(fields, [format!("spec.ingress[1].{field}")], "{rule}");
            assert!(!converted.problems[0].reason.is_empty(), "{rule}");
            assert_eq!(converted.fallback.unwrap().ingress.map(|r| r.len()), Some(2), "{rule}");
        }
    }

    #[test]
    fn unknown_types_refuse_and_an_unreadable_subject_has_no_fallback() {
        for (kind, egress) in [("ingress", false), ("egress", true), ("Ingres", true), ("", true)] {
            let converted = convert(json!({"policyTypes": ["Ingress", kind], "ingress": [{}]}));
            assert_eq!(converted.object, None, "{kind}");
            assert_eq!(converted.problems[0].field, "spec.policyTypes[1]");
            let fallback = converted.fallback.unwrap();
            assert_eq!(
                (fallback.ingress.map(|r| r.len()), fallback.egress.is_some()),
                (Some(1), egress),
                "{kind}"
            );
        }
        let bad = json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "x"}]}});
        let converted = convert(bad);
        assert_eq!((converted.object, converted.fallback), (None, None));
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
            let converted = from_api(serde_json::from_value(object).unwrap());
            let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
            let expected = if is_refused { vec!["metadata.annotations[lbr.dev/mode]"] } else { vec![] };
            assert_eq!((fields, converted.object.is_none()), (expected, is_refused), "{mode}");
            let policy = converted.object.or(converted.fallback).unwrap();
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
}
