//! The pods of this node, and the policies that select them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lbr_common::addr::Addr;
use lbr_common::policy::{Policy, policy_flags};

use super::owners::Owners;
use super::selectors::{SelectorIndex, selects, view};
use super::versions::{Key, Versions, in_force};
use crate::cluster::ClusterState;
use crate::model::{NetworkPolicy, ObjectName, Pod, in_namespace};
use crate::policy::stand_in::StandIns;

/// A pod of this node with an address.
#[derive(Debug, Default)]
pub(super) struct Subject {
    pub(super) addresses: Vec<Addr>,
    /// The versions that select it, in order.
    pub(super) keys: Vec<Key>,
    /// What the maps say of it.
    pub(super) policy: Policy,
}

/// A version in force, and its content.
pub(super) type InForce = (Key, Arc<NetworkPolicy>);

/// All pods of this node with an address.
#[derive(Debug, Default)]
pub(super) struct Subjects(BTreeMap<ObjectName, Subject>);

impl Subjects {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Subject)> {
        self.0.iter()
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<&Subject> {
        self.0.get(name)
    }

    pub(super) fn get_mut(&mut self, name: &ObjectName) -> Option<&mut Subject> {
        self.0.get_mut(name)
    }

    /// Takes the addresses of a pod as they are now. Returns whether it is one of these.
    pub(super) fn take(
        &mut self,
        name: &ObjectName,
        owners: &Owners,
        state: &ClusterState,
        node: &str,
    ) -> bool {
        let pod = state.pods.get(name).filter(|pod| pod.node == node);
        let addresses = pod.map(|pod| owners.addresses(pod, node, &state.pods)).unwrap_or_default();
        let is_here = !addresses.is_empty();
        if is_here {
            self.0.entry(name.clone()).or_default().addresses = addresses;
        }
        is_here
    }

    /// Forgets a pod.
    pub(super) fn remove(&mut self, name: &ObjectName) {
        self.0.remove(name);
    }

    /// The pods of a namespace, in order.
    pub(super) fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a ObjectName> {
        in_namespace(&self.0, namespace).map(|(name, _)| name)
    }
}

/// Finds the versions that select each of these pods, in order.
pub(super) fn select(
    pods: &BTreeSet<&ObjectName>,
    state: &ClusterState,
    without_room: &StandIns,
    mut found: impl FnMut(&ObjectName, Vec<&InForce>),
) {
    let mut pods = pods.iter().filter_map(|name| state.pods.get(*name)).peekable();
    while let Some(first) = pods.peek() {
        let namespace = first.name.namespace.as_str();
        let policies = in_namespace(&state.policies, namespace);
        let versions: Vec<InForce> =
            policies.flat_map(|(name, _)| in_force(name, state, without_room)).collect();
        let mut index = SelectorIndex::default();
        for version in &versions {
            index.add(&version.1.pods, version);
        }
        while let Some(pod) = pods.next_if(|pod| pod.name.namespace == namespace) {
            let mut selected = Vec::new();
            index.find(&view(&pod.labels), |version| selected.push(version));
            selected.sort_by(|one, other| one.0.cmp(&other.0));
            found(&pod.name, selected);
        }
    }
}

/// Whether a version selects a pod.
pub(super) fn is_selected(pod: &Pod, version: &InForce) -> bool {
    selects(&version.1.pods, &pod.labels)
}

/// What these versions do to a pod: flags, what they enforce, and what they would deny if all were enforced.
pub(super) fn effect(keys: &[Key], versions: &Versions) -> (u32, Vec<Key>, Vec<Key>) {
    let mut flags = policy_flags::POD;
    let (mut enforced, mut all) = (Vec::new(), Vec::new());
    for key in keys {
        let Some(version) = versions.get(key) else { continue };
        let policy = &version.policy;
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
        if !key.has_rules {
            continue;
        }
        all.push(key.clone());
        if !policy.audit {
            enforced.push(key.clone());
        }
    }
    // Audited policies are judged as if they were enforced, together with those that are.
    if flags & (policy_flags::AUDIT_IN | policy_flags::AUDIT_OUT) == 0 {
        all.clear();
    }
    (flags, enforced, all)
}
