//! One round of writing policy.
//!
//! 1. What nothing leads to yet: verdicts and port classes of new sets, and names for people.
//! 2. What changes in place, as the value of the next generation.
//! 3. The generation: from here on all of it is in force.
//! 4. What nothing leads to any more is removed.
//!
//! A write that fails in 1 or 2 ends the round: the present generation stays in force, whole. What there is no
//! room for is found before (`shortage`), and something else is in force in its place (`hold`).

mod hold;
mod shortage;
mod staged;
#[cfg(test)]
mod tests;
mod text;

use lbr_common::addr::Addr;
use lbr_common::maps;
use lbr_common::policy::{Allow, Block, Ports, Prefix, VerdictKey, Versioned, policy_flags};
use lbr_common::text::{ClassRecord, Member, MemberKey, PodName, PolicyRecord, RuleKey, RuleText};

use self::hold::Held;
pub use self::shortage::{Full, Shortage};
use self::staged::{Absent, Staged};
use super::pass::{number, remove, write};
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
            endpoints: Staged::new(
                endpoints.into_iter().map(|(addr, raw)| (addr, text::from_raw(&raw))).collect(),
            ),
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

    /// How many entries each map has, as far as known.
    pub(super) fn count_entries(&self, entries: &mut Vec<(&'static str, usize)>) {
        entries.extend([
            (maps::ENDPOINTS.name, self.endpoints.len()),
            (maps::LINK_POLICY.name, self.link_policy.len()),
            (maps::IP_CLASS.name, self.ip_class.len()),
            (maps::CIDR_CLASS.name, self.cidr_class.len()),
            (maps::PORT_CLASS.name, self.port_class.actual().len()),
            (maps::VERDICTS.name, self.verdicts.actual().len()),
            (maps::POLICIES.name, self.policies.actual().len()),
            (maps::RULES.name, self.rules.actual().len()),
            (maps::SET_MEMBERS.name, self.set_members.actual().len()),
            (maps::CLASSES.name, self.classes.actual().len()),
            (maps::POD_NAMES.name, self.pod_names.actual().len()),
        ]);
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

    /// Steps 1 to 3; [`Self::clean`] is to follow. `None`: a write failed, and the present generation stays in force.
    pub(super) fn enforce(
        &mut self,
        dataplane: &mut dyn Dataplane,
        outcome: &mut Outcome,
    ) -> Option<Enforced> {
        let wanted = shortage::Wanted {
            endpoints: self.endpoints.desired(),
            link_policy: self.link_policy.desired(),
            ip_class: self.ip_class.desired(),
            cidr_class: self.cidr_class.desired(),
            port_class: self.port_class.desired(),
            verdicts: self.verdicts.desired(),
        };
        let shortage = shortage::find(self, &wanted, &dataplane.policy());
        let held = hold::hold(self, &shortage, &mut outcome.problems);
        let changed = self.switch(dataplane, &held, outcome).ok()?;
        Some(Enforced { changed, held })
    }

    /// A pod of this node, if all that is desired of it is in force.
    pub(super) fn in_force(&self, addr: &Addr) -> Option<EndpointPolicy> {
        let endpoint = self.endpoints.at(addr, self.generation)?;
        let is_pod = endpoint.policy.flags & policy_flags::POD != 0;
        (is_pod && self.endpoints.desired().get(addr) == Some(&endpoint)).then_some(endpoint)
    }

    /// What of this there is no room for.
    pub(super) fn shortage(&self, desired: &Desired, tables: &PolicyTables<'_>) -> Shortage {
        shortage::find(self, &desired.into(), tables)
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
        write(&mut self.port_class, tables.port_class, |k, _| fits(k.data.set), text::ports, outcome);
        write(&mut self.verdicts, tables.verdicts, |k, _| fits(k.set), text::verdict, outcome);
        if outcome.problems.len() > before {
            return Err(Interrupted);
        }
        // Before what they are the names of is in force. No packet depends on them.
        write(&mut self.policies, tables.policies, |_, _| true, number, outcome);
        write(&mut self.rules, tables.rules, |_, _| true, text::rule, outcome);
        write(&mut self.set_members, tables.set_members, |_, _| true, text::member, outcome);
        write(&mut self.classes, tables.classes, |_, _| true, number, outcome);

        let mut changes = false;
        changes |=
            stage(&mut self.cidr_class, tables.cidr_class, |raw| raw, text::block, generation, outcome)?;
        changes |=
            stage(&mut self.ip_class, tables.ip_class, |raw| raw, Addr::to_string, generation, outcome)?;
        changes |=
            stage(&mut self.endpoints, tables.endpoints, text::to_raw, Addr::to_string, generation, outcome)?;
        changes |= stage(&mut self.link_policy, tables.link_policy, |raw| raw, number, generation, outcome)?;
        if changes {
            let next = generation.wrapping_add(1);
            dataplane.set_generation(next).map_err(|error| interrupted(error, outcome))?;
            self.generation = next;
        }
        Ok(changes)
    }

    /// Step 4.
    pub(super) fn clean(&mut self, tables: PolicyTables<'_>, enforced: &Enforced, outcome: &mut Outcome) {
        let held = &enforced.held;
        sweep(&mut self.endpoints, tables.endpoints, Addr::to_string, outcome);
        sweep(&mut self.link_policy, tables.link_policy, number, outcome);
        sweep(&mut self.ip_class, tables.ip_class, Addr::to_string, outcome);
        sweep(&mut self.cidr_class, tables.cidr_class, text::block, outcome);
        let free = |set: u32| !held.kept.contains(&set);
        remove(&mut self.port_class, tables.port_class, |k| free(k.data.set), text::ports, outcome);
        remove(&mut self.verdicts, tables.verdicts, |k| free(k.set), text::verdict, outcome);
        remove(&mut self.set_members, tables.set_members, |k| free(k.set), text::member, outcome);
        // Names of what is kept.
        let free = held.kept.is_empty();
        remove(&mut self.policies, tables.policies, |_| free, number, outcome);
        remove(&mut self.rules, tables.rules, |_| free, text::rule, outcome);
        remove(&mut self.classes, tables.classes, |_| free, number, outcome);
        // Not before the switch: until then it tells whether an address was another pod's.
        write(&mut self.pod_names, tables.pod_names, |_, _| true, Addr::to_string, outcome);
        remove(&mut self.pod_names, tables.pod_names, |_| true, Addr::to_string, outcome);
    }
}

/// What is desired is in force, as far as there is room.
pub(super) struct Enforced {
    /// By another generation than before.
    pub(super) changed: bool,
    held: Held,
}

/// The round ends here; why is in the list of problems.
struct Interrupted;

fn interrupted(error: WriteError, outcome: &mut Outcome) -> Interrupted {
    let key = "generation".to_owned();
    outcome.problems.push(Problem { map: lbr_common::maps::STATE.name, key, error });
    Interrupted
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
                outcome.problems.push(Problem { map: table.name(), key: text(&key), error });
                return Err(Interrupted);
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
