//! `v1` Node.

use k8s_openapi::api::core::v1 as api;

use super::Node;
use super::convert::{Converted, Problems, address, cluster_scoped};

/// The cluster autoscaler is about to remove the node; load balancers should send nothing new to it.
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
    let taints = api.spec.and_then(|s| s.taints).unwrap_or_default();
    problems.finish(Node {
        name,
        labels: api.metadata.labels.unwrap_or_default(),
        addresses: [internal, external].concat(),
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
        assert_eq!(converted.problems[0].field, "status.addresses[2].address");
    }
}
