//! The policies that select pods of this node. Other policies have no effect here.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;

use super::classes::NamedPorts;
use super::pods::Owners;
use super::selectors::{SelectorIndex, view};
use super::terms::{Term, Terms};
use crate::cluster::ClusterState;
use crate::model::{NetworkPolicy, ObjectName, Pod, PolicyPort, PolicyRule, PortSet, Selector};
use crate::policy::fit::StandIns;

/// A pod of this node, and its policies in order of their names (numbers of [`Active::policies`]).
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) pod: &'a Pod,
    pub(super) addresses: Vec<Addr>,
    pub(super) policies: Vec<usize>,
}

/// A policy, and whether its rules are in force.
type InForce<'a> = (&'a NetworkPolicy, bool);

/// A policy occurs twice if its last version fits and its present one does not, or if its present version is rejected
/// and selects other pods. Versions with rules come last, and are those shown.
type Key<'a> = (&'a ObjectName, bool, &'a Selector);

fn key<'a>((policy, has_rules): &InForce<'a>) -> Key<'a> {
    (&policy.name, *has_rules, &policy.pods)
}

/// A policy that selects at least one pod of this node.
#[derive(Debug)]
pub(super) struct ActivePolicy<'a> {
    pub(super) policy: &'a NetworkPolicy,
    /// Whether its rules are in force. If not, there is no room for them, and the policy only isolates.
    pub(super) has_rules: bool,
    /// Rules for what comes in.
    pub(super) ingress: Vec<Rule<'a>>,
    /// Rules for what goes out.
    pub(super) egress: Vec<Rule<'a>>,
}

/// A rule whose peers are terms.
#[derive(Debug)]
pub(super) struct Rule<'a> {
    /// Any of these; `None`: every peer (B1).
    pub(super) peers: Option<Vec<usize>>,
    /// Any of these; empty: every port of every protocol (B11).
    pub(super) ports: &'a [PolicyPort],
}

/// The pods of this node, and the policies that select them.
#[derive(Debug, Default)]
pub(super) struct Active<'a> {
    pub(super) subjects: Vec<Subject<'a>>,
    pub(super) policies: Vec<ActivePolicy<'a>>,
    pub(super) terms: Terms<'a>,
    /// Named ports of rules for what goes out.
    pub(super) named: NamedPorts<'a>,
}

impl<'a> Active<'a> {
    pub(super) fn new(
        state: &'a ClusterState,
        without_room: &'a StandIns,
        node: &str,
        owners: &Owners<'_>,
    ) -> Self {
        let local = state.pods.values().filter(|pod| pod.node == node && !pod.host_network);
        let local: Vec<(&Pod, Vec<Addr>)> = local
            .map(|pod| (pod, owners.addresses(pod)))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect();
        let namespaces: BTreeSet<&str> = local.iter().map(|(pod, _)| pod.name.namespace.as_str()).collect();
        let mut by_namespace: BTreeMap<&str, SelectorIndex<'a, InForce<'a>>> = BTreeMap::new();
        for (policy, has_rules) in in_force(state, without_room) {
            let namespace = policy.name.namespace.as_str();
            let isolates = policy.ingress.is_some() || policy.egress.is_some();
            if isolates && namespaces.contains(namespace) {
                by_namespace.entry(namespace).or_default().add(&policy.pods, (policy, has_rules));
            }
        }
        let mut found: Vec<Vec<InForce<'a>>> = Vec::new();
        let mut used: BTreeMap<Key<'a>, InForce<'a>> = BTreeMap::new();
        for (pod, _) in &local {
            let mut policies = Vec::new();
            if let Some(index) = by_namespace.get(pod.name.namespace.as_str()) {
                index.find(&view(&pod.labels), |policy| policies.push(policy));
            }
            policies.sort_by_key(key);
            used.extend(policies.iter().map(|policy| (key(policy), *policy)));
            found.push(policies);
        }
        let mut active = Self::default();
        let mut numbers = BTreeMap::new();
        for (key, policy) in used {
            numbers.insert(key, active.policies.len());
            active.add(policy);
        }
        for ((pod, addresses), policies) in local.into_iter().zip(found) {
            let policies = policies.iter().filter_map(|policy| numbers.get(&key(policy)).copied()).collect();
            active.subjects.push(Subject { pod, addresses, policies });
        }
        active
    }

    fn add(&mut self, (policy, has_rules): InForce<'a>) {
        let ingress = self.rules(policy, policy.ingress.as_deref().filter(|_| has_rules));
        let egress = self.rules(policy, policy.egress.as_deref().filter(|_| has_rules));
        for port in egress.iter().flat_map(|rule| rule.ports) {
            if let PortSet::Named(name) = &port.ports {
                self.named.insert((name, port.protocol));
            }
        }
        self.policies.push(ActivePolicy { policy, has_rules, ingress, egress });
    }

    fn rules(&mut self, policy: &'a NetworkPolicy, rules: Option<&'a [PolicyRule]>) -> Vec<Rule<'a>> {
        let mut peers = |rule: &'a PolicyRule| {
            let terms = rule.peers.iter().map(|peer| Term::of(peer, &policy.name.namespace));
            let mut numbers: Vec<usize> = terms.map(|term| self.terms.add(term)).collect();
            numbers.sort_unstable();
            numbers.dedup();
            (!rule.peers.is_empty()).then_some(numbers)
        };
        rules.into_iter().flatten().map(|rule| Rule { peers: peers(rule), ports: &rule.ports }).collect()
    }
}

/// The versions in force of each policy, and whether their rules are. A version without room still isolates the
/// pods that it selects; if it is audited, it audits nothing.
fn in_force<'a>(state: &'a ClusterState, without_room: &'a StandIns) -> impl Iterator<Item = InForce<'a>> {
    state.policies.iter().flat_map(|(name, policy)| {
        let stand_in = without_room.get(name);
        let last = stand_in.and_then(|stand_in| stand_in.version.as_ref());
        let wanted = (stand_in.is_none() || !policy.audit).then_some((policy, stand_in.is_none()));
        let with_edit = |(policy, has_rules): (&'a NetworkPolicy, bool)| {
            let edit = policy.edit.as_deref().map(|edit| (edit, has_rules));
            [Some((policy, has_rules)), edit]
        };
        let versions = last.map(|last| (last, true)).into_iter().chain(wanted);
        versions.flat_map(with_edit).flatten()
    })
}
