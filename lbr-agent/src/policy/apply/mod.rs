//! One round of writing policy.
//!
//! 1. Entries that no packet reaches yet: verdicts and port classes of new sets, and names for people.
//! 2. Entries that change in place, with the value of the next generation.
//! 3. The generation, which brings all of it into force at once.
//! 4. Removal of entries that no packet reaches any more.
//!
//! A write that fails in step 1 or 2 ends the round: the present generation stays in force, whole. `shortage` finds what does
//! not fit before the round, and `hold` decides what is in force instead.

mod concern;
mod hold;
mod shortage;
#[cfg(test)]
mod tests;
mod text;

use lbr_common::addr::Addr;
use lbr_common::id::PolicySetId;
use lbr_common::policy::policy_flags;

use self::concern::Changed;
use self::hold::Held;
pub use self::shortage::{Full, Shortage};
use crate::dataplane::{Concerned, Dataplane, Table, Tables, WriteError};
use crate::desired::{Desired, EndpointPolicy};
use crate::table::{
    Absent, Outcome, Pass, PolicyMaps, Problem, Staged, Stored, insert, number, remove, write,
};

/// The maps of policies.
#[derive(Debug)]
pub(crate) struct Policies {
    pub(crate) maps: PolicyMaps,
    /// Of the policies in force.
    pub(crate) generation: u32,
    /// All that is desired is in force: there is nothing to do until something else is desired.
    is_settled: bool,
    /// What is in force is not what is desired, for want of room, or a former agent left it.
    lacks_room: bool,
}

impl Policies {
    pub(crate) fn load(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
        let generation = dataplane.generation()?;
        let maps = PolicyMaps::load(dataplane.tables())?;
        Ok(Self { maps, generation, is_settled: false, lacks_room: true })
    }

    /// Not before the sources have listed everything: with half of the cluster's objects, a policy means something else.
    pub(crate) fn apply(&mut self, pass: &mut Pass<'_>) {
        if !pass.allow_removals || self.is_settled {
            return;
        }
        let Some(enforced) = self.enforce(pass.dataplane, &mut pass.outcome) else { return };
        if let Some(flows) = &enforced.flows {
            // Before the Services, which may be very many: flows that the former policies allowed go on until then.
            pass.due.flows.merge(flows);
            pass.raise_epoch();
        }
        // No packet looks up what is left of the former policies.
        self.clean(pass.dataplane.tables(), &enforced, &mut pass.outcome);
        self.maps.endpoints.settle(self.generation);
        self.maps.link_policy.settle(self.generation);
        self.maps.ip_class.settle(self.generation);
        self.maps.cidr_class.settle(self.generation);
        self.is_settled = self.pending() == 0;
    }

    /// From now on the maps should hold their part of this, which is taken out of it.
    pub(crate) fn set_desired(&mut self, desired: &mut Desired) {
        self.is_settled = false;
        self.maps.set_desired(desired);
    }

    /// Where to set what the maps should hold from now on.
    pub(crate) fn desire(&mut self) -> &mut PolicyMaps {
        self.is_settled = false;
        &mut self.maps
    }

    /// How many entries differ.
    pub(crate) fn pending(&self) -> usize {
        if self.is_settled { 0 } else { self.maps.pending(self.generation) }
    }

    /// Steps 1 to 3; [`Self::clean`] is to follow. `None`: a write failed, and the present generation stays in force.
    fn enforce(&mut self, dataplane: &mut dyn Dataplane, outcome: &mut Outcome) -> Option<Enforced> {
        let shortage = self.shortage(&dataplane.tables());
        let held = hold::hold(self, &shortage, &mut outcome.problems);
        let lacks_room = !shortage.is_empty();
        let changed = self.switch(dataplane, &held, outcome).ok()?;
        let lacked_room = std::mem::replace(&mut self.lacks_room, lacks_room);
        let flows = changed.map(|changed| changed.concerned(lacks_room || lacked_room));
        Some(Enforced { flows, held })
    }

    /// A pod of this node, if its desired endpoint is in force.
    pub(crate) fn in_force(&self, addr: &Addr) -> Option<EndpointPolicy> {
        let endpoint = self.maps.endpoints.at(addr, self.generation)?;
        let is_pod = endpoint.policy.flags & policy_flags::POD != 0;
        (is_pod && self.maps.endpoints.desired().get(addr) == Some(&endpoint)).then_some(endpoint)
    }

    /// What is desired and has no room in the maps.
    pub(crate) fn shortage(&self, tables: &Tables<'_>) -> Shortage {
        shortage::of_maps(self, tables)
    }

    /// The same, if this were desired.
    pub(crate) fn shortage_of(&self, desired: &Desired, tables: &Tables<'_>) -> Shortage {
        shortage::of_desired(self, desired, tables)
    }

