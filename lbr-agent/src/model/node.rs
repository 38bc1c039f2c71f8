//! `v1` Node.

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as api;

use super::Node;
use super::convert::{Converted, Problems, address, cluster_scoped};

/// Set when the cluster autoscaler is about to remove the node; load balancers should send nothing new to it.
const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// Reduces a Node to what matters here.
pub fn from_api(api: api::Node) -> Converted<Node> {
    let mut problems = Problems::default();
    let name = cluster_scoped(&api.metadata, &mut problems);
    let (mut internal, mut external) = (Vec::new(), Vec::new());
    let reported = api.status.and_then(|s| s.addresses).unwrap_or_default();
    for (i, reported) in reported.into_iter().enumerate() {
        let addresses = match reported.type_.as_str() {
            "InternalIP" => &mut internal,
            "ExternalIP" => &mut external,
            // The other types are names.
            _ => continue,
        };
        match address(&reported.address) {
            Ok(addr) => addresses.push(addr),
            Err(reason) => problems.part(format!("status.addresses[{i}].address"), reason),
        }
    }
    let spec = api.spec.unwrap_or_default();
    let mut pod_cidrs = Vec::new();
    for (i, text) in spec.pod_cidrs.unwrap_or_default().iter().enumerate() {
        match text.parse::<IpNet>() {
            Ok(net) => pod_cidrs.push(net.trunc()),
            Err(_) => {
                problems.part(format!("spec.podCIDRs[{i}]"), format!("{text:?} is not a block of addresses"))
            }
        }
    }
    let taints = spec.taints.unwrap_or_default();
    problems.finish(Node {
        name,
        labels: api.metadata.labels.unwrap_or_default(),
        addresses: [internal, external].concat(),
        pod_cidrs,
        is_deleting: api.metadata.deletion_timestamp.is_some(),
        is_to_be_deleted: taints.iter().any(|taint| taint.key == TAINT_TO_BE_DELETED),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_that_leaves_says_so() {
        let node = |metadata: &str, taint: &str| {
            let object = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": "n1", metadata: "2026-01-31T08:15:30Z"},
                "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]},
            });
            let node = from_api(serde_json::from_value(object).unwrap()).object.unwrap();
            (node.is_deleting, node.is_to_be_deleted)
        };
        assert_eq!(node("creationTimestamp", "node.kubernetes.io/unreachable"), (false, false));
        assert_eq!(node("deletionTimestamp", "other"), (true, false));
        assert_eq!(node("creationTimestamp", "ToBeDeletedByClusterAutoscaler"), (false, true));
    }

    #[test]
    fn only_addresses_are_addresses() {
        let object = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}},
            "spec": {"podCIDRs": ["10.244.1.7/24", "x"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"}, {"type": "ExternalIP", "address": "2001:db8::1"},
                {"type": "ExternalIP", "address": "x"}, {"type": "InternalIP", "address": "192.0.2.1"},
            ]},
        });
        let converted = from_api(serde_json::from_value(object).unwrap());
        let node = converted.object.unwrap();
        let expected: [std::net::IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(node.addresses, expected, "internal ones first");
        assert_eq!(node.labels["topology.kubernetes.io/zone"], "z");
        assert_eq!(node.pod_cidrs, ["10.244.1.0/24".parse::<IpNet>().unwrap()]);
        let fields: Vec<&str> = converted.problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["status.addresses[2].address", "spec.podCIDRs[1]"]);
    }
}
