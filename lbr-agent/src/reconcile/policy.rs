//! One round of writing policy.
//!
//! 1. What nothing leads to yet: verdicts and port classes of new sets, and names for people.
//! 2. What changes in place, as the value of the next generation.
//! 3. The generation: from here on all of it is in force.
//! 4. What nothing leads to any more is removed.
//!
//! A write that fails in 1 or 2 ends the round: the present generation stays in force, whole.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::policy::{
    Allow, Block, Endpoint, Policy, Ports, Prefix, VerdictKey, Versioned, policy_flags,
};
use lbr_common::text::{ClassRecord, Member, MemberKey, PodName, PolicyRecord, RuleKey, RuleText};

use super::pass::{number, remove, write};
use super::staged::{Absent, Staged};
use super::{Delta, Outcome, Problem, read};
use crate::dataplane::{Dataplane, PolicyTables, Table, WriteError};
use crate::desired::{Desired, EndpointPolicy};

/// Desired and actual content of the maps of policy.
#[derive(Debug)]
pub(super) struct PolicyState {
    endpoints: Staged<Addr, EndpointPolicy>,
    link_policy: Staged<u32, u32>,
    ip_class: Staged<Addr, u32>,
    cidr_class: Staged<Prefix<Block>, u32>,
    port_class: Delta<Prefix<Ports>, u32>,
    verdicts: Delta<VerdictKey, Allow>,
    policies: Delta<u32, PolicyRecord>,
    rules: Delta<RuleKey, RuleText>,
    set_members: Delta<MemberKey, Member>,
    classes: Delta<u32, ClassRecord>,
    pod_names: Delta<Addr, PodName>,
    generation: u32,
}

impl PolicyState {
    /// Reads what the maps hold. Nothing is desired yet.
    pub(super) fn load(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
        let generation = dataplane.generation()?;
        let tables = dataplane.policy();
        let endpoints = read(tables.endpoints)?;
        Ok(Self {
            endpoints: Staged::new(endpoints.into_iter().map(|(addr, raw)| (addr, from_raw(&raw))).collect()),
            link_policy: Staged::new(read(tables.link_policy)?),
            ip_class: Staged::new(read(tables.ip_class)?),
            cidr_class: Staged::new(read(tables.cidr_class)?),
            port_class: Delta::new(read(tables.port_class)?),
            verdicts: Delta::new(read(tables.verdicts)?),
            policies: Delta::new(read(tables.policies)?),
            rules: Delta::new(read(tables.rules)?),
            set_members: Delta::new(read(tables.set_members)?),
            classes: Delta::new(read(tables.classes)?),
            pod_names: Delta::new(read(tables.pod_names)?),
            generation,
        })
    }

    /// Takes its part of what is desired.
    pub(super) fn set_desired(&mut self, desired: Desired) {
        self.endpoints.set_desired(desired.endpoints);
        self.link_policy.set_desired(desired.link_policy);
        self.ip_class.set_desired(desired.ip_class);
        self.cidr_class.set_desired(desired.cidr_class);
        self.port_class.set_desired(desired.port_class);
        self.verdicts.set_desired(desired.verdicts);
        self.policies.set_desired(desired.policies);
        self.rules.set_desired(desired.rules);
        self.set_members.set_desired(desired.set_members);
        self.classes.set_desired(desired.classes);
        self.pod_names.set_desired(desired.pod_names);
    }

    /// Fills in what the maps hold.
    pub(super) fn write_actual(&self, desired: &mut Desired) {
        let g = self.generation;
        desired.endpoints = self.endpoints.actual(g);
        desired.endpoints.retain(|_, endpoint| endpoint.policy.flags != 0);
        desired.link_policy = self.link_policy.actual(g);
        desired.link_policy.retain(|_, flags| *flags != 0);
        desired.ip_class = self.ip_class.actual(g);
        desired.ip_class.retain(|_, class| *class != lbr_common::policy::class::ABSENT);
        desired.cidr_class = self.cidr_class.actual(g);
        desired.port_class = self.port_class.actual().clone();
        desired.verdicts = self.verdicts.actual().clone();
        desired.policies = self.policies.actual().clone();
        desired.rules = self.rules.actual().clone();
        desired.set_members = self.set_members.actual().clone();
        desired.classes = self.classes.actual().clone();
        desired.pod_names = self.pod_names.actual().clone();
    }

    /// How many entries differ.
    pub(super) fn pending(&self) -> usize {
        let g = self.generation;
        self.endpoints.pending(g)
            + self.link_policy.pending(g)
            + self.ip_class.pending(g)
            + self.cidr_class.pending(g)
            + self.port_class.pending()
            + self.verdicts.pending()
            + self.policies.pending()
            + self.rules.pending()
            + self.set_members.pending()
            + self.classes.pending()
            + self.pod_names.pending()
    }

    /// Brings the maps up to date. True if another generation is in force now.
    pub(super) fn write(&mut self, dataplane: &mut dyn Dataplane, outcome: &mut Outcome) -> bool {
        let held = self.hold(&dataplane.policy(), &mut outcome.problems);
        match self.switch(dataplane, &held, outcome) {
            Ok(changed) => {
                self.clean(dataplane.policy(), &held, outcome);
                changed
            }
            Err(Interrupted) => false,
        }
    }