    /// Steps 1 to 3.
    fn switch(
        &mut self,
        dataplane: &mut dyn Dataplane,
        held: &Held,
        outcome: &mut Outcome,
    ) -> Result<Option<Changed>, Interrupted> {
        let generation = dataplane.generation().map_err(|error| interrupted(error, outcome))?;
        self.generation = generation;
        let tables = dataplane.tables();
        let before = outcome.problems.len();
        let fits = |set: PolicySetId| !held.sets.contains(&set);
        write(&mut self.maps.port_class, tables.port_class, |k, _| fits(k.data.set), text::ports, outcome);
        write(&mut self.maps.verdicts, tables.verdicts, |k, _| fits(k.set), text::verdict, outcome);
        if outcome.problems.len() > before {
            return Err(Interrupted);
        }
        // Names come before the entries that they name. No packet depends on them.
        write(&mut self.maps.policies, tables.policies, |_, _| true, number, outcome);
        write(&mut self.maps.rules, tables.rules, |_, _| true, text::rule, outcome);
        write(&mut self.maps.set_members, tables.set_members, |_, _| true, text::member, outcome);
        write(&mut self.maps.classes, tables.classes, |_, _| true, number, outcome);

        let Self { maps, .. } = self;
        let changed = Changed {
            blocks: stage(&mut maps.cidr_class, tables.cidr_class, text::block, generation, outcome)?,
            classes: stage(&mut maps.ip_class, tables.ip_class, Addr::to_string, generation, outcome)?,
            endpoints: stage(&mut maps.endpoints, tables.endpoints, Addr::to_string, generation, outcome)?,
            links: stage(&mut maps.link_policy, tables.link_policy, number, generation, outcome)?,
        };
        drop(tables);
        if changed.is_none() {
            return Ok(None);
        }
        let next = generation.wrapping_add(1);
        dataplane.set_generation(next).map_err(|error| interrupted(error, outcome))?;
        self.generation = next;
        Ok(Some(changed))
    }

    /// Step 4.
    fn clean(&mut self, tables: Tables<'_>, enforced: &Enforced, outcome: &mut Outcome) {
        let held = &enforced.held;
        sweep(&mut self.maps.endpoints, tables.endpoints, Addr::to_string, outcome);
        sweep(&mut self.maps.link_policy, tables.link_policy, number, outcome);
        sweep(&mut self.maps.ip_class, tables.ip_class, Addr::to_string, outcome);
        sweep(&mut self.maps.cidr_class, tables.cidr_class, text::block, outcome);
        let free = |set: PolicySetId| !held.kept.contains(&set);
        remove(&mut self.maps.port_class, tables.port_class, |k| free(k.data.set), text::ports, outcome);
        remove(&mut self.maps.verdicts, tables.verdicts, |k| free(k.set), text::verdict, outcome);
        remove(&mut self.maps.set_members, tables.set_members, |k| free(k.set), text::member, outcome);
        // Sets that are kept need their names.
        let free = held.kept.is_empty();
        remove(&mut self.maps.policies, tables.policies, |_| free, number, outcome);
        remove(&mut self.maps.rules, tables.rules, |_| free, text::rule, outcome);
        remove(&mut self.maps.classes, tables.classes, |_| free, number, outcome);
        // After the switch: until then `hold` sees by the names whether an address belonged to another pod.
        write(&mut self.maps.pod_names, tables.pod_names, |_, _| true, Addr::to_string, outcome);
        remove(&mut self.maps.pod_names, tables.pod_names, |_| true, Addr::to_string, outcome);
    }
}

/// The desired policies are in force, as far as they fit.
struct Enforced {
    /// A new generation brought them into force, and concerns these flows.
    flows: Option<Concerned>,
    held: Held,
}

/// The round ended early, for a reason in the list of problems.
struct Interrupted;

fn interrupted(error: WriteError, outcome: &mut Outcome) -> Interrupted {
    let key = "generation".to_owned();
    outcome.problems.push(Problem::new(lbr_common::maps::STATE.name, key, error));
    Interrupted
}

/// Writes changes as values of the next generation. Returns the keys under which that generation differs from the present
/// one, also by what was written before.
fn stage<K: Copy + Ord, R: Stored<K>>(
    staged: &mut Staged<K, R::Value>,
    table: &mut dyn Table<K, R>,
    text: impl Fn(&K) -> String,
    generation: u32,
    outcome: &mut Outcome,
) -> Result<Vec<K>, Interrupted> {
    let plan = staged.plan(generation);
    let entries: Vec<(K, R)> = plan.writes.iter().map(|(key, raw)| (*key, R::of(*raw))).collect();
    let map = table.name();
    for ((key, raw), result) in plan.writes.into_iter().zip(insert(table, &entries)) {
        match result {
            Ok(()) => {
                staged.wrote(key, raw);
                outcome.writes += 1;
            }
            Err(error) => {
                outcome.problems.push(Problem::new(map, text(&key), error));
                return Err(Interrupted);
            }
        }
    }
    Ok(plan.changes)
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
            Err(error) => outcome.problems.push(Problem::new(table.name(), text(&key), error)),
        }
    }
}
