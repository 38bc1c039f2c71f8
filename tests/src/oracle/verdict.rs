//! The specification's answer for a connection: without tables and preparation, every question is asked anew of the
//! raw objects. Slow, and short enough to be compared with the text of the API.
//!
//! Nothing here is shared with lbr: neither its model, nor its reading of selectors, blocks and ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbr_common::tuple::{Tuple, proto};
use serde_json::Value;

use super::block;

/// The label that every namespace has, even if its object lacks it.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Namespace of the policy.
    pub namespace: String,
    /// Name of the policy.
    pub policy: String,
    /// Index in the policy's list for the direction.
    pub rule: usize,
}

/// The answer of one end's policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The address belongs to no pod of this node.
    NoPod,
    /// To the node itself, or a pod to itself.
    Exempt,
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// Allowed, by each of these rules.
    Allowed(Vec<Rule>),
    /// Isolated, and no rule allows it.
    Denied,
}

impl Answer {
    /// Whether this end lets a connection pass.
    pub fn passes(&self) -> bool {
        *self != Self::Denied
    }
}

/// The answers of both ends' policies: the enforced ones, and those with the audited ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The sender's.
    pub egress: Answer,
    /// The receiver's.
    pub ingress: Answer,
    /// The sender's, if its audited policies were enforced.
    pub audited_egress: Answer,
    /// The receiver's, if its audited policies were enforced.
    pub audited_ingress: Answer,
}

impl Expected {
    /// Whether a connection passes.
    pub fn passes(&self) -> bool {
        self.egress.passes() && self.ingress.passes()
    }
}

/// The objects of a cluster, seen from one node.
#[derive(Clone, Copy, Debug)]
pub(super) struct World<'a> {
    pub(super) objects: &'a [Value],
    pub(super) node: &'a str,
    pub(super) node_addresses: &'a BTreeSet<IpAddr>,
}

#[derive(Clone, Copy)]
enum Direction {
    Ingress,
    Egress,
}

impl<'a> World<'a> {
    pub(super) fn expected(self, tuple: &Tuple) -> Expected {
        let side = |direction, audited| self.side(direction, tuple, audited);
        Expected {
            egress: side(Direction::Egress, false),
            ingress: side(Direction::Ingress, false),
            audited_egress: side(Direction::Egress, true),
            audited_ingress: side(Direction::Ingress, true),
        }
    }

