//! From the policies of a pod to its set: `set_members`, `port_class` and `verdicts`.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::id::{PolicyId, PolicySetId};
use lbr_common::policy::{Allow, Ports, Prefix, VerdictKey, direction};
use lbr_common::text::{Member, MemberKey};

use super::body::Numbers;
use super::canon::Canon;
use super::classes::{Classes, Concerned};
use super::ports::Allowed;
use super::terms::TermId;
use super::verdicts::{Rows, SetRules};
use super::versions::{Key, Version, Versions, named_port};
use crate::ids::PolicyIds;
use crate::model::{ObjectName, Pod, PolicyPort, PolicyRule, PortSet, Protocol};
use crate::table::PolicyMaps;

/// What uses a set: a pod, for what its policies deny or for what they would.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct User {
    pub(super) pod: ObjectName,
    pub(super) audits: bool,
}

/// A set in use.
#[derive(Debug)]
struct Set {
    content: Vec<u32>,
    /// The pods that use it, each with its versions, in order. Those of different pods have the same content.
    users: BTreeMap<User, Vec<Key>>,
    /// All terms of its rules' peers.
    terms: BTreeSet<TermId>,
    /// It has named ports for what goes out.
    has_numbers: bool,
}

/// The sets of this node.
#[derive(Debug, Default)]
pub(super) struct Sets {
    all: BTreeMap<PolicySetId, Set>,
    by_content: BTreeMap<Vec<u32>, PolicySetId>,
    new: BTreeSet<PolicySetId>,
    unused: BTreeSet<PolicySetId>,
}

impl Sets {
    /// The set of these versions on a pod; none if there are none.
    pub(super) fn enter(
        &mut self,
        user: User,
        keys: Vec<Key>,
        pod: &Pod,
        versions: &Versions,
        ids: &mut PolicyIds,
        maps: &mut PolicyMaps,
    ) -> PolicySetId {
        if keys.is_empty() {
            return PolicySetId::NONE;
        }
        let members: Vec<&Version> = keys.iter().filter_map(|key| versions.get(key)).collect();
        let content = content(&members, pod);
        let id = match self.by_content.get(&content) {
            Some(&id) => id,
            None => self.add(content, &members, ids, maps),
        };
        if let Some(set) = self.all.get_mut(&id) {
            set.users.insert(user, keys);
            self.unused.remove(&id);
        }
        id
    }

    fn add(
        &mut self,
        content: Vec<u32>,
        members: &[&Version],
        ids: &mut PolicyIds,
        maps: &mut PolicyMaps,
    ) -> PolicySetId {
        let mut canon = Canon::default();
        canon.len(members.len());
        for version in members {
            canon.number(version.id.id.into()).number(version.body.hash);
        }
        for &number in content.iter().skip(1 + 2 * members.len()) {
            canon.number(number.into());
        }
        let hash = canon.hash();
        let id = ids.set(content.clone(), hash);
        let mut policies: Vec<PolicyId> = members.iter().map(|version| version.id).collect();
        // Two versions of a policy are one member.
        policies.dedup();
        for (number, policy) in (0..).zip(policies) {
            let member = Member { hash, policy, _pad: 0 };
            maps.set_members.set(MemberKey { set: id, number }, Some(member));
        }
        let terms = members.iter().flat_map(|version| version.terms()).collect();
        let has_numbers = members.iter().any(|version| version.has_numbers());
        self.by_content.insert(content.clone(), id);
        self.all.insert(id, Set { content, users: BTreeMap::new(), terms, has_numbers });
        self.new.insert(id);
        id
    }

    /// This one uses the set no more.
    pub(super) fn leave(&mut self, id: PolicySetId, user: &User) {
        if let Some(set) = self.all.get_mut(&id) {
            set.users.remove(user);
            if set.users.is_empty() {
                self.unused.insert(id);
            }
        }
    }

