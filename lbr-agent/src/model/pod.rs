//! `v1` Pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;

use super::convert::{Converted, Problems, address, namespaced, port_number, protocol};
use super::{Pod, Protocol};

/// Reduces a Pod to what matters here.
pub fn from_api(api: api::Pod) -> Converted<Pod> {
    let mut problems = Problems::default();
    let name = namespaced(&api.metadata, &mut problems);
    let spec = api.spec.unwrap_or_default();
    let ips = ips(api.status.unwrap_or_default(), &mut problems);
    let named_ports = named_ports(&spec, &mut problems);
    problems.finish(Pod {
        name,
        uid: api.metadata.uid.unwrap_or_default(),
        labels: api.metadata.labels.unwrap_or_default(),
        ips,
        node: spec.node_name.unwrap_or_default(),
        host_network: spec.host_network.unwrap_or(false),
        terminating: api.metadata.deletion_timestamp.is_some(),
        named_ports,
    })
}

fn ips(status: api::PodStatus, problems: &mut Problems) -> Vec<IpAddr> {
    // A pod that has ended is neither subject nor peer of a policy: its address may be another pod's by now.
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let mut texts: Vec<(String, String)> = Vec::new();
    for (i, ip) in status.pod_ips.into_iter().flatten().enumerate() {
        texts.push((format!("status.podIPs[{i}].ip"), ip.ip));
    }
    if let (true, Some(ip)) = (texts.is_empty(), status.pod_ip) {
        texts.push(("status.podIP".to_owned(), ip));
    }
    let mut ips = Vec::new();
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        match address(&text) {
            Ok(ip) => ips.push(ip),
            Err(reason) => problems.part(field, reason),
        }
    }
    ips
}

fn named_ports(spec: &api::PodSpec, problems: &mut Problems) -> BTreeMap<(String, Protocol), u16> {
    // An init container that restarts runs as long as the pod, so its ports are the pod's.
    let sidecars = spec.init_containers.iter().flatten().enumerate();
    let sidecars = sidecars.filter(|(_, c)| c.restart_policy.as_deref() == Some("Always"));
    let containers = spec.containers.iter().enumerate();
    let all =
        containers.map(|(i, c)| ("containers", i, c)).chain(sidecars.map(|(i, c)| ("initContainers", i, c)));
    let mut named = BTreeMap::new();
    for (list, i, container) in all {
        for (j, p) in container.ports.iter().flatten().enumerate() {
            let Some(name) = p.name.clone().filter(|n| !n.is_empty()) else { continue };
            let at = |field: &str| format!("spec.{list}[{i}].ports[{j}].{field}");
            let protocol = protocol(p.protocol.as_deref()).map_err(|r| problems.part(at("protocol"), r));
            let port = port_number(p.container_port).map_err(|r| problems.part(at("containerPort"), r));
            let (Ok(protocol), Ok(port)) = (protocol, port) else { continue };
            named.entry((name, protocol)).or_insert(port);
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn convert(spec: Value, status: Value) -> Converted<Pod> {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "labels": {"app": "a"}},
            "spec": spec, "status": status,
        });
        from_api(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn addresses_follow_the_phase() {
        let both = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
        for (status, count) in [
            (json!({}), 0),
            (json!({"phase": "Running", "podIP": "10.0.0.1"}), 1),
            (json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": both}), 2),
            (json!({"phase": "Succeeded", "podIPs": both}), 0),
            (json!({"phase": "Failed", "podIPs": both}), 0),
        ] {
            let converted = convert(json!({"containers": []}), status.clone());
            assert_eq!(converted.object.unwrap().ips.len(), count, "{status}");
        }
        let converted =
            convert(json!({"containers": []}), json!({"podIPs": [{"ip": "x"}, {"ip": "10.0.0.1"}]}));
        assert_eq!(converted.object.unwrap().ips.len(), 1);
        assert_eq!(converted.problems[0].field, "status.podIPs[0].ip");
    }

    #[test]
    fn named_ports_include_restartable_init_containers() {
        let spec = json!({
            "nodeName": "n", "hostNetwork": true,
            "containers": [{"name": "c", "ports": [
                {"name": "web", "containerPort": 80}, {"containerPort": 81},
                {"name": "web", "containerPort": 53, "protocol": "UDP"},
                {"name": "bad", "containerPort": 0},
            ]}],
            "initContainers": [
                {"name": "once", "ports": [{"name": "gone", "containerPort": 1}]},
                {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 2}]},
            ],
        });
        let converted = convert(spec, json!({}));
        assert_eq!(converted.problems[0].field, "spec.containers[0].ports[3].containerPort");
        let pod = converted.object.unwrap();
        let ports: Vec<_> =
            pod.named_ports.iter().map(|((n, p), number)| (n.as_str(), *p, *number)).collect();
        assert_eq!(
            ports,
            [("mesh", Protocol::Tcp, 2), ("web", Protocol::Tcp, 80), ("web", Protocol::Udp, 53)]
        );
        assert_eq!((pod.node.as_str(), pod.uid.as_str(), pod.host_network), ("n", "u", true));
        assert_eq!(pod.labels["app"], "a");
    }
}