    /// Finds the sets that there is no room for, before anything is written. Their pods keep the set that they
    /// have; one that was not isolated so far gets set 0, which allows nothing.
    fn hold(&mut self, tables: &PolicyTables<'_>, problems: &mut Vec<Problem>) -> Held {
        let mut held = Held::default();
        let name = |set| self.set_text(set);
        held.lack(&self.verdicts, &*tables.verdicts, |key| key.set, name, problems);
        held.lack(&self.port_class, &*tables.port_class, |key| key.data.set, name, problems);
        if held.sets.is_empty() {
            return held;
        }
        const ISOLATED: u32 = policy_flags::ISOLATED_IN | policy_flags::ISOLATED_OUT;
        const AUDIT: u32 = policy_flags::AUDIT_IN | policy_flags::AUDIT_OUT;
        let mut desired = std::mem::take(self.endpoints.desired_mut());
        for (addr, EndpointPolicy { policy, .. }) in &mut desired {
            if held.sets.contains(&policy.audit) {
                policy.audit = 0;
                policy.flags &= !AUDIT;
            }
            if held.sets.contains(&policy.set) {
                let now = self.endpoints.at(addr, self.generation).unwrap_or_default().policy;
                policy.set = if now.flags & ISOLATED == 0 { 0 } else { now.set };
                held.kept.insert(policy.set);
            }
        }
        *self.endpoints.desired_mut() = desired;
        held
    }

    /// The policies that make up a set, for a person.
    fn set_text(&self, set: u32) -> String {
        let members = self.set_members.desired().range(MemberKey { set, number: 0 }..);
        let members = members.take_while(|(key, _)| key.set == set);
        let records = members.filter_map(|(_, member)| self.policies.desired().get(&member.policy));
        let names: Vec<_> =
            records.map(|policy| format!("{}/{}", policy.namespace.as_str(), policy.name.as_str())).collect();
        match names.as_slice() {
            [] => format!("policy set {set}"),
            [first, second, rest @ ..] if rest.len() > 1 => {
                format!("NetworkPolicy {first}, {second} and {} more", rest.len())
            }
            few => format!("NetworkPolicy {}", few.join(", ")),
        }
    }

    /// Steps 1 to 3.
    fn switch(
        &mut self,
        dataplane: &mut dyn Dataplane,
        held: &Held,
        outcome: &mut Outcome,
    ) -> Result<bool, Interrupted> {
        let generation = dataplane.generation().map_err(|error| interrupted(error, outcome))?;
        self.generation = generation;
        let tables = dataplane.policy();
        let before = outcome.problems.len();
        let fits = |set: u32| !held.sets.contains(&set);
        write(&mut self.port_class, tables.port_class, |k, _| fits(k.data.set), ports_text, outcome);
        write(&mut self.verdicts, tables.verdicts, |k, _| fits(k.set), verdict_text, outcome);
        if outcome.problems.len() > before {
            return Err(Interrupted);
        }
        // Before what they are the names of is in force. No packet depends on them.
        write(&mut self.policies, tables.policies, |_, _| true, number, outcome);
        write(&mut self.rules, tables.rules, |_, _| true, rule_text, outcome);
        write(&mut self.set_members, tables.set_members, |_, _| true, member_text, outcome);
        write(&mut self.classes, tables.classes, |_, _| true, number, outcome);
        write(&mut self.pod_names, tables.pod_names, |_, _| true, Addr::to_string, outcome);

        let mut changes = false;
        changes |=
            stage(&mut self.cidr_class, tables.cidr_class, |raw| raw, block_text, generation, outcome)?;
        changes |=
            stage(&mut self.ip_class, tables.ip_class, |raw| raw, Addr::to_string, generation, outcome)?;
        changes |=
            stage(&mut self.endpoints, tables.endpoints, to_raw, Addr::to_string, generation, outcome)?;
        changes |= stage(&mut self.link_policy, tables.link_policy, |raw| raw, number, generation, outcome)?;
        if changes {
            let next = generation.wrapping_add(1);
            dataplane.set_generation(next).map_err(|error| interrupted(error, outcome))?;
            self.generation = next;
        }
        Ok(changes)
    }

    /// Step 4.
    fn clean(&mut self, tables: PolicyTables<'_>, held: &Held, outcome: &mut Outcome) {
        sweep(&mut self.endpoints, tables.endpoints, Addr::to_string, outcome);
        sweep(&mut self.link_policy, tables.link_policy, number, outcome);
        sweep(&mut self.ip_class, tables.ip_class, Addr::to_string, outcome);
        sweep(&mut self.cidr_class, tables.cidr_class, block_text, outcome);
        let free = |set: u32| !held.kept.contains(&set);
        remove(&mut self.port_class, tables.port_class, |k| free(k.data.set), ports_text, outcome);
        remove(&mut self.verdicts, tables.verdicts, |k| free(k.set), verdict_text, outcome);
        remove(&mut self.set_members, tables.set_members, |k| free(k.set), member_text, outcome);
        remove(&mut self.policies, tables.policies, |_| true, number, outcome);
        remove(&mut self.rules, tables.rules, |_| true, rule_text, outcome);
        remove(&mut self.classes, tables.classes, |_| true, number, outcome);
        remove(&mut self.pod_names, tables.pod_names, |_| true, Addr::to_string, outcome);
    }
}