    /// The pod of this node that has an address: the only one whose policies count.
    pub(super) fn subject_at(self, addr: IpAddr) -> Option<&'a Value> {
        self.pod_at(addr).filter(|pod| pod["spec"]["nodeName"] == self.node)
    }

    /// `X_ok` of the decision procedure.
    fn side(self, direction: Direction, tuple: &Tuple, audited: bool) -> Answer {
        let (src, dst) = (IpAddr::from(tuple.src), IpAddr::from(tuple.dst));
        // C1, C2, C4.
        if src == dst || self.node_addresses.contains(&dst) {
            return Answer::Exempt;
        }
        let (subject, peer) = match direction {
            Direction::Ingress => (dst, src),
            Direction::Egress => (src, dst),
        };
        let Some(subject) = self.subject_at(subject) else { return Answer::NoPod };
        let isolating: Vec<_> = self
            .of_kind("NetworkPolicy")
            .filter(|policy| audited || policy["metadata"]["annotations"]["lbr.dev/mode"] != "audit")
            .filter(|policy| policy["metadata"]["namespace"] == subject["metadata"]["namespace"])
            .filter(|policy| selects(&policy["spec"]["podSelector"], |key| label(subject, key)))
            .filter(|policy| isolates(policy, direction))
            .collect();
        if isolating.is_empty() {
            return Answer::NotIsolated;
        }
        let mut allowing = Vec::new();
        for policy in isolating {
            let (rules, peers) = match direction {
                Direction::Ingress => ("ingress", "from"),
                Direction::Egress => ("egress", "to"),
            };
            for (i, rule) in list(&policy["spec"][rules]).iter().enumerate() {
                if self.peers_match(policy, &rule[peers], peer) && self.ports_match(&rule["ports"], tuple) {
                    allowing.push(Rule {
                        namespace: text(&policy["metadata"]["namespace"]).to_owned(),
                        policy: text(&policy["metadata"]["name"]).to_owned(),
                        rule: i,
                    });
                }
            }
        }
        if allowing.is_empty() { Answer::Denied } else { Answer::Allowed(allowing) }
    }

    /// The pod that has an address: never one of the host network (C6), never one that has ended (C20). While a
    /// terminating pod and another one claim it, it belongs to the other one.
    fn pod_at(self, addr: IpAddr) -> Option<&'a Value> {
        let live = |pod: &&Value| {
            pod["spec"]["hostNetwork"] != true
                && !matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed")
        };
        let claims = |pod: &&Value| pod_ips(pod).contains(&addr);
        let terminating = |pod: &&Value| !pod["metadata"]["deletionTimestamp"].is_null();
        self.of_kind("Pod").filter(live).filter(claims).min_by_key(terminating)
    }

    /// B1, then any peer of the list.
    fn peers_match(self, policy: &Value, peers: &Value, addr: IpAddr) -> bool {
        let peers = list(peers);
        peers.is_empty() || peers.iter().any(|peer| self.peer_matches(policy, peer, addr))
    }

    /// B2 to B10.
    fn peer_matches(self, policy: &Value, peer: &Value, addr: IpAddr) -> bool {
        let (pods, namespaces) = (&peer["podSelector"], &peer["namespaceSelector"]);
        let by_selector = !pods.is_null() || !namespaces.is_null();
        match (&peer["ipBlock"], by_selector) {
            (Value::Null, true) => {
                let Some(pod) = self.pod_at(addr) else { return false };
                let namespace = &pod["metadata"]["namespace"];
                let in_namespace = if namespaces.is_null() {
                    *namespace == policy["metadata"]["namespace"]
                } else {
                    self.namespace_matches(namespaces, text(namespace))
                };
                in_namespace && (pods.is_null() || selects(pods, |key| label(pod, key)))
            }
            (Value::Null, false) => false,
            (_, true) => false,
            (ip_block, false) => {
                block::contains(text(&ip_block["cidr"]), addr)
                    && !list(&ip_block["except"]).iter().any(|except| block::contains(text(except), addr))
            }
        }
    }

    fn namespace_matches(self, selector: &Value, name: &str) -> bool {
        let mut namespaces = self.of_kind("Namespace");
        let Some(namespace) = namespaces.find(|n| n["metadata"]["name"] == name) else { return false };
        selects(selector, |key| if key == NAMESPACE_NAME { Some(name) } else { label(namespace, key) })
    }

    /// B11, then any port of the list (B12 to B17).
    fn ports_match(self, ports: &Value, tuple: &Tuple) -> bool {
        let ports = list(ports);
        ports.is_empty() || ports.iter().any(|port| self.port_matches(port, tuple))
    }

    fn port_matches(self, port: &Value, tuple: &Tuple) -> bool {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        if number(protocol) != Some(tuple.proto) {
            return false;
        }
        let wanted = u64::from(tuple.dst_port);
        match &port["port"] {
            Value::Null => true,
            // Ingress: the subject's ports; egress: the peer's. Both are those of the destination.
            Value::String(name) => self
                .pod_at(tuple.dst.into())
                .and_then(|pod| named_port(pod, name, protocol))
                .is_some_and(|number| number == wanted),
            first => {
                let first = first.as_u64().unwrap_or(u64::MAX);
                let last = port["endPort"].as_u64().unwrap_or(first);
                first <= wanted && wanted <= last
            }
        }
    }

    fn of_kind(self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| object["kind"] == kind)
    }
}

/// Table A.
fn isolates(policy: &Value, direction: Direction) -> bool {
    let spec = &policy["spec"];
    let types = list(&spec["policyTypes"]);
    match direction {
        Direction::Ingress => types.is_empty() || types.iter().any(|t| t == "Ingress"),
        Direction::Egress if types.is_empty() => !list(&spec["egress"]).is_empty(),
        Direction::Egress => types.iter().any(|t| t == "Egress"),
    }
}

/// B6. An absent selector is an empty one.
fn selects<'a>(selector: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let by_labels = selector["matchLabels"]
        .as_object()
        .is_none_or(|wanted| wanted.iter().all(|(key, value)| label(key) == value.as_str()));
    let expression = |expression: &Value| {
        let value = label(text(&expression["key"]));
        let is_listed = || list(&expression["values"]).iter().any(|v| v.as_str() == value);
        match text(&expression["operator"]) {
            "In" => value.is_some() && is_listed(),
            "NotIn" => value.is_none() || !is_listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    by_labels && list(&selector["matchExpressions"]).iter().all(expression)
}

fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"][key].as_str()
}

/// B16: by name and protocol; the containers' ports, then those of init containers that keep running.
fn named_port(pod: &Value, name: &str, protocol: &str) -> Option<u64> {
    let sidecars = list(&pod["spec"]["initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always");
    let containers = list(&pod["spec"]["containers"]).iter().chain(sidecars);
    let mut ports = containers.flat_map(|container| list(&container["ports"]));
    ports
        .find(|p| p["name"] == name && p["protocol"].as_str().unwrap_or("TCP") == protocol)
        .and_then(|p| p["containerPort"].as_u64())
}

/// The addresses that a pod claims.
pub(super) fn pod_ips(pod: &Value) -> Vec<IpAddr> {
    let status = &pod["status"];
    let mut texts: Vec<_> = list(&status["podIPs"]).iter().map(|ip| text(&ip["ip"])).collect();
    if texts.is_empty() {
        texts.push(text(&status["podIP"]));
    }
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

fn number(protocol: &str) -> Option<u8> {
    match protocol {
        "TCP" => Some(proto::TCP),
        "UDP" => Some(proto::UDP),
        "SCTP" => Some(proto::SCTP),
        _ => None,
    }
}

/// A list; absent, null and empty are the same to the API.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text, empty where there is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}
