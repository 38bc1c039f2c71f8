//! Takes changed policies and pods: which policies select which pods of this node.

use std::collections::BTreeSet;

use lbr_common::addr::Addr;
use lbr_common::policy::Policy;

use super::sets::User;
use super::subjects::{self, InForce};
use super::versions::{Key, in_force};
use super::{Compiler, Work};
use crate::cluster::Changes;
use crate::model::{ObjectName, Pod};

impl Compiler {
    /// Puts the versions of a policy that are in force in place of those that were.
    pub(super) fn take_policy(&mut self, name: &ObjectName, work: &mut Work<'_>) {
        let now = in_force(name, work.state, work.without_room);
        let pods: Vec<ObjectName> = self.subjects.in_namespace(&name.namespace).cloned().collect();
        let mut left = Vec::new();
        for pod in pods {
            let Some(subject) = self.subjects.get(&pod) else { continue };
            let selected = |pod: &Pod| {
                now.iter().filter(|version| subjects::is_selected(pod, version)).collect::<Vec<_>>()
            };
            let selected = work.state.pods.get(&pod).map(selected).unwrap_or_default();
            let first = subject.keys.partition_point(|key| key.name < *name);
            let last = subject.keys.partition_point(|key| key.name <= *name);
            if selected.is_empty() && first == last {
                continue;
            }
            let mut others = subject.keys.clone();
            let own: Vec<Key> = others.drain(first..last).collect();
            left.push((pod, others, selected));
            // All pods leave a version before one enters what it has become.
            own.iter().for_each(|key| self.leave(key, work));
        }
        for (pod, mut keys, selected) in left {
            for version in selected {
                self.enter(version, work);
                keys.push(version.0.clone());
            }
            keys.sort();
            self.set_keys(&pod, keys, work);
        }
    }

    /// Takes pods as they are now. Returns the addresses that they have or had.
    pub(super) fn take_pods(&mut self, changes: &Changes, work: &mut Work<'_>) -> BTreeSet<Addr> {
        let (pods, node) = (&work.state.pods, work.node.name.as_str());
        let (mut addresses, mut due) = (BTreeSet::new(), BTreeSet::new());
        let is_here = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.node == node);
        for (name, former) in &changes.pods {
            let (former, now) = (former.as_deref(), pods.get(name));
            self.owners.take(name, former, now, &mut addresses);
            if is_here(former) || is_here(now) {
                due.insert(name);
            }
        }
        for &addr in &addresses {
            // Another one may own it now.
            let claimants = self.owners.judge(addr, node, pods);
            due.extend(claimants.iter().filter(|pod| is_here(Some(**pod))).map(|pod| &pod.name));
        }
        // Those that go leave first: a policy that selects no pod any more may come to a new one.
        due.retain(|name| {
            let is_here = self.subjects.take(name, &self.owners, work.state, node);
            if !is_here {
                self.forget(name, work);
            }
            is_here
        });
        let (state, without_room) = (work.state, work.without_room);
        subjects::select(&due, state, without_room, |name, selected| {
            let before = self.subjects.get(name).map(|subject| subject.keys.clone()).unwrap_or_default();
            selected.iter().for_each(|version| self.enter(version, work));
            before.iter().for_each(|key| self.leave(key, work));
            self.set_keys(name, selected.into_iter().map(|version| version.0.clone()).collect(), work);
        });
        addresses
    }

    fn enter(&mut self, (key, policy): &InForce, work: &mut Work<'_>) {
        if self.versions.enter(key, policy, &mut self.terms, work.ids) {
            self.records.change(&key.name);
            work.new.insert(key.clone());
        }
    }

    fn leave(&mut self, key: &Key, work: &mut Work<'_>) {
        if let Some(version) = self.versions.leave(key, &mut self.terms) {
            work.new.remove(key);
            self.bodies.leave(version.body.part);
            self.records.change(&key.name);
        }
    }

    fn set_keys(&mut self, pod: &ObjectName, keys: Vec<Key>, work: &mut Work<'_>) {
        if let Some(subject) = self.subjects.get_mut(pod) {
            self.records.count(&subject.keys, &keys);
            subject.keys = keys;
            work.due.insert(pod.clone());
        }
    }

    /// A pod is not of this node, or has no address any more.
    fn forget(&mut self, name: &ObjectName, work: &mut Work<'_>) {
        let Some(subject) = self.subjects.get(name) else { return };
        let (keys, Policy { set, audit, .. }) = (subject.keys.clone(), subject.policy);
        keys.iter().for_each(|key| self.leave(key, work));
        self.records.count(&keys, &[]);
        for (set, audits) in [(set, false), (audit, true)] {
            self.sets.leave(set, &User { pod: name.clone(), audits });
        }
        self.subjects.remove(name);
        work.due.remove(name);
    }
}
