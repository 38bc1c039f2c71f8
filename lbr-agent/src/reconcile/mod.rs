//! Writes the difference between what `compile` wants and what the maps hold.
//!
//! A write that fails stays pending and costs nothing but itself and what depends on it; applying again
//! tries again. The order is in `order.rs`, the conditions of each step in `pass.rs`.

mod delta;
mod hints;
mod order;
mod pass;
mod policy;
mod room;
#[cfg(test)]
mod tests;
mod text;

pub use delta::Delta;
pub use policy::{Full, Shortage};

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

use lbr_common::addr::Addr;
use lbr_common::link::{Link, Uplink};
use lbr_common::maglev::{MaglevKey, MaglevPart};
use lbr_common::maps;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange};
use lbr_common::text::{RejectedRecord, ServiceName};

use crate::dataplane::{Dataplane, Hints, Table, WriteError};
use crate::desired::Desired;

/// Desired and actual content of all maps.
#[derive(Debug)]
pub struct Reconciler {
    frontends: Delta<FrontendKey, Frontend>,
    slots: Delta<SlotKey, Slot>,
    backends: Delta<u32, Backend>,
    maglev: Delta<MaglevKey, MaglevPart>,
    services: Delta<u32, ServiceName>,
    rejected: Delta<u32, RejectedRecord>,
    links: Delta<u32, Link>,
    uplinks: Delta<u32, Uplink>,
    source_ranges: Delta<Prefix<SourceRange>, u32>,
    service_cidrs: Delta<Prefix<Block>, u32>,
    policy: policy::PolicyState,
    /// A backend or a link was removed or changed, or other policies are in force, and flows were not told yet.
    epoch_due: bool,
    /// As they were written last.
    hints: Option<Hints>,
    inherited: Inherited,
}

/// What a former agent left in force. While the sources have not listed everything, it is not touched: a
/// Service whose slices are not all known yet would lose endpoints that live.
#[derive(Debug)]
struct Inherited {
    frontends: BTreeSet<FrontendKey>,
    services: BTreeSet<u32>,
}

/// What one round of writing came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Entries added or replaced.
    pub writes: usize,
    /// Entries removed.
    pub removals: usize,
    /// Entries that still differ: to be tried again.
    pub pending: usize,
    /// What failed, or does not fit. An entry that only waits for another one is not listed.
    pub problems: Vec<Problem>,
}

impl Outcome {
    /// Whether the maps hold what they should.
    pub fn is_converged(&self) -> bool {
        self.pending == 0
    }
}

/// A write that was not done.
#[derive(Debug)]
pub struct Problem {
    /// Name of the map.
    pub map: &'static str,
    /// The entry, or the Service, for a person.
    pub key: String,
    /// Why.
    pub error: WriteError,
}

impl Reconciler {
    /// Reads what the maps hold. Nothing is desired yet.
    pub fn load(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
        let frontends = read(dataplane.frontends())?;
        let uplinks = read(&*dataplane.uplinks())?;
        let inherited = Inherited {
            frontends: frontends.keys().copied().collect(),
            services: frontends.values().map(|f| f.service).filter(|&id| id != 0).collect(),
        };
        Ok(Self {
            frontends: Delta::new(frontends),
            slots: Delta::new(read(dataplane.slots())?),
            backends: Delta::new(read(dataplane.backends())?),
            maglev: Delta::new(read(dataplane.maglev())?),
            services: Delta::new(read(dataplane.services())?),
            rejected: Delta::new(read(dataplane.rejected())?),
            // A link is entered before it is attached: the former agent may have ended in between.
            links: Delta::doubtful(read(dataplane.links())?),
            uplinks: Delta::doubtful(uplinks),
            source_ranges: Delta::new(read(dataplane.source_ranges())?),
            service_cidrs: Delta::new(read(dataplane.service_cidrs())?),
            policy: policy::PolicyState::load(dataplane)?,
            // A former agent may have ended between the removal of a backend and this.
            epoch_due: true,
            hints: None,
            inherited,
        })
    }

    /// What the maps hold, as far as known.
    pub fn actual(&self) -> Desired {
        let mut actual = Desired {
            frontends: self.frontends.actual().clone(),
            slots: self.slots.actual().clone(),
            backends: self.backends.actual().clone(),
            maglev: self.maglev.actual().clone(),
            services: self.services.actual().clone(),
            rejected: self.rejected.actual().clone(),
            links: self.links.actual().clone(),
            uplinks: self.uplinks.actual().clone(),
            source_ranges: self.source_ranges.actual().clone(),
            service_cidrs: self.service_cidrs.actual().clone(),
            ..Desired::default()
        };
        self.policy.write_actual(&mut actual);
        actual
    }

    /// What people should find under `rejected`.
    pub fn rejected(&self) -> &BTreeMap<u32, RejectedRecord> {
        self.rejected.desired()
    }

