//! From NetworkPolicies, Pods and Namespaces to the tables of `lbr_common::policy`.
//!
//! ```text
//! pods ──> Owners ────────────┬──> endpoints, link_policy
//! policies ──> Active ──┐     │
//!                       ├──> Terms, Regions ──> Classes ──> ip_class, cidr_class
//!                       └──────────────────────────┴──> Sets ──> port_class, verdicts
//! ```
//!
//! Only policies that select a pod of this node have an effect. A *term* is one question that they ask about a peer's
//! address; a class is the combination of terms that hold for an address.

mod active;
mod blocks;
mod canon;
mod classes;
mod names;
mod pods;
mod ports;
mod publish;
mod rules_text;
mod selectors;
mod sets;
mod subjects;
mod terms;
mod verdicts;

use std::collections::BTreeSet;

use lbr_common::id::PolicyId;
use lbr_common::policy::direction;
use lbr_common::text::{PolicyRecord, RuleKey, RuleText, Text, policy_kind};

use self::active::{Active, ActivePolicy};
use self::blocks::Regions;
use self::pods::Owners;
use self::sets::Sets;
use super::fit::StandIns;
use crate::cluster::ClusterState;
use crate::desired::Desired;
use crate::ids::Ids;
use crate::model::{Extent, PolicyRule, Rejected};
use crate::node::NodeView;

/// Compiles the policies, with a stand-in for each that the maps have no room for.
pub(crate) fn compile(
    state: &ClusterState,
    without_room: &StandIns,
    node: &NodeView,
    ids: &mut Ids,
    desired: &mut Desired,
    rejected: &mut Vec<Rejected>,
) {
    let pool = ids.policy();
    let owners = Owners::new(&state.pods, &node.name, rejected);
    let mut active = Active::new(state, without_room, &node.name, &owners);
    let regions = Regions::new(&active.terms);
    let classes = classes::find(state, &owners, &regions, &active.named, &mut active.terms);
    let class_ids = publish::publish(&classes, &regions, &active.terms, pool, desired);
    let policy_ids: Vec<PolicyId> =
        active.policies.iter().map(|active| pool.policy(&active.policy.name)).collect();
    for (active, &id) in active.policies.iter().zip(&policy_ids) {
        describe(active, id, desired);
    }
    for subject in &active.subjects {
        let ids: BTreeSet<_> = subject.policies.iter().filter_map(|&number| policy_ids.get(number)).collect();
        for id in ids {
            desired.policies.entry(*id).and_modify(|record| record.pods += 1);
        }
    }
    let mut sets = Sets::new(&active, &policy_ids, &classes, &class_ids, pool);
    subjects::write_node(state, node, &owners, desired);
    subjects::write_pods(&active, node, &mut sets, pool, desired);
    desired.pod_names = owners.names();
    rejected.extend(without_room.iter().map(|(name, stand_in)| Rejected {
        extent: Extent::Rejected,
        object: format!("NetworkPolicy {name}"),
        origin: String::new(),
        field: String::new(),
        reason: stand_in.reason.clone(),
    }));
}

/// Writes the records that `lbr show` and `lbr why` read about a policy. Of its versions in force, those with rules count;
/// two of them have the same rules in each direction.
fn describe(active: &ActivePolicy<'_>, id: PolicyId, desired: &mut Desired) {
    let policy = active.policy;
    let count = |rules: &Option<Vec<PolicyRule>>| {
        u32::try_from(rules.as_ref().map_or(0, Vec::len)).unwrap_or(u32::MAX)
    };
    let mut kind = 0;
    for (bit, is) in [
        (policy_kind::INGRESS, policy.ingress.is_some()),
        (policy_kind::EGRESS, policy.egress.is_some()),
        (policy_kind::AUDIT, policy.audit),
        (policy_kind::WITHOUT_ROOM, !active.has_rules),
    ] {
        kind |= if is { bit } else { 0 };
    }
    let other = desired.policies.get(&id).filter(|other| other.kind & policy_kind::WITHOUT_ROOM == 0);
    let other = other.copied().unwrap_or_default();
    let record = PolicyRecord {
        namespace: Text::new(&policy.name.namespace),
        name: Text::new(&policy.name.name),
        kind: kind | other.kind,
        pods: 0,
        ingress_rules: count(&policy.ingress).max(other.ingress_rules),
        egress_rules: count(&policy.egress).max(other.egress_rules),
    };
    desired.policies.insert(id, record);
    if !active.has_rules {
        return;
    }
    for (direction, field, rules) in
        [(direction::INGRESS, "from", &policy.ingress), (direction::EGRESS, "to", &policy.egress)]
    {
        for (rule, model) in (0..).zip(rules.iter().flatten()) {
            let yaml = Text::new(&rules_text::yaml(model, field));
            desired.rules.insert(RuleKey { policy: id, direction, rule }, RuleText { yaml });
        }
    }
}

#[cfg(test)]
mod tests;
