//! `v1` Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::convert::{Converted, Problems, address, namespaced, port_number, protocol, unsafe_address};
use super::{Protocol, Service, ServicePort, TrafficPolicy};

/// Set on Services that another proxy serves.
const LABEL_OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// Reduces a Service to what matters here.
pub fn from_api(api: api::Service) -> Converted<Service> {
    let mut problems = Problems::default();
    let name = namespaced(&api.metadata, &mut problems);
    let spec = api.spec.unwrap_or_default();
    let other_proxy = api.metadata.labels.is_some_and(|l| l.contains_key(LABEL_OTHER_PROXY));
    // Not a rejection: these Services are complete without a proxy, or with another one.
    if other_proxy || is_headless(&spec) || spec.type_.as_deref() == Some("ExternalName") {
        return problems.finish(Service { name, ..Service::default() });
    }
    let cluster_ips = cluster_ips(&spec, &mut problems);
    let ports = ports(&spec, &mut problems);
    let internal_policy = match spec.internal_traffic_policy.as_deref() {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            problems.refuse(
                "spec.internalTrafficPolicy",
                format!("{other:?} is not a traffic policy: write Cluster or Local"),
            );
            TrafficPolicy::Cluster
        }
    };
    not_yet(&spec, &mut problems);
    problems.finish(Service { name, cluster_ips, ports, internal_policy })
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

fn ports(spec: &api::ServiceSpec, problems: &mut Problems) -> Vec<ServicePort> {
    let api_ports = spec.ports.as_deref().unwrap_or_default();
    if api_ports.is_empty() {
        problems.refuse("spec.ports", "is empty: a Service with a cluster IP needs at least one port");
    }
    let mut names = BTreeSet::new();
    let mut numbers: BTreeMap<(u16, Protocol), usize> = BTreeMap::new();
    let mut ports = Vec::new();
    for (i, p) in api_ports.iter().enumerate() {
        let at = |field: &str| format!("spec.ports[{i}].{field}");
        let name = p.name.clone().unwrap_or_default();
        if name.is_empty() && api_ports.len() > 1 {
            problems.refuse(at("name"), "is missing: with more than one port each needs a name");
        } else if !names.insert(name.clone()) {
            problems.refuse(at("name"), format!("{name:?} is the name of an earlier port too"));
        }
        let protocol =
            protocol(p.protocol.as_deref()).map_err(|reason| problems.refuse(at("protocol"), reason));
        let port = port_number(p.port).map_err(|reason| problems.refuse(at("port"), reason));
        let (Ok(protocol), Ok(port)) = (protocol, port) else { continue };
        if let Some(first) = numbers.insert((port, protocol), i) {
            problems.refuse(at("port"), format!("spec.ports[{first}] has the same port and protocol"));
        } else if protocol == Protocol::Sctp {
            problems.part(at("protocol"), "SCTP is not translated yet: the other ports of the Service work");
        } else {
            ports.push(ServicePort { name, protocol, port });
        }
    }
    ports
}

