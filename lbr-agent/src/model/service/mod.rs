//! `v1` Service.

pub mod edit;
mod external;
#[cfg(test)]
mod tests;
mod types;

pub use edit::Partial;
pub use types::{Algorithm, Forwarding, Service, ServicePort, SourceRanges};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::convert::{
    Converted, Problems, address, namespaced, port_number, protocol, unsafe_address, valid_label, valid_name,
};
use super::{Labels, Protocol, TrafficPolicy};

/// Label of Services that another proxy serves.
const LABEL_OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// Annotation for the choice of endpoints: `random` (the default) or `maglev`.
pub const ALGORITHM: &str = "lbr.dev/algorithm";

/// Annotation for how clients outside reach endpoints on other nodes: `snat` (the default), `dsr` or `dsr-ipip`.
pub const FORWARDING: &str = "lbr.dev/forwarding";

/// `sessionAffinityConfig.clientIP.timeoutSeconds`: its default and its maximum.
const AFFINITY_DEFAULT: u32 = 10_800;
const AFFINITY_MAX: u32 = 86_400;

/// `spec.type` of Services that need a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

impl Type {
    /// `None` if it is not known, or needs no proxy.
    fn of(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "ClusterIP") => Some(Self::ClusterIp),
            Some("NodePort") => Some(Self::NodePort),
            Some("LoadBalancer") => Some(Self::LoadBalancer),
            Some(_) => None,
        }
    }
}

/// Reported with a rejected edit.
pub const EDITED: &str = "until it is corrected, the last accepted version stays in force, less the ports, addresses and \
                          clients that this one does not have";

/// Reduces a Service to what matters here.
pub fn from_api(api: api::Service) -> Converted<Service> {
    let (converted, partial) = read(api);
    let partial = partial.filter(|_| converted.object.is_none());
    Converted { partial: partial.map(|partial| super::Partial::Service(Box::new(partial))), ..converted }
}

/// What counts of a Service with mistakes that [`from_api`] cannot see.
pub fn partial(api: api::Service) -> Option<super::Partial> {
    read(api).1.map(|partial| super::Partial::Service(Box::new(partial)))
}

/// The same, and what counts if it is rejected; `None`: the Service needs no proxy.
fn read(api: api::Service) -> (Converted<Service>, Option<Partial>) {
    let mut problems = Problems::default();
    let name = namespaced(&api.metadata, &mut problems);
    let spec = api.spec.unwrap_or_default();
    let other_proxy = api.metadata.labels.is_some_and(|l| l.contains_key(LABEL_OTHER_PROXY));
    // Not a rejection: these Services need no proxy, or have another one.
    if other_proxy || is_headless(&spec) || spec.type_.as_deref() == Some("ExternalName") {
        return (problems.finish(Service { name, ..Service::default() }), None);
    }
    for (field, name) in [("metadata.namespace", &name.namespace), ("metadata.name", &name.name)] {
        // Invalid names are reported already.
        if let (Ok(()), Err(reason)) = (valid_name(name), valid_label(name)) {
            problems.refuse(field, reason);
        }
    }
    let kind = service_type(&spec, &mut problems);
    let (mut cluster_ips, mut ports) = (cluster_ips(&spec, &mut problems), ports(&spec, kind, &mut problems));
    // There are many Services, and most have fewer than the first allocation has room for.
    cluster_ips.shrink_to_fit();
    ports.shrink_to_fit();
    let internal_policy =
        traffic_policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref(), &mut problems);
    let external_policy =
        traffic_policy("spec.externalTrafficPolicy", spec.external_traffic_policy.as_deref(), &mut problems);
    let service = Service {
        affinity: affinity(&spec, &mut problems),
        forwarding: forwarding(api.metadata.annotations.as_ref(), &mut problems),
        algorithm: algorithm(api.metadata.annotations.unwrap_or_default(), &mut problems),
        external_ips: external::external_ips(&spec, &cluster_ips, &mut problems),
        name,
        cluster_ips,
        ports,
        internal_policy,
        external_policy,
        ..Service::default()
    };
    let balancer = api.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).map_or(0, Vec::len);
    let service = match kind {
        Type::ClusterIp | Type::NodePort => service,
        Type::LoadBalancer => external::load_balancer(service, &spec, api.status, &mut problems),
    };
    let partial = Partial::new(&spec, ingress, service.clone());
    (problems.finish(service), Some(partial))
}

fn service_type(spec: &api::ServiceSpec, problems: &mut Problems) -> Type {
    Type::of(spec.type_.as_deref()).unwrap_or_else(|| {
        let (other, allowed) = (&spec.type_, "write ClusterIP, NodePort, LoadBalancer or ExternalName");
        let other = other.as_deref().unwrap_or_default();
        problems.refuse("spec.type", format!("{other:?} is not a type of Service: {allowed}"));
        Type::ClusterIp
    })
}

fn traffic_policy(field: &str, text: Option<&str>, problems: &mut Problems) -> TrafficPolicy {
    match text {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            problems.refuse(field, format!("{other:?} is not a traffic policy: write Cluster or Local"));
            TrafficPolicy::Cluster
        }
    }
}

fn affinity(spec: &api::ServiceSpec, problems: &mut Problems) -> u32 {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return 0,
        Some("ClientIP") => {}
        Some(other) => {
            let reason = format!("{other:?} is not a kind of session affinity: write ClientIP or None");
            problems.refuse("spec.sessionAffinity", reason);
            return 0;
        }
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(seconds) = config.and_then(|config| config.timeout_seconds) else { return AFFINITY_DEFAULT };
    match u32::try_from(seconds) {
        Ok(seconds @ 1..=AFFINITY_MAX) => seconds,
        _ => {
            let reason = format!("{seconds} is not a time: write seconds, from 1 to {AFFINITY_MAX}");
            problems.refuse("spec.sessionAffinityConfig.clientIP.timeoutSeconds", reason);
            AFFINITY_DEFAULT
        }
    }
}

