//! A rejected edit of a Service: what it closes is closed, what it opens is not opened.
//!
//! The API server would refuse such an edit, and kube-proxy would go on with the last version. Here nobody is told at
//! once, so the last accepted version stays in force without what the edit evidently closes:
//!
//! | the edit | closes |
//! |---|---|
//! | has not this port any more | the port, unless an entry that cannot be read has its name or number, or neither |
//! | has another `nodePort` at a port, or none | the old one |
//! | is of type ClusterIP | node ports, the load balancer's addresses, the health check port |
//! | is of type NodePort | the load balancer's addresses, the health check port |
//! | has not this cluster IP, external IP or load balancer's address any more | the address, unless the list has as many entries that cannot be read as addresses are missing |
//! | has narrower `loadBalancerSourceRanges` | other clients |
//! | has another `healthCheckNodePort`, or none | the old one |
//! | has the traffic policy Local | endpoints on other nodes, as Local does |
//! | lacks `ports` or cluster IPs as a whole, or they cannot be read | nothing: no Service is without |
//! | has a type or a policy that cannot be read | nothing |

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::super::convert::{port_number, protocol};
use super::super::{ObjectName, Protocol, TrafficPolicy};
use super::{Service, ServicePort, SourceRanges, Type};

/// What can be read of a rejected Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Its valid parts.
    service: Service,
    /// `None`: cannot be read.
    kind: Option<Type>,
    ports: Vec<Port>,
    /// Number of entries that cannot be read.
    unread_cluster_ips: usize,
    unread_external_ips: usize,
    unread_load_balancer_ips: usize,
    /// `externalTrafficPolicy` can be read, and so what depends on it.
    has_policy: bool,
}

/// An entry of `spec.ports`; `None`: cannot be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Port {
    name: String,
    protocol: Option<Protocol>,
    number: Option<u16>,
    node_port: Option<Option<u16>>,
}

impl Partial {
    /// `ingress`: how many entries the load balancer's status has.
    pub(super) fn new(spec: &api::ServiceSpec, ingress: usize, service: Service) -> Self {
        let port = |port: &api::ServicePort| {
            let (name, number) = (port.name.clone().unwrap_or_default(), port_number(port.port).ok());
            if name.is_empty() && number.is_none() {
                return Port::default();
            }
            let node_port = match port.node_port {
                None | Some(0) => Some(None),
                Some(number) => port_number(number).ok().map(Some),
            };
            Port { name, protocol: protocol(port.protocol.as_deref()).ok(), number, node_port }
        };
        let single = spec.cluster_ip.iter().filter(|ip| !ip.is_empty()).count();
        let cluster_ips = spec.cluster_ips.as_ref().map_or(0, Vec::len).max(single);
        let external_ips = spec.external_ips.as_ref().map_or(0, Vec::len);
        Self {
            kind: Type::of(spec.type_.as_deref()),
            ports: spec.ports.iter().flatten().map(port).collect(),
            unread_cluster_ips: cluster_ips.saturating_sub(service.cluster_ips.len()),
            unread_load_balancer_ips: ingress.saturating_sub(service.load_balancer_ips.len()),
            unread_external_ips: external_ips.saturating_sub(service.external_ips.len()),
            has_policy: matches!(
                spec.external_traffic_policy.as_deref(),
                None | Some("" | "Cluster" | "Local")
            ),
            service,
        }
    }

    pub(crate) fn name(&self) -> &ObjectName {
        &self.service.name
    }

    /// What is in force after this version was accepted.
    pub(crate) fn over(&self, last: &Service) -> Service {
        let edit = &self.service;
        let mut service = last.clone();
        if !self.ports.is_empty() {
            service.ports = last.ports.iter().filter_map(|port| self.port(port)).collect();
        }
        if !edit.cluster_ips.is_empty() {
            let is_there = |ip: &IpAddr| edit.cluster_ips.contains(ip);
            service.cluster_ips = still(&last.cluster_ips, is_there, self.unread_cluster_ips);
        }
        let is_there = |(_, ip): &(usize, IpAddr)| edit.external_ips.iter().any(|(_, other)| other == ip);
        service.external_ips = still(&last.external_ips, is_there, self.unread_external_ips);
        match self.kind {
            None => {}
            Some(Type::LoadBalancer) => {
                let is_there = |ip: &IpAddr| edit.load_balancer_ips.contains(ip);
                service.load_balancer_ips =
                    still(&last.load_balancer_ips, is_there, self.unread_load_balancer_ips);
                service.source_ranges = SourceRanges {
                    v4: narrower(&last.source_ranges.v4, &edit.source_ranges.v4),
                    v6: narrower(&last.source_ranges.v6, &edit.source_ranges.v6),
                };
                let stays = !self.has_policy || edit.health_check_port == last.health_check_port;
                service.health_check_port = last.health_check_port.filter(|_| stays);
            }
            Some(kind) => {
                service.load_balancer_ips.clear();
                service.health_check_port = None;
                if kind == Type::ClusterIp {
                    service.ports.iter_mut().for_each(|port| port.node_port = None);
                }
            }
        }
        for (policy, edit) in [
            (&mut service.internal_policy, edit.internal_policy),
            (&mut service.external_policy, edit.external_policy),
        ] {
            if edit == TrafficPolicy::Local {
                *policy = edit;
            }
        }
        service
    }

    /// What stays of a port.
    fn port(&self, last: &ServicePort) -> Option<ServicePort> {
        let may_be = |port: &&Port| {
            port.number.is_none_or(|number| number == last.port)
                && port.protocol.is_none_or(|protocol| protocol == last.protocol)
        };
        let is_whole = |port: &&Port| port.number.is_some() && port.protocol.is_some();
        // Without name and number it may be any of them.
        let is_named = |port: &&Port| port.number.is_some() || port.name.is_empty() || port.name == last.name;
        let mut candidates = self.ports.iter().filter(may_be);
        let entry = candidates.clone().find(is_whole).or_else(|| candidates.find(is_named))?;
        let stays = entry.node_port.is_none_or(|node_port| node_port == last.node_port);
        Some(ServicePort { node_port: last.node_port.filter(|_| stays), ..last.clone() })
    }
}

/// The items that the edit still has, and the others, if each of them may be one that cannot be read.
fn still<T: Clone>(last: &[T], is_there: impl Fn(&T) -> bool, unread: usize) -> Vec<T> {
    let missing = last.iter().filter(|item| !is_there(item)).count();
    last.iter().filter(|item| is_there(item) || missing <= unread).cloned().collect()
}

/// The clients that both serve; `None`: all.
fn narrower(last: &Option<Vec<IpNet>>, edit: &Option<Vec<IpNet>>) -> Option<Vec<IpNet>> {
    let (Some(a), Some(b)) = (last, edit) else { return last.clone().or_else(|| edit.clone()) };
    let inner = |a: &[IpNet], b: &[IpNet]| -> Vec<IpNet> {
        a.iter().filter(|a| b.iter().any(|b| b.contains(*a))).copied().collect()
    };
    let mut both = [inner(a, b), inner(b, a)].concat();
    both.sort();
    both.dedup();
    Some(both)
}
