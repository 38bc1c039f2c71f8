//! The policies that select pods of this node, in the versions that are in force. Other policies have no effect here.

use std::collections::BTreeMap;
use std::sync::Arc;

use lbr_common::id::PolicyId;

use super::body::Body;
use super::terms::{Term, TermId, Terms};
use crate::cluster::ClusterState;
use crate::ids::PolicyIds;
use crate::model::{NetworkPolicy, ObjectName, PolicyPort, PolicyRule, PortSet, Protocol};
use crate::policy::stand_in::StandIns;

/// A version of a policy. One policy has several if its last version fits and its present one does not, or if its
/// present version is rejected and selects other pods. Versions with rules come last, and are those shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) name: ObjectName,
    /// Its rules are in force. If not, there is no room for them, and it only isolates.
    pub(super) has_rules: bool,
    /// A rejected edit.
    pub(super) is_edit: bool,
}

/// A named port.
pub(super) type NamedPort = (String, Protocol);

/// Named ports, and how many rules ask for each.
pub(super) type NamedPorts = BTreeMap<NamedPort, usize>;

/// A version that selects at least one pod of this node.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) policy: Arc<NetworkPolicy>,
    /// Number in the maps.
    pub(super) id: PolicyId,
    /// For each rule in force of what comes in: the terms of its peers. Any of these; `None`: every peer (B1).
    pub(super) ingress: Vec<Option<Vec<TermId>>>,
    /// The same of what goes out.
    pub(super) egress: Vec<Option<Vec<TermId>>>,
    /// Content for the sets that it is part of.
    pub(super) body: Body,
    /// How many pods of this node it selects.
    subjects: usize,
}

impl Version {
    /// The rules in force for what comes in, with the terms of their peers.
    pub(super) fn ingress(&self) -> impl Iterator<Item = (&PolicyRule, &Option<Vec<TermId>>)> {
        self.policy.ingress.iter().flatten().zip(&self.ingress)
    }

    /// The same for what goes out.
    pub(super) fn egress(&self) -> impl Iterator<Item = (&PolicyRule, &Option<Vec<TermId>>)> {
        self.policy.egress.iter().flatten().zip(&self.egress)
    }

    /// Whether it has named ports for what goes out.
    pub(super) fn has_numbers(&self) -> bool {
        named_in(self.egress()).next().is_some()
    }

    /// All terms that it asks.
    pub(super) fn terms(&self) -> impl Iterator<Item = TermId> {
        self.ingress.iter().chain(&self.egress).flatten().flatten().copied()
    }
}

/// The versions in use.
#[derive(Debug, Default)]
pub(super) struct Versions {
    all: BTreeMap<Key, Version>,
    /// Named ports of rules for what goes out.
    pub(super) named: NamedPorts,
}

impl Versions {
    pub(super) fn get(&self, key: &Key) -> Option<&Version> {
        self.all.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Version> {
        self.all.get_mut(key)
    }

    /// All versions, in order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Version)> {
        self.all.iter()
    }

    /// The versions of a policy.
    pub(super) fn of<'a>(&'a self, name: &'a ObjectName) -> impl Iterator<Item = (&'a Key, &'a Version)> {
        let first = Key { name: name.clone(), has_rules: false, is_edit: false };
        self.all.range(first..).take_while(move |(key, _)| key.name == *name)
    }

    /// The version selects one more pod. True if it is new.
    pub(super) fn enter(
        &mut self,
        key: &Key,
        policy: &Arc<NetworkPolicy>,
        terms: &mut Terms,
        ids: &mut PolicyIds,
    ) -> bool {
        if let Some(version) = self.all.get_mut(key) {
            version.subjects += 1;
            return false;
        }
        let mut rules = |rules: &Option<Vec<PolicyRule>>| -> Vec<Option<Vec<TermId>>> {
            let in_force = rules.iter().flatten().filter(|_| key.has_rules);
            in_force.map(|rule| peers(rule, &key.name.namespace, terms, ids)).collect()
        };
        let (ingress, egress) = (rules(&policy.ingress), rules(&policy.egress));
        let id = ids.policy(&key.name);
        let version =
            Version { policy: policy.clone(), id, ingress, egress, body: Body::default(), subjects: 1 };
        for port in named_in(version.egress()) {
            *self.named.entry(port).or_default() += 1;
        }
        self.all.insert(key.clone(), version);
        true
    }

    /// The version selects one pod less. If it was the last one, the version is forgotten, and returned.
    pub(super) fn leave(&mut self, key: &Key, terms: &mut Terms) -> Option<Version> {
        let version = self.all.get_mut(key)?;
        version.subjects = version.subjects.saturating_sub(1);
        if version.subjects > 0 {
            return None;
        }
        let version = self.all.remove(key)?;
        version.terms().for_each(|term| terms.leave(term));
        for port in named_in(version.egress()) {
            if let Some(count) = self.named.get_mut(&port) {
                *count -= 1;
                if *count == 0 {
                    self.named.remove(&port);
                }
            }
        }
        Some(version)
    }
}

fn peers(rule: &PolicyRule, namespace: &str, terms: &mut Terms, ids: &mut PolicyIds) -> Option<Vec<TermId>> {
    let mut numbers = Vec::new();
    for peer in &rule.peers {
        let term = terms.enter(Term::of(peer, namespace), ids);
        match numbers.contains(&term) {
            true => terms.leave(term),
            false => numbers.push(term),
        }
    }
    (!rule.peers.is_empty()).then_some(numbers)
}

/// The named ports of rules.
pub(super) fn named_in<'a, T: 'a>(
    rules: impl Iterator<Item = (&'a PolicyRule, T)>,
) -> impl Iterator<Item = NamedPort> {
    rules.flat_map(|(rule, _)| &rule.ports).filter_map(named_port).map(|(name, p)| (name.to_owned(), p))
}

/// The name, if a port has one.
pub(super) fn named_port(port: &PolicyPort) -> Option<(&str, Protocol)> {
    match &port.ports {
        PortSet::Named(name) => Some((name, port.protocol)),
        PortSet::All | PortSet::Range(..) => None,
    }
}

/// The versions in force of a policy. A version without room still isolates the pods that it selects; if it is audited,
/// it audits nothing. A version that isolates no direction has no effect.
pub(super) fn in_force(
    name: &ObjectName,
    state: &ClusterState,
    without_room: &StandIns,
) -> Vec<(Key, Arc<NetworkPolicy>)> {
    let Some(policy) = state.policies.get(name) else { return Vec::new() };
    let stand_in = without_room.get(name);
    let last = stand_in.and_then(|stand_in| stand_in.version.as_ref());
    let wanted = (stand_in.is_none() || !policy.audit).then_some((policy, stand_in.is_none()));
    let mut versions = Vec::new();
    for (policy, has_rules) in last.map(|last| (last, true)).into_iter().chain(wanted) {
        for (policy, is_edit) in [(Some(policy), false), (policy.edit.as_ref(), true)] {
            let isolates = |policy: &&Arc<NetworkPolicy>| policy.ingress.is_some() || policy.egress.is_some();
            if let Some(policy) = policy.filter(isolates) {
                versions.push((Key { name: name.clone(), has_rules, is_edit }, policy.clone()));
            }
        }
    }
    versions
}