    /// Writes new sets, and those that the classes that came or went concern. Removes sets without a user.
    pub(super) fn write<'a>(
        &mut self,
        concerned: &Concerned,
        versions: &Versions,
        classes: &Classes,
        pod_of: impl Fn(&User) -> Option<&'a Pod>,
        ids: &mut PolicyIds,
        maps: &mut PolicyMaps,
    ) {
        for id in std::mem::take(&mut self.unused) {
            if let Some(set) = self.all.remove(&id) {
                self.by_content.remove(&set.content);
                self.new.remove(&id);
                ids.leave_set(set.content);
                replace(id, Rows::default(), maps);
                maps.set_members
                    .replace(MemberKey { set: id, number: 0 }..=MemberKey { set: id, number: u32::MAX }, []);
            }
        }
        let new = std::mem::take(&mut self.new);
        let is_due = |(id, set): &(&PolicySetId, &Set)| {
            new.contains(id)
                || (concerned.ports && set.has_numbers)
                || concerned.terms.iter().any(|term| set.terms.contains(term))
        };
        for (&id, set) in self.all.iter().filter(is_due) {
            let user = set.users.first_key_value();
            let Some((pod, keys)) = user.and_then(|(user, keys)| Some((pod_of(user)?, keys))) else {
                continue;
            };
            let members: Vec<&Version> = keys.iter().filter_map(|key| versions.get(key)).collect();
            let mut rows = Rows::default();
            for way in [direction::INGRESS, direction::EGRESS] {
                rules(way, &members, pod, classes).write(id, way, classes, &mut rows);
            }
            replace(id, rows, maps);
        }
    }
}

/// Everything that the tables of a set depend on, but for the classes that there are.
fn content(members: &[&Version], pod: &Pod) -> Vec<u32> {
    let mut content = vec![u32::try_from(members.len()).unwrap_or(u32::MAX)];
    content.extend(members.iter().flat_map(|version| [version.id.id, version.body.part]));
    for version in members {
        let named: BTreeSet<_> =
            version.ingress().flat_map(|(rule, _)| &rule.ports).filter_map(named_port).collect();
        // 0 stands for a name that the pod has no port for.
        content.extend(named.into_iter().map(|(name, p)| u32::from(number_on(pod, name, p).unwrap_or(0))));
    }
    content
}

/// Sets the entries of a set.
fn replace(set: PolicySetId, rows: Rows, maps: &mut PolicyMaps) {
    let (first, last) = (
        Ports { set, ..Ports::default() },
        Ports { set, direction: u8::MAX, proto: u8::MAX, port: [u8::MAX; 2] },
    );
    let ports = Prefix { data: first, len: 0 }..=Prefix { data: last, len: u32::MAX };
    maps.port_class.replace(ports, rows.port_class);
    let most = u32::MAX;
    let last = VerdictKey { set, direction: most, class: most.into(), ports: most.into() };
    maps.verdicts.replace(VerdictKey { set, ..VerdictKey::default() }..=last, rows.verdicts);
}

/// The rules of a set in one direction, in order: the first rule that allows a packet is the one reported.
fn rules(way: u32, members: &[&Version], pod: &Pod, classes: &Classes) -> SetRules {
    let mut rules = SetRules::default();
    for version in members {
        let mut add =
            |index: usize, rule: &PolicyRule, peers: &Option<Vec<TermId>>, numbers: Option<&Numbers>| {
                let allow = Allow { policy: version.id, rule: u32::try_from(index).unwrap_or(u32::MAX) };
                let peers = peers.as_ref().map(|terms| classes.with_any(terms));
                let number = rules.add(allow, peers, rule.ports.is_empty());
                for port in &rule.ports {
                    resolve(number, port, pod, numbers, &mut rules.allowed);
                }
            };
        if way == direction::INGRESS {
            version.ingress().enumerate().for_each(|(index, (rule, peers))| add(index, rule, peers, None));
        } else {
            for (index, (rule, peers)) in version.egress().enumerate() {
                add(index, rule, peers, version.body.numbers.get(index));
            }
        }
    }
    rules
}

fn number_on(pod: &Pod, name: &str, protocol: Protocol) -> Option<u16> {
    let same = |((n, p), _): &(&(String, Protocol), &u16)| n == name && *p == protocol;
    pod.named_ports.iter().find(same).map(|(_, &number)| number)
}

/// The ports that a port entry of a rule allows. `numbers`: of its named ports on peers, for egress.
fn resolve(rule: usize, port: &PolicyPort, pod: &Pod, numbers: Option<&Numbers>, allowed: &mut Vec<Allowed>) {
    let proto = port.protocol.number();
    let mut allow = |first, last, only| allowed.push(Allowed { rule, proto, first, last, only });
    match (&port.ports, numbers) {
        (PortSet::All, _) => allow(0, u16::MAX, None),
        (&PortSet::Range(first, last), _) if first <= last => allow(first, last, None),
        // The model rejects such a range; it would allow nothing.
        (PortSet::Range(..), _) => {}
        (PortSet::Named(name), None) => {
            if let Some(number) = number_on(pod, name, port.protocol) {
                allow(number, number, None);
            }
        }
        (PortSet::Named(name), Some(numbers)) => {
            let on_peers = numbers.get(&(name.clone(), port.protocol));
            for (&number, &term) in on_peers.into_iter().flatten() {
                allow(number, number, Some(term));
            }
        }
    }
}
