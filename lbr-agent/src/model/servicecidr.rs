//! `networking.k8s.io/v1` ServiceCIDR.

use k8s_openapi::api::networking::v1 as api;

use super::ServiceCidr;
use super::convert::{Converted, Problems, cluster_scoped, not_a_block};

/// Reduces a ServiceCIDR to what matters here.
pub fn from_api(api: api::ServiceCIDR) -> Converted<ServiceCidr> {
    let mut problems = Problems::default();
    let name = cluster_scoped(&api.metadata, &mut problems);
    let mut cidrs = Vec::new();
    for (i, cidr) in api.spec.and_then(|spec| spec.cidrs).unwrap_or_default().iter().enumerate() {
        match cidr.parse::<ipnet::IpNet>() {
            // Packets to a free address in these blocks end on the node.
            Ok(net) if net.prefix_len() == 0 => {
                problems.part(
                    format!("spec.cidrs[{i}]"),
                    format!("{cidr:?} covers every address: write a smaller block"),
                );
            }
            Ok(net) => cidrs.push(net.trunc()),
            Err(_) => problems.part(format!("spec.cidrs[{i}]"), not_a_block(cidr)),
        }
    }
    problems.finish(ServiceCidr { name, cidrs })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_bad_block_costs_nothing_else() {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": ["10.96.0.1/12", "x", "fd00::/108", "::/0"]},
        });
        let converted = from_api(serde_json::from_value(object).unwrap());
        let expected = ["10.96.0.0/12", "fd00::/108"].map(|net| net.parse().unwrap());
        assert_eq!(converted.object.unwrap().cidrs, expected);
        let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["spec.cidrs[1]", "spec.cidrs[3]"]);
    }
}
