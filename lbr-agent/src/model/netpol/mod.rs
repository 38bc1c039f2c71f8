//! `networking.k8s.io/v1` NetworkPolicy.
//!
//! Anything invalid rejects the whole policy, and what can be read of it ([`Partial`]) still isolates: a mistake in a
//! policy closes more than was meant, never less.

pub mod edit;
pub mod isolation;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use self::isolation::Directions;
pub use self::isolation::{Partial, partial};
use super::convert::{Converted, Problems, like_a_number, namespaced, not_a_block, port_number, protocol};
use super::{NetworkPolicy, Peer, PolicyPort, PolicyRule, PortSet, selector};

/// Annotation for whether a policy is enforced (`enforce`, the default) or audited (`audit`).
pub const MODE: &str = "lbr.dev/mode";

/// Reported with a policy of which no version was accepted.
pub const FALLBACK: &str = "until it is corrected, each pod that it may select is isolated in each direction that it may \
                            mean, and only its valid rules allow anything";

/// Reported with a rejected edit.
pub const EDITED: &str = "until it is corrected, the last accepted version stays in force, and this one only closes: \
                          pods are isolated where either isolates them, and what this one evidently does not allow \
                          any more is denied";

/// Reduces a NetworkPolicy to what matters here.
pub fn from_api(api: api::NetworkPolicy) -> Converted<NetworkPolicy> {
    let mut problems = Problems::default();
    let name = namespaced(&api.metadata, &mut problems);
    let audit = is_audited(mode_of(&api.metadata), &mut problems);
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
    problems.finish(NetworkPolicy {
        name,
        audit,
        pods: pods.unwrap_or_default(),
        ingress: directions.ingress.then_some(ingress),
        egress: directions.egress.then_some(egress),
        edit: None,
    })
}

fn mode_of(meta: &ObjectMeta) -> Option<&str> {
    meta.annotations.as_ref().and_then(|all| all.get(MODE)).map(String::as_str)
}

/// An unknown mode rejects the policy: it is enforced until the mode is corrected.
fn is_audited(mode: Option<&str>, problems: &mut Problems) -> bool {
    match mode {
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
    let wrong = || not_a_block(text);
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
    if let Some(reason) = like_a_number(name) {
        return Err(reason);
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
mod tests;
