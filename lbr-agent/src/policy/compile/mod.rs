//! From NetworkPolicies, Pods and Namespaces to the tables of `lbr_common::policy`.
//!
//! ```text
//! pods ──> Owners ──────────────┬──> Subjects ──> endpoints, link_policy
//! policies ──> Versions ──┐     │
//!                         ├──> Terms, Regions ──> Classes ──> ip_class, cidr_class
//!                         └──────────────────────────┴──> Sets ──> port_class, verdicts
//! ```
//!
//! Only policies that select a pod of this node have an effect. A *term* is one question that they ask about a peer's
//! address; a class is the combination of terms that hold for an address.
//!
//! Each step keeps what it made, and makes anew what a change concerns: the classes of the addresses of a changed pod, or of
//! those for which a new term holds; the sets of pods that other policies select; the entries of sets whose terms have other
//! classes. A compiler that has seen nothing yet and takes everything makes the same of it: that is the full compile, which
//! tests hold the incremental one against.

mod blocks;
mod body;
mod canon;
mod classes;
mod classify;
mod endpoints;
mod names;
mod owners;
mod ports;
mod questions;
mod records;
mod rules_text;
mod selectors;
mod sets;
mod subjects;
mod take;
mod terms;
mod verdicts;
mod versions;

use std::collections::BTreeSet;

use lbr_common::policy::Policy;

use self::blocks::Regions;
use self::body::{Bodies, Body};
use self::classes::{Classes, Concerned};
use self::owners::Owners;
use self::records::Records;
use self::sets::{Sets, User};
use self::subjects::Subjects;
use self::terms::{Term, TermId, Terms};
use self::versions::{Key, Versions};
use super::stand_in::StandIns;
use crate::cluster::{Changes, ClusterState};
use crate::ids::PolicyIds;
use crate::model::{Kind, ObjectName, Rejected};
use crate::node::NodeView;
use crate::table::PolicyMaps;

/// What is known from the last compile.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    owners: Owners,
    subjects: Subjects,
    versions: Versions,
    terms: Terms,
    regions: Regions,
    classes: Classes,
    bodies: Bodies,
    sets: Sets,
    records: Records,
}

/// What a compile works with.
struct Work<'a> {
    state: &'a ClusterState,
    without_room: &'a StandIns,
    node: &'a NodeView,
    ids: &'a mut PolicyIds,
    maps: &'a mut PolicyMaps,
    /// Pods of this node that other policies select, or whose policies have another content.
    due: BTreeSet<ObjectName>,
    /// Versions that came into use.
    new: BTreeSet<Key>,
}

impl Compiler {
    /// Brings what the maps should hold up to date with these changes, with a stand-in for each policy that the maps have no
    /// room for. Only a compiler that has seen nothing may get other stand-ins than before.
    pub(crate) fn compile(
        &mut self,
        changes: &Changes,
        state: &ClusterState,
        without_room: &StandIns,
        node: &NodeView,
        ids: &mut PolicyIds,
        maps: &mut PolicyMaps,
    ) {
        let (due, new) = Default::default();
        let mut work = Work { state, without_room, node, ids, maps, due, new };
        let named: BTreeSet<_> = self.versions.named.keys().cloned().collect();
        for name in &changes.policies {
            self.take_policy(name, &mut work);
        }
        let mut addresses = self.take_pods(changes, &mut work);
        self.terms.sweep(work.ids);
        let news = self.terms.take_news();
        self.concerned(&news, &named, changes, &work, &mut addresses);
        if news.added.iter().any(|id| self.is_block(*id)) || news.gone.values().any(is_block) {
            self.regions = Regions::new(&self.terms);
            self.classes.set_blocks(&self.regions, &mut self.terms, work.ids, work.maps);
        }
        self.classify(&addresses, &mut work);
        let concerned = self.classes.write(&mut self.terms, work.ids, work.maps);
        self.fill_bodies(&concerned, &mut work);
        self.give_sets(&mut work);
        let pod_of = |user: &User| state.pods.get(&user.pod);
        self.sets.write(&concerned, &self.versions, &self.classes, pod_of, work.ids, work.maps);
        self.bodies.sweep(work.ids);
        self.records.write(&self.versions, work.ids, work.maps);
        endpoints::write(&self.subjects, &self.owners, state, node, work.maps);
    }

    /// What is not in force of pods and policies.
    pub(crate) fn rejected(&self, without_room: &StandIns) -> Vec<Rejected> {
        let policies = without_room.iter().map(|(name, stand_in)| {
            Rejected::whole(Kind::NetworkPolicy.named(name), String::new(), stand_in.reason.clone())
        });
        self.owners.rejected().cloned().chain(policies).collect()
    }

    fn is_block(&self, id: TermId) -> bool {
        self.terms.get(id).is_some_and(|entry| is_block(&entry.term))
    }

    /// Finds the content of new versions, and of those whose named ports have other numbers on their peers.
    fn fill_bodies(&mut self, concerned: &Concerned, work: &mut Work<'_>) {
        let mut keys = std::mem::take(&mut work.new);
        if concerned.ports {
            let with_numbers = self.versions.iter().filter(|(_, version)| version.has_numbers());
            keys.extend(with_numbers.map(|(key, _)| key.clone()));
        }
        for key in keys {
            let Some(version) = self.versions.get(&key) else { continue };
            let body = self.bodies.enter(version, &self.terms, &self.classes, work.ids);
            let before = version.body.part;
            // The pods of a new version are due already.
            if before != Body::NO_PART && before != body.part {
                let pods = self.subjects.in_namespace(&key.name.namespace);
                let has = |pod: &&ObjectName| {
                    self.subjects.get(pod).is_some_and(|subject| subject.keys.binary_search(&key).is_ok())
                };
                work.due.extend(pods.filter(has).cloned());
            }
            self.bodies.leave(before);
            if let Some(version) = self.versions.get_mut(&key) {
                version.body = body;
            }
        }
    }

    /// Gives the due pods their sets.
    fn give_sets(&mut self, work: &mut Work<'_>) {
        for name in std::mem::take(&mut work.due) {
            let (Some(subject), Some(pod)) = (self.subjects.get_mut(&name), work.state.pods.get(&name))
            else {
                continue;
            };
            let (flags, enforced, all) = subjects::effect(&subject.keys, &self.versions);
            let before = subject.policy;
            let mut enter = |keys, audits, before| {
                let user = User { pod: name.clone(), audits };
                let set = self.sets.enter(user.clone(), keys, pod, &self.versions, work.ids, work.maps);
                if set != before {
                    self.sets.leave(before, &user);
                }
                set
            };
            let set = enter(enforced, false, before.set);
            let audit = enter(all, true, before.audit);
            subject.policy = Policy { set, audit, flags };
        }
    }
}

fn is_block(term: &Term) -> bool {
    matches!(term, Term::Block(..))
}

#[cfg(test)]
mod tests;