    /// How many entries each map has, as far as known.
    pub fn entries(&self) -> Vec<(&'static str, usize)> {
        let mut entries = vec![
            (maps::FRONTENDS.name, self.frontends.actual().len()),
            (maps::SLOTS.name, self.slots.actual().len()),
            (maps::BACKENDS.name, self.backends.actual().len()),
            (maps::MAGLEV.name, self.maglev.actual().len()),
            (maps::SERVICES.name, self.services.actual().len()),
            (maps::REJECTED.name, self.rejected.actual().len()),
            (maps::LINKS.name, self.links.actual().len()),
            (maps::UPLINKS.name, self.uplinks.actual().len()),
            (maps::SOURCE_RANGES.name, self.source_ranges.actual().len()),
            (maps::SERVICE_CIDRS.name, self.service_cidrs.actual().len()),
        ];
        self.policy.count_entries(&mut entries);
        entries
    }

    /// Whether this is the address of a pod of this node whose interface has its programs, and whose policies are in
    /// force as they are desired.
    pub fn is_ready(&self, addr: &Addr) -> bool {
        let link = self.policy.in_force(addr).map(|endpoint| endpoint.link);
        let has_programs =
            |link: u32| self.links.actual().contains_key(&link) && !self.links.must_write(&link);
        link.is_some_and(has_programs) && !self.epoch_due
    }

    /// What of the policies in this there is no room for.
    pub fn shortage(&self, desired: &Desired, dataplane: &mut dyn Dataplane) -> Shortage {
        self.policy.shortage(desired, &dataplane.policy())
    }

    /// Enters and attaches those of these pod links that are new, and touches nothing else: a pod that has just been
    /// plugged in does not wait until its cluster is compiled. Its link has no entry in `link_policy`, which says that
    /// its pod is not known yet. What fails is tried again by [`Self::apply`].
    pub fn plug(&mut self, links: &BTreeMap<u32, Link>, dataplane: &mut dyn Dataplane) -> Outcome {
        let (desired, uplinks) = (self.links.desired(), self.uplinks.actual());
        // One that turns from an uplink into a pod link is a change of two maps, in their order.
        let is_new = |index: &u32| !desired.contains_key(index) && !uplinks.contains_key(index);
        let new: BTreeMap<u32, Link> =
            links.iter().filter(|(index, _)| is_new(index)).map(|(index, link)| (*index, *link)).collect();
        let mut outcome = Outcome::default();
        if !new.is_empty() {
            let all = desired.iter().chain(&new).map(|(index, link)| (*index, *link)).collect();
            self.links.set_desired(all);
            let is_new = |index: &u32, _: &Link| new.contains_key(index);
            pass::write(&mut self.links, dataplane.links(), is_new, pass::number, &mut outcome);
        }
        outcome
    }

    /// Makes the maps hold this, as far as possible now.
    ///
    /// Without `allow_removals` (the sources have not listed everything) nothing is removed and nothing that
    /// a former agent left in force is changed, and policies stay as they are; links and rejected objects excepted.
    pub fn apply(
        &mut self,
        mut desired: Desired,
        allow_removals: bool,
        dataplane: &mut dyn Dataplane,
    ) -> Outcome {
        self.frontends.set_desired(take(&mut desired.frontends));
        self.slots.set_desired(take(&mut desired.slots));
        self.backends.set_desired(take(&mut desired.backends));
        self.maglev.set_desired(take(&mut desired.maglev));
        self.services.set_desired(take(&mut desired.services));
        self.rejected.set_desired(take(&mut desired.rejected));
        self.links.set_desired(take(&mut desired.links));
        self.uplinks.set_desired(take(&mut desired.uplinks));
        self.source_ranges.set_desired(take(&mut desired.source_ranges));
        self.service_cidrs.set_desired(take(&mut desired.service_cidrs));
        self.policy.set_desired(desired);
        self.retry(allow_removals, dataplane)
    }

    /// Tries once more what is pending.
    pub fn retry(&mut self, allow_removals: bool, dataplane: &mut dyn Dataplane) -> Outcome {
        let mut pass = pass::Pass::new(self, allow_removals, dataplane);
        order::run(&mut pass, allow_removals);
        let outcome = pass.outcome;
        Outcome { pending: self.pending(), ..outcome }
    }

    fn pending(&self) -> usize {
        self.frontends.pending()
            + self.slots.pending()
            + self.backends.pending()
            + self.maglev.pending()
            + self.services.pending()
            + self.rejected.pending()
            + self.links.pending()
            + self.uplinks.pending()
            + self.source_ranges.pending()
            + self.service_cidrs.pending()
            + self.policy.pending()
            + usize::from(self.epoch_due)
            + usize::from(self.hints.is_none())
    }
}

fn read<K: Ord, V>(table: &dyn Table<K, V>) -> Result<BTreeMap<K, V>, WriteError> {
    Ok(table.entries()?.into_iter().collect())
}