/// The round ends here; why is in the list of problems.
struct Interrupted;

fn interrupted(error: WriteError, outcome: &mut Outcome) -> Interrupted {
    let key = "generation".to_owned();
    outcome.problems.push(Problem { map: lbr_common::maps::STATE.name, key, error });
    Interrupted
}

/// What there is no room for.
#[derive(Default)]
struct Held {
    /// Sets that get no entry.
    sets: BTreeSet<u32>,
    /// Sets that stay in use in their place.
    kept: BTreeSet<u32>,
}

impl Held {
    /// Looks for room in the order of the sets' numbers: older ones come first.
    fn lack<K: Copy + Ord, V: Copy + PartialEq>(
        &mut self,
        delta: &Delta<K, V>,
        table: &dyn Table<K, V>,
        set_of: impl Fn(&K) -> u32,
        text: impl Fn(u32) -> String,
        problems: &mut Vec<Problem>,
    ) {
        let mut needs: BTreeMap<u32, usize> = BTreeMap::new();
        for (key, _) in delta.writes().filter(|(key, _)| !delta.actual().contains_key(key)) {
            *needs.entry(set_of(&key)).or_default() += 1;
        }
        let max_entries = table.max_entries();
        let mut left = (max_entries as usize).saturating_sub(delta.actual().len());
        for (set, need) in needs {
            if need <= left {
                left -= need;
            } else {
                self.sets.insert(set);
                let error = WriteError::Full { map: table.name(), max_entries };
                problems.push(Problem { map: table.name(), key: text(set), error });
            }
        }
    }
}

/// Writes what is to change as values of the next generation. True if that differs from the present one.
fn stage<K: Copy + Ord, T: Absent<K>, R>(
    staged: &mut Staged<K, T>,
    table: &mut dyn Table<K, R>,
    to_raw: impl Fn(Versioned<T>) -> R,
    text: impl Fn(&K) -> String,
    generation: u32,
    outcome: &mut Outcome,
) -> Result<bool, Interrupted> {
    let plan = staged.plan(generation);
    let mut changes = plan.changes;
    for (key, raw) in plan.writes {
        match table.insert(&key, &to_raw(raw)) {
            Ok(()) => {
                changes |= raw.old != raw.new;
                staged.wrote(key, raw);
                outcome.writes += 1;
            }
            Err(error) => {
                // An address that has no room has no class: it is allowed less than it should be.
                let costs_itself_only = matches!(error, WriteError::Full { .. });
                outcome.problems.push(Problem { map: table.name(), key: text(&key), error });
                if !costs_itself_only {
                    return Err(Interrupted);
                }
            }
        }
    }
    Ok(changes)
}

fn sweep<K: Copy + Ord, T: Absent<K>, R>(
    staged: &mut Staged<K, T>,
    table: &mut dyn Table<K, R>,
    text: impl Fn(&K) -> String,
    outcome: &mut Outcome,
) {
    for key in staged.leftovers() {
        match table.remove(&key) {
            Ok(()) => {
                staged.removed(&key);
                outcome.removals += 1;
            }
            Err(error) => outcome.problems.push(Problem { map: table.name(), key: text(&key), error }),
        }
    }
}

fn from_raw(raw: &Endpoint) -> Versioned<EndpointPolicy> {
    let with_link = |policy: Policy| EndpointPolicy { link: raw.link, policy };
    let Versioned { old, new, since } = raw.policy;
    Versioned { old: with_link(old), new: with_link(new), since }
}

/// The link has no versions: it is where the address is now.
fn to_raw(value: Versioned<EndpointPolicy>) -> Endpoint {
    let Versioned { old, new, since } = value;
    let link = if new.policy.flags == 0 { old.link } else { new.link };
    Endpoint { link, policy: Versioned { old: old.policy, new: new.policy, since } }
}

fn ports_text(key: &Prefix<Ports>) -> String {
    format!("policy set {} port {}", key.data.set, u16::from_be_bytes(key.data.port))
}

fn verdict_text(key: &VerdictKey) -> String {
    format!("policy set {} class {}", key.set, key.class)
}

fn rule_text(key: &RuleKey) -> String {
    format!("policy {} rule {}", key.policy, key.rule)
}

fn member_text(key: &MemberKey) -> String {
    format!("policy set {} member {}", key.set, key.number)
}

fn block_text(key: &Prefix<Block>) -> String {
    let addr = lbr_common::addr::Addr::v6(key.data.addr);
    let before = Block::FAMILY_BITS + if addr.is_v4() { 96 } else { 0 };
    format!("{addr}/{}", key.len.saturating_sub(before))
}