/// What a Service asks for and lbr does not do yet is said, never silently left out.
fn not_yet(spec: &api::ServiceSpec, problems: &mut Problems) {
    let rest = "is not served yet: the cluster IPs of the Service work";
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        problems.part("spec.sessionAffinity", "ClientIP is not honoured yet: each connection is spread anew");
    }
    if matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
        problems.part("spec.type", format!("{} {rest}", spec.type_.as_deref().unwrap_or_default()));
    }
    if spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        problems.part("spec.externalIPs", rest);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn convert(spec: Value) -> Converted<Service> {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"}, "spec": spec,
        });
        from_api(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_service_keeps_what_matters() {
        let converted = convert(json!({
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::10"],
            "internalTrafficPolicy": "Local",
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        }));
        assert_eq!(converted.problems, []);
        let service = converted.object.unwrap();
        assert_eq!(service.name.to_string(), "default/web");
        assert_eq!(
            service.cluster_ips,
            ["10.96.0.10".parse::<IpAddr>().unwrap(), "fd00::10".parse().unwrap()]
        );
        assert_eq!(service.internal_policy, TrafficPolicy::Local);
        let ports: Vec<_> = service.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port)).collect();
        assert_eq!(ports, [("http", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53)]);
    }

    #[test]
    fn services_of_nobody_or_of_another_proxy_are_accepted_and_empty() {
        for spec in [
            json!({"clusterIP": "None"}),
            json!({"clusterIPs": ["None"]}),
            json!({"type": "ExternalName", "externalName": "example.org"}),
            json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
        ] {
            let converted = convert(spec.clone());
            assert_eq!(converted.problems, [], "{spec}");
            assert_eq!(converted.object.unwrap().cluster_ips, [] as [IpAddr; 0], "{spec}");
        }
        let labelled = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "namespace": "b", "labels": {LABEL_OTHER_PROXY: "x"}},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        });
        let converted = from_api(serde_json::from_value(labelled).unwrap());
        assert_eq!(converted.object.unwrap().cluster_ips, [] as [IpAddr; 0]);
    }

    #[test]
    fn what_the_api_refuses_refuses_the_service() {
        let one = json!([{"port": 80}]);
        for (spec, field) in [
            (json!({"ports": one}), "spec.clusterIP"),
            (json!({"clusterIP": "", "ports": one}), "spec.clusterIP"),
            (json!({"clusterIP": "10.96.0.300", "ports": one}), "spec.clusterIP"),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"], "ports": one}),
                "spec.clusterIPs[0]",
            ),
            (json!({"clusterIPs": ["10.0.0.1", "10.0.0.1"], "ports": one}), "spec.clusterIPs[1]"),
            (json!({"clusterIP": "10.0.0.1"}), "spec.ports"),
            (json!({"clusterIP": "10.0.0.1", "ports": [{}]}), "spec.ports[0].port"),
            (json!({"clusterIP": "10.0.0.1", "ports": [{"port": 70000}]}), "spec.ports[0].port"),
            (
                json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "protocol": "tcp"}]}),
                "spec.ports[0].protocol",
            ),
            (
                json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "name": "a"}, {"port": 2}]}),
                "spec.ports[1].name",
            ),
            (
                json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}),
                "spec.ports[1].name",
            ),
            (
                json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}),
                "spec.ports[1].port",
            ),
            (
                json!({"clusterIP": "10.0.0.1", "ports": one, "internalTrafficPolicy": "Nearby"}),
                "spec.internalTrafficPolicy",
            ),
        ] {
            let converted = convert(spec.clone());
            assert_eq!(converted.object, None, "{spec}");
            let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
            assert_eq!(fields, [field], "{spec}");
        }
    }

    #[test]
    fn what_lbr_does_not_translate_costs_only_that_part() {
        for (spec, field, ips, ports) in [
            (
                json!({"clusterIP": "10.0.0.1", "ports": [
                    {"port": 1, "name": "a", "protocol": "SCTP"}, {"port": 1, "name": "b"}]}),
                "spec.ports[0].protocol",
                1,
                1,
            ),
            (
                json!({"clusterIPs": ["127.0.0.1", "fd00::1"], "ports": [{"port": 1}]}),
                "spec.clusterIPs[0]",
                1,
                1,
            ),
            (json!({"clusterIP": "169.254.0.1", "ports": [{"port": 1}]}), "spec.clusterIP", 0, 1),
            (json!({"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 1}]}), "spec.type", 1, 1),
            (
                json!({"sessionAffinity": "ClientIP", "clusterIP": "10.0.0.1", "ports": [{"port": 1}]}),
                "spec.sessionAffinity",
                1,
                1,
            ),
            (
                json!({"externalIPs": ["192.0.2.1"], "clusterIP": "10.0.0.1", "ports": [{"port": 1}]}),
                "spec.externalIPs",
                1,
                1,
            ),
        ] {
            let converted = convert(spec.clone());
            let service = converted.object.unwrap();
            let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
            assert_eq!(
                (fields, service.cluster_ips.len(), service.ports.len()),
                (vec![field], ips, ports),
                "{spec}"
            );
        }
    }
}
