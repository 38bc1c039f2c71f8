//! A rejected edit of a policy: what it closes is closed, what it opens is not opened.
//!
//! The last accepted version stays in force, as if the API server had refused the edit, but its pods must never be more
//! open than the edit evidently wants, since no one may read the log for days:
//!
//! | | in force |
//! |---|---|
//! | pods | those of the last version and those of the edit, each isolated in the directions of its version |
//! | a direction that only the edit isolates | the valid rules of the edit |
//! | a direction of which the edit's rules can all be read | what the rules of both versions allow |
//! | a direction with a rule that cannot be read | the rules of the last version: the rule may be any of them |
//! | a direction that the edit does not isolate any more | the rules of the last version |
//! | a selector, a mode, or directions that cannot be read | those of the last version |
//! | enforced, and the edit audits | the last version |
//! | audited, and the edit enforces | as if no version was accepted |
//!
//! So one typo in a rule does not cut off what the last version allows, and a rule that was removed in the same edit is
//! gone in each direction whose rules can be read.

use std::sync::Arc;

use ipnet::IpNet;

use super::super::{NetworkPolicy, ObjectName, Peer, PolicyPort, PolicyRule, PortSet, Selector};
use super::Partial;

impl Partial {
    pub(crate) fn name(&self) -> &ObjectName {
        &self.policy.name
    }

    /// What is in force if no version was accepted.
    pub(crate) fn alone(&self) -> NetworkPolicy {
        let mut policy = self.policy.clone();
        if !self.is_known.pods {
            // More pods may be selected than were meant, so the rules must not allow anything.
            policy.ingress.iter_mut().chain(&mut policy.egress).for_each(Vec::clear);
        }
        policy
    }

    /// What is in force after this version was accepted.
    pub(crate) fn over(&self, last: &NetworkPolicy) -> NetworkPolicy {
        let (edit, known) = (&self.policy, self.is_known);
        let pods = if known.pods { &edit.pods } else { &last.pods };
        match (last.audit, if known.mode { edit.audit } else { last.audit }) {
            (false, true) => return last.clone(),
            (true, false) => {
                return NetworkPolicy { pods: pods.clone(), audit: false, ..self.policy.clone() };
            }
            _ => {}
        }
        let newly = |rules: &Option<Vec<PolicyRule>>, is_written: bool| {
            rules.clone().filter(|_| known.directions || is_written)
        };
        let ingress = both(&last.ingress, newly(&edit.ingress, self.has_rules.ingress), known.ingress);
        let egress = both(&last.egress, newly(&edit.egress, self.has_rules.egress), known.egress);
        if *pods == last.pods {
            return NetworkPolicy { ingress, egress, ..last.clone() };
        }
        let other = NetworkPolicy {
            pods: pods.clone(),
            ingress: ingress.clone().filter(|_| edit.ingress.is_some()),
            egress: egress.clone().filter(|_| edit.egress.is_some()),
            ..last.clone()
        };
        NetworkPolicy {
            ingress: ingress.filter(|_| last.ingress.is_some()),
            egress: egress.filter(|_| last.egress.is_some()),
            edit: Some(Arc::new(other)),
            ..last.clone()
        }
    }
}

/// The rules of a direction.
fn both(
    last: &Option<Vec<PolicyRule>>,
    edit: Option<Vec<PolicyRule>>,
    is_readable: bool,
) -> Option<Vec<PolicyRule>> {
    match (last, edit) {
        (None, edit) => edit,
        (Some(last), Some(edit)) if is_readable => Some(pairs(last, &edit, rule)),
        (Some(last), _) => Some(last.clone()),
    }
}

/// What each of the first has in common with each of the second; less where that has no simple form.
fn pairs<T: Clone + PartialEq>(first: &[T], second: &[T], common: impl Fn(&T, &T) -> Option<T>) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    for a in first {
        if second.contains(a) {
            all.push(a.clone());
        } else {
            all.extend(second.iter().filter_map(|b| common(a, b)));
        }
    }
    all.dedup();
    all
}

/// In a rule, an empty list means everything.
fn rule(a: &PolicyRule, b: &PolicyRule) -> Option<PolicyRule> {
    let peers = of_lists(&a.peers, &b.peers, peer)?;
    let ports = of_lists(&a.ports, &b.ports, port)?;
    Some(PolicyRule { peers, ports })
}

fn of_lists<T: Clone + PartialEq>(a: &[T], b: &[T], common: impl Fn(&T, &T) -> Option<T>) -> Option<Vec<T>> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => Some(b.to_vec()),
        (_, true) => Some(a.to_vec()),
        _ => Some(pairs(a, b, common)).filter(|common| !common.is_empty()),
    }
}

/// The narrower one, if the other one contains it.
fn peer(a: &Peer, b: &Peer) -> Option<Peer> {
    match (contains(a, b), contains(b, a)) {
        (_, true) => Some(a.clone()),
        (true, _) => Some(b.clone()),
        _ => None,
    }
}

fn contains(outer: &Peer, inner: &Peer) -> bool {
    match (outer, inner) {
        (Peer::Pods(outer), Peer::Pods(inner)) => selects_all(outer, inner),
        (Peer::Namespaces(outer), Peer::Namespaces(inner) | Peer::Both(inner, _)) => {
            selects_all(outer, inner)
        }
        (Peer::Both(namespaces, pods), Peer::Both(of, inner)) => {
            selects_all(namespaces, of) && selects_all(pods, inner)
        }
        (Peer::Block { cidr, except }, Peer::Block { cidr: inner, except: missing }) => {
            let is_apart = |a: &IpNet, b: &IpNet| !a.contains(b) && !b.contains(a);
            let spares =
                |hole: &IpNet| is_apart(hole, inner) || missing.iter().any(|missing| missing.contains(hole));
            cidr.contains(inner) && except.iter().all(spares)
        }
        _ => false,
    }
}

/// More requirements select less.
fn selects_all(outer: &Selector, inner: &Selector) -> bool {
    outer.requirements.iter().all(|requirement| inner.requirements.contains(requirement))
}

fn port(a: &PolicyPort, b: &PolicyPort) -> Option<PolicyPort> {
    let ports = match (&a.ports, &b.ports) {
        _ if a.protocol != b.protocol => return None,
        (PortSet::All, ports) | (ports, PortSet::All) => ports.clone(),
        (PortSet::Range(a, z), PortSet::Range(b, y)) if a.max(b) <= z.min(y) => {
            PortSet::Range(*a.max(b), *z.min(y))
        }
        _ => return None,
    };
    Some(PolicyPort { protocol: a.protocol, ports })
}

#[cfg(test)]
mod tests;
