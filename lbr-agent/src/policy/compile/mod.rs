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
mod terms;
mod verdicts;
mod versions;

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::policy::Policy;

use self::blocks::Regions;
use self::body::Bodies;
use self::classes::{Classes, Concerned};
use self::owners::Owners;
use self::questions::Questions;
use self::records::Records;
use self::sets::{Sets, User};
use self::subjects::{InForce, Subjects};
use self::terms::{News, Term, TermId, Terms};
use self::versions::{Key, Versions, in_force};
use super::stand_in::StandIns;
use crate::cluster::{Changes, ClusterState};
use crate::ids::PolicyIds;
use crate::model::{Extent, ObjectName, Pod, Rejected};
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
        let policies = without_room.iter().map(|(name, stand_in)| Rejected {
            extent: Extent::Rejected,
            object: format!("NetworkPolicy {name}"),
            origin: String::new(),
            field: String::new(),
            reason: stand_in.reason.clone(),
        });
        self.owners.rejected().cloned().chain(policies).collect()
    }

    /// Puts the versions of a policy that are in force in place of those that were.
    fn take_policy(&mut self, name: &ObjectName, work: &mut Work<'_>) {
        let now = in_force(name, work.state, work.without_room);
        let pods: Vec<ObjectName> = self.subjects.in_namespace(&name.namespace).cloned().collect();
        let mut left = Vec::new();
        for pod in pods {
            let Some(subject) = self.subjects.get(&pod) else { continue };
            let selected = |pod: &Pod| {
                now.iter().filter(|version| subjects::is_selected(pod, version)).collect::<Vec<_>>()
            };
            let selected = work.state.pods.get(&pod).map(selected).unwrap_or_default();
            if selected.is_empty() && subject.keys.iter().all(|key| key.name != *name) {
                continue;
            }
            let (own, others): (Vec<Key>, _) =
                subject.keys.iter().cloned().partition(|key| key.name == *name);
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
    fn take_pods(&mut self, changes: &Changes, work: &mut Work<'_>) -> BTreeSet<Addr> {
        let (pods, node) = (&work.state.pods, work.node.name.as_str());
        let mut addresses = BTreeSet::new();
        for (name, former) in &changes.pods {
            addresses.extend(self.owners.take(name, former.as_deref(), pods.get(name)));
        }
        // Others may own an address now.
        let mut due: BTreeSet<&ObjectName> = changes.pods.keys().collect();
        for &addr in &addresses {
            self.owners.judge(addr, node, pods);
            due.extend(self.owners.claimants(addr, pods).map(|pod| &pod.name));
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

    fn is_block(&self, id: TermId) -> bool {
        self.terms.get(id).is_some_and(|entry| is_block(&entry.term))
    }

    /// Adds the addresses for which other terms may hold than before.
    fn concerned(
        &self,
        news: &News,
        named: &BTreeSet<versions::NamedPort>,
        changes: &Changes,
        work: &Work<'_>,
        addresses: &mut BTreeSet<Addr>,
    ) {
        let (state, classes) = (work.state, work.maps.ip_class.desired());
        let of = |pod: &Pod| pod.ips.iter().map(|ip| Addr::from(*ip)).collect::<Vec<_>>();
        for namespace in &changes.namespaces {
            addresses.extend(questions::pods_in(&namespace.name, state).flat_map(of));
        }
        let added = news.added.iter().filter_map(|id| Some(&self.terms.get(*id)?.term));
        let added: Vec<&Term> = added.collect();
        addresses.extend(questions::pods_of(&added, state).into_iter().flat_map(of));
        let gone: Vec<TermId> = news.gone.keys().copied().collect();
        let gone = self.classes.with_any(&gone);
        if !gone.is_empty() {
            addresses.extend(classes.iter().filter(|(_, class)| gone.contains(class)).map(|(addr, _)| *addr));
        }
        let blocks: Vec<_> = added
            .iter()
            .filter_map(|term| if let Term::Block(cidr, _) = term { Some(cidr) } else { None })
            .collect();
        if !blocks.is_empty() {
            let in_block =
                |addr: &&Addr| blocks.iter().any(|cidr| cidr.contains(&std::net::IpAddr::from(**addr)));
            addresses.extend(classes.keys().filter(in_block));
        }
        let now: BTreeSet<_> = self.versions.named.keys().cloned().collect();
        let named: BTreeSet<_> = now.symmetric_difference(named).collect();
        if !named.is_empty() {
            let has = |pod: &&Pod| pod.named_ports.keys().any(|port| named.contains(port));
            addresses.extend(state.pods.values().filter(has).flat_map(of));
        }
    }

    /// Gives these addresses the names of their pods, and their classes.
    fn classify(&mut self, addresses: &BTreeSet<Addr>, work: &mut Work<'_>) {
        let Self { owners, versions, terms, regions, classes, .. } = self;
        let Work { state, node, ids, maps, .. } = work;
        let mut of_pods: BTreeMap<&ObjectName, (&Pod, Vec<Addr>)> = BTreeMap::new();
        for &addr in addresses {
            let owner = owners.owner(addr, &node.name, &state.pods);
            maps.pod_names.set(addr, owner.map(owners::name));
            match owner {
                Some(pod) => of_pods.entry(&pod.name).or_insert((pod, Vec::new())).1.push(addr),
                None => classes.set(addr, Vec::new(), terms, ids, maps),
            }
        }
        let mut questions = Questions::new(terms, state);
        let of_pods: Vec<_> =
            of_pods.into_values().map(|(pod, addresses)| (pod, addresses, questions.matched(pod))).collect();
        for (pod, addresses, mut matched) in of_pods {
            matched.extend(questions::ports(pod, &versions.named, terms, ids));
            for addr in addresses {
                let mut holding = matched.clone();
                if !holding.is_empty() {
                    holding.extend(regions.of(addr));
                }
                classes.set(addr, holding, terms, ids, maps);
            }
        }
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
            if before != body.part {
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
