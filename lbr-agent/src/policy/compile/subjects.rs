//! The addresses of this node and of its pods: `endpoints` and `link_policy`.

use std::net::IpAddr;

use lbr_common::addr::Addr;
use lbr_common::policy::{Policy, policy_flags};

use super::active::{Active, Subject};
use super::pods::Owners;
use super::sets::Sets;
use crate::cluster::ClusterState;
use crate::desired::{Desired, EndpointPolicy};
use crate::ids::PolicyIds;
use crate::node::NodeView;
use crate::node::direct::DirectLinks;
use crate::node::here::own_addresses;

/// The node itself, and addresses behind pods' links whose pod is not known yet. Pods overwrite these.
pub(super) fn write_node(state: &ClusterState, node: &NodeView, owners: &Owners<'_>, desired: &mut Desired) {
    let flags = |flags| Policy { flags, ..Policy::default() };
    for (&ip, &link) in &node.links.addresses {
        let addr = Addr::from(ip);
        if node.links.links.contains_key(&link) && !owners.has(addr) {
            desired
                .endpoints
                .insert(addr, EndpointPolicy { ifindex: link, policy: flags(policy_flags::PENDING) });
        }
    }
    for ip in own_addresses(state, node) {
        let endpoint = EndpointPolicy { ifindex: 0, policy: flags(policy_flags::NODE) };
        desired.endpoints.insert(ip.into(), endpoint);
    }
}

/// The pods.
pub(super) fn write_pods(
    active: &Active<'_>,
    node: &NodeView,
    sets: &mut Sets<'_>,
    pool: &mut PolicyIds,
    desired: &mut Desired,
) {
    let direct = DirectLinks::new(&node.links);
    let link_of = |addr: &Addr| {
        let ip = IpAddr::from(*addr);
        node.links.addresses.get(&ip).copied().unwrap_or_else(|| direct.of(ip))
    };
    for subject in &active.subjects {
        let policy = policy(active, subject, sets, pool, desired);
        let links: Vec<u32> = subject.addresses.iter().map(link_of).collect();
        // All addresses of a pod are behind its one link, even those without a route or a neighbour entry.
        let other = links.iter().copied().find(|&link| link != 0).unwrap_or(0);
        for (&addr, &own) in subject.addresses.iter().zip(&links) {
            let link = if own != 0 { own } else { other };
            desired.endpoints.insert(addr, EndpointPolicy { ifindex: link, policy });
            if link != 0 {
                *desired.link_policy.entry(link).or_default() |= policy.flags;
            }
        }
    }
}

fn policy(
    active: &Active<'_>,
    subject: &Subject<'_>,
    sets: &mut Sets<'_>,
    pool: &mut PolicyIds,
    desired: &mut Desired,
) -> Policy {
    let mut flags = policy_flags::POD;
    let (mut enforced, mut all) = (Vec::new(), Vec::new());
    for &number in &subject.policies {
        let Some(active) = active.policies.get(number) else { continue };
        let policy = active.policy;
        let (ingress, egress) = match policy.audit {
            true => (policy_flags::AUDIT_IN, policy_flags::AUDIT_OUT),
            false => (policy_flags::ISOLATED_IN, policy_flags::ISOLATED_OUT),
        };
        if policy.ingress.is_some() {
            flags |= ingress;
        }
        if policy.egress.is_some() {
            flags |= egress;
        }
        // A policy without rules in force adds nothing to a set, so that other sets stay as they are.
        if !active.has_rules {
            continue;
        }
        all.push(number);
        if !policy.audit {
            enforced.push(number);
        }
    }
    // Audited policies are judged as if they were enforced, together with those that are.
    let audited = flags & (policy_flags::AUDIT_IN | policy_flags::AUDIT_OUT) != 0;
    let all = if audited { all } else { Vec::new() };
    let set = sets.of(enforced, subject.pod, pool, desired);
    let audit = sets.of(all, subject.pod, pool, desired);
    Policy { set, audit, flags }
}
