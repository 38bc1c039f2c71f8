//! Names for addresses and numbers, from the maps that are kept for people.

use lbr_common::addr::Addr;
use lbr_common::id::{PolicyId, PolicySetId};
use lbr_common::policy::direction;
use lbr_common::text::{MemberKey, policy_kind};

use crate::desired::Desired;
use crate::interface;

/// `namespace/name` of the pod that has this address, on any node.
pub(super) fn pod(tables: &Desired, addr: &Addr) -> Option<String> {
    let name = tables.pod_names.get(addr)?;
    Some(format!("{}/{}", name.namespace.as_str(), name.name.as_str()))
}

/// `namespace/name` of a policy; its number if it is gone.
pub(super) fn policy(tables: &Desired, id: PolicyId) -> String {
    match tables.policies.get(&id) {
        Some(record) => format!("{}/{}", record.namespace.as_str(), record.name.as_str()),
        None => format!("#{id}"),
    }
}

/// Ids of the policies that make up a set.
pub(super) fn members(tables: &Desired, set: PolicySetId) -> impl Iterator<Item = PolicyId> {
    let all = MemberKey { set, number: 0 }..=MemberKey { set, number: u32::MAX };
    tables.set_members.range(all).map(|(_, member)| member.policy)
}

/// Names of the policies of a set that isolate in a direction, and so could have allowed something.
pub(super) fn isolating(tables: &Desired, set: PolicySetId, direction: u32) -> Vec<String> {
    let isolates = |id: &PolicyId| tables.policies.get(id).is_none_or(|p| p.kind & kind(direction) != 0);
    members(tables, set).filter(isolates).map(|id| policy(tables, id)).collect()
}

/// The bit of `policy_kind` for a direction.
pub(super) fn kind(direction: u32) -> u32 {
    if direction == direction::INGRESS { policy_kind::INGRESS } else { policy_kind::EGRESS }
}

/// `ingress` or `egress`.
pub(super) fn direction_name(direction: u32) -> &'static str {
    if direction == direction::INGRESS { "ingress" } else { "egress" }
}

/// Name of an interface of this network namespace; its number if it is gone.
pub(super) fn link(ifindex: u32) -> String {
    interface::name(ifindex).unwrap_or_else(|| format!("#{ifindex}"))
}
