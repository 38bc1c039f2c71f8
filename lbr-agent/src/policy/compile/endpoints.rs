//! The addresses of this node and of its pods: `endpoints` and `link_policy`. They are few, and written as a whole.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbr_common::addr::Addr;
use lbr_common::policy::{Policy, policy_flags};

use super::owners::Owners;
use super::subjects::Subjects;
use crate::cluster::ClusterState;
use crate::desired::EndpointPolicy;
use crate::node::NodeView;
use crate::node::direct::DirectLinks;
use crate::node::here::own_addresses;
use crate::table::PolicyMaps;

/// Sets both tables.
pub(super) fn write(
    subjects: &Subjects,
    owners: &Owners,
    state: &ClusterState,
    node: &NodeView,
    maps: &mut PolicyMaps,
) {
    let mut endpoints = of_node(owners, state, node);
    let mut link_policy: BTreeMap<u32, u32> = BTreeMap::new();
    let direct = DirectLinks::new(&node.links);
    let link_of = |addr: &Addr| {
        let ip = IpAddr::from(*addr);
        node.links.addresses.get(&ip).copied().unwrap_or_else(|| direct.of(ip))
    };
    for (_, subject) in subjects.iter() {
        let links: Vec<u32> = subject.addresses.iter().map(link_of).collect();
        // All addresses of a pod are behind its one link, even those without a route or a neighbour entry.
        let other = links.iter().copied().find(|&link| link != 0).unwrap_or(0);
        for (&addr, &own) in subject.addresses.iter().zip(&links) {
            let link = if own != 0 { own } else { other };
            endpoints.insert(addr, EndpointPolicy { ifindex: link, policy: subject.policy });
            if link != 0 {
                *link_policy.entry(link).or_default() |= subject.policy.flags;
            }
        }
    }
    maps.endpoints.set_desired(endpoints);
    maps.link_policy.set_desired(link_policy);
}

/// The node itself, and addresses behind pods' links whose pod is not known yet. Pods overwrite these.
fn of_node(owners: &Owners, state: &ClusterState, node: &NodeView) -> BTreeMap<Addr, EndpointPolicy> {
    let flags = |flags| Policy { flags, ..Policy::default() };
    let mut endpoints = BTreeMap::new();
    for (&ip, &link) in &node.links.addresses {
        let addr = Addr::from(ip);
        if node.links.links.contains_key(&link) && !owners.has(addr) {
            endpoints.insert(addr, EndpointPolicy { ifindex: link, policy: flags(policy_flags::PENDING) });
        }
    }
    for ip in own_addresses(state, node) {
        endpoints.insert(ip.into(), EndpointPolicy { ifindex: 0, policy: flags(policy_flags::NODE) });
    }
    endpoints
}