fn algorithm(mut annotations: Labels, problems: &mut Problems) -> Algorithm {
    match annotations.remove(ALGORITHM).as_deref() {
        None | Some("random") => Algorithm::Random,
        Some("maglev") => Algorithm::Maglev,
        Some(other) => {
            let reason = format!("{other:?} is not an algorithm: write random or maglev (random is used)");
            problems.part(format!("metadata.annotations[{ALGORITHM}]"), reason);
            Algorithm::Random
        }
    }
}

fn forwarding(annotations: Option<&Labels>, problems: &mut Problems) -> Forwarding {
    match annotations.and_then(|all| all.get(FORWARDING)).map(String::as_str) {
        None | Some("snat") => Forwarding::Snat,
        Some("dsr") => Forwarding::Dsr,
        Some("dsr-ipip") => Forwarding::DsrIpip,
        Some(other) => {
            let reason =
                format!("{other:?} is not a way of forwarding: write snat, dsr or dsr-ipip (snat is used)");
            problems.part(format!("metadata.annotations[{FORWARDING}]"), reason);
            Forwarding::Snat
        }
    }
}

fn is_headless(spec: &api::ServiceSpec) -> bool {
    let first = spec.cluster_ips.as_ref().and_then(|ips| ips.first());
    spec.cluster_ip.as_deref() == Some("None") || first.is_some_and(|ip| ip == "None")
}

fn cluster_ips(spec: &api::ServiceSpec, problems: &mut Problems) -> Vec<IpAddr> {
    let single = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
    let mut texts: Vec<(String, &str)> = Vec::new();
    for (i, ip) in spec.cluster_ips.iter().flatten().enumerate() {
        texts.push((format!("spec.clusterIPs[{i}]"), ip));
    }
    match (single, texts.first()) {
        (None, None) => problems.refuse(
            "spec.clusterIP",
            "is missing: there is no API server here to allocate one, so choose an address yourself \
             (or write None for a Service without a proxy)",
        ),
        (Some(ip), None) => texts.push(("spec.clusterIP".to_owned(), ip)),
        (Some(ip), Some((field, first))) if ip != *first => {
            problems.refuse(
                field.clone(),
                format!("is {first:?}, but spec.clusterIP is {ip:?}: make them equal"),
            );
        }
        (_, Some(_)) => {}
    }
    let mut addrs = Vec::new();
    for (field, text) in texts {
        match address(text) {
            Err(reason) => problems.refuse(field, reason),
            Ok(addr) => match unsafe_address(addr) {
                Some(reason) => problems.part(field, reason),
                None if addrs.contains(&addr) => problems.refuse(field, format!("{addr} is there twice")),
                None => addrs.push(addr),
            },
        }
    }
    addrs
}

fn ports(spec: &api::ServiceSpec, kind: Type, problems: &mut Problems) -> Vec<ServicePort> {
    let api_ports = spec.ports.as_deref().unwrap_or_default();
    if api_ports.is_empty() {
        problems.refuse("spec.ports", "is empty: a Service with a cluster IP needs at least one port");
    }
    let mut names = BTreeSet::new();
    let mut numbers: BTreeMap<(u16, Protocol), usize> = BTreeMap::new();
    let mut node_ports: BTreeMap<(u16, Protocol), usize> = BTreeMap::new();
    let mut ports = Vec::new();
    for (i, p) in api_ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{i}].{field}");
        let name = p.name.clone().unwrap_or_default();
        if name.is_empty() && api_ports.len() > 1 {
            problems.refuse(at("name"), "is missing: with more than one port each needs a name");
        } else if !names.insert(name.clone()) {
            problems.refuse(at("name"), format!("{name:?} is the name of an earlier port too"));
        } else if !name.is_empty()
            && let Err(reason) = valid_label(&name)
        {
            problems.refuse(at("name"), reason);
        }
        let protocol =
            protocol(p.protocol.as_deref()).map_err(|reason| problems.refuse(at("protocol"), reason));
        let port = port_number(p.port).map_err(|reason| problems.refuse(at("port"), reason));
        let (Ok(protocol), Ok(port)) = (protocol, port) else { continue };
        if let Some(first) = numbers.insert((port, protocol), i) {
            problems.refuse(at("port"), format!("spec.ports[{first}] has the same port and protocol"));
        } else {
            let node_port = node_port(p.node_port, kind, at("nodePort"), problems);
            if let Some(first) = node_port.and_then(|number| node_ports.insert((number, protocol), i)) {
                let reason = format!("spec.ports[{first}] has the same node port and protocol");
                problems.refuse(at("nodePort"), reason);
            }
            ports.push(ServicePort { name, protocol, port, node_port });
        }
    }
    ports
}

fn node_port(number: Option<i32>, kind: Type, field: String, problems: &mut Problems) -> Option<u16> {
    let number = number.filter(|&number| number != 0);
    match (kind, number) {
        (Type::ClusterIp, None) => None,
        // Left behind by an edit of the type. The API server drops it, and refusing the edit would leave the port open.
        (Type::ClusterIp, Some(_)) => {
            problems.part(field, "is for types NodePort and LoadBalancer: it is ignored, so leave it out");
            None
        }
        (_, Some(number)) => port_number(number).map_err(|reason| problems.refuse(field, reason)).ok(),
        (Type::NodePort, None) => {
            let reason = "is missing: there is no API server here to allocate one, so choose it yourself";
            problems.part(field, reason);
            None
        }
        // `allocateLoadBalancerNodePorts: false`
        (Type::LoadBalancer, None) => None,
    }
}
