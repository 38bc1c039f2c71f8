//! The pods of this node, by the tables.

use std::net::IpAddr;

use lbr_common::policy::policy_flags;
use lbr_common::text::PodName;

use crate::node::links::PodAddresses;
use crate::table::PolicyMaps;

/// Addresses of this node's pods.
pub(super) fn of(maps: &PolicyMaps) -> PodAddresses {
    let pods = maps.endpoints.desired().iter().filter(|(_, e)| e.policy.flags & policy_flags::POD != 0);
    pods.map(|(addr, _)| (IpAddr::from(*addr), name(maps.pod_names.get(addr)))).collect()
}

/// `namespace/name`, empty if it is not known.
pub(super) fn name(name: Option<&PodName>) -> String {
    name.map(|name| format!("{}/{}", name.namespace.as_str(), name.name.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use lbr_common::text::Text;

    use super::*;
    use crate::desired::{Desired, EndpointPolicy};

    #[test]
    fn pods_are_named_with_and_without_a_link_and_nothing_else_is() {
        let mut desired = Desired::default();
        for (addr, flags, link) in [
            ("10.1.0.5", policy_flags::POD, 0),
            ("10.1.0.6", policy_flags::POD | policy_flags::ISOLATED_IN, 7),
            ("fd00::5", policy_flags::POD, 0),
            ("10.1.0.7", policy_flags::PENDING, 8),
            ("192.0.2.1", policy_flags::NODE, 0),
        ] {
            let mut endpoint = EndpointPolicy { ifindex: link, ..EndpointPolicy::default() };
            endpoint.policy.flags = flags;
            desired.endpoints.insert(addr.parse::<IpAddr>().unwrap().into(), endpoint);
        }
        let name = PodName { namespace: Text::new("ns"), name: Text::new("web") };
        desired.pod_names.insert("10.1.0.6".parse::<IpAddr>().unwrap().into(), name);
        let expected = [("10.1.0.5", ""), ("10.1.0.6", "ns/web"), ("fd00::5", "")];
        let expected = expected.map(|(addr, pod)| (addr.parse().unwrap(), pod.to_owned()));
        let mut maps = PolicyMaps::default();
        maps.set_desired(&mut desired);
        assert_eq!(of(&maps), expected.into());
    }
}
