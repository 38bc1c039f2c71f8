//! Writes the difference between what `compile` wants and what the maps hold.
//!
//! A write that fails stays pending and costs nothing but itself and what depends on it; applying again
//! tries again. The order is in `order.rs`, the conditions of each step in `pass.rs`.

mod delta;
mod hints;
mod maps;
mod order;
mod pass;
mod policy;
mod room;
mod staged;
#[cfg(test)]
mod tests;
mod text;

pub use delta::Delta;
pub use policy::{Full, Shortage};

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::link::Link;
use lbr_common::service::FrontendKey;
use lbr_common::text::RejectedRecord;

use self::maps::Maps;
use crate::dataplane::{Dataplane, Hints, WriteError};
use crate::desired::Desired;

/// Desired and actual content of all maps, and what a change of theirs asks for.
#[derive(Debug)]
pub struct Reconciler {
    maps: Maps,
    /// A backend or a link was removed or changed, or other policies are in force, and flows have not been made to look
    /// yet.
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
        let maps = Maps::load(dataplane)?;
        let frontends = maps.frontends.actual();
        let inherited = Inherited {
            frontends: frontends.keys().copied().collect(),
            services: frontends.values().map(|f| f.service).filter(|&id| id != 0).collect(),
        };
        // A former agent may have ended between the removal of a backend and the epoch.
        Ok(Self { maps, epoch_due: true, hints: None, inherited })
    }

    /// What the maps hold, as far as known.
    pub fn actual(&self) -> Desired {
        self.maps.actual()
    }

    /// What people should find under `rejected`.
    pub fn rejected(&self) -> &BTreeMap<u32, RejectedRecord> {
        self.maps.rejected.desired()
    }

    /// How many entries each map has, as far as known.
    pub fn entries(&self) -> Vec<(&'static str, usize)> {
        self.maps.entries()
    }

    /// Whether this is the address of a pod of this node whose interface has its programs, and whose policies are in
    /// force as they are desired.
    pub fn is_ready(&self, addr: &Addr) -> bool {
        let link = self.maps.in_force(addr).map(|endpoint| endpoint.link);
        let has_programs =
            |link: u32| self.maps.links.actual().contains_key(&link) && !self.maps.links.must_write(&link);
        link.is_some_and(has_programs) && !self.epoch_due
    }

    /// What of the policies in this there is no room for.
    pub fn shortage(&self, desired: &Desired, dataplane: &mut dyn Dataplane) -> Shortage {
        self.maps.shortage(desired, &dataplane.tables())
    }

    /// Enters and attaches those of these pod links that are new, and touches nothing else: a pod that has just been
    /// plugged in does not wait until its cluster is compiled. Its link has no entry in `link_policy`, which says that
    /// its pod is not known yet. What fails is tried again by [`Self::apply`].
    pub fn plug(&mut self, links: &BTreeMap<u32, Link>, dataplane: &mut dyn Dataplane) -> Outcome {
        let (desired, uplinks) = (self.maps.links.desired(), self.maps.uplinks.actual());
        // One that turns from an uplink into a pod link is a change of two maps, in their order.
        let is_new = |index: &u32| !desired.contains_key(index) && !uplinks.contains_key(index);
        let new: BTreeMap<u32, Link> =
            links.iter().filter(|(index, _)| is_new(index)).map(|(index, link)| (*index, *link)).collect();
        let mut outcome = Outcome::default();
        if !new.is_empty() {
            let all = desired.iter().chain(&new).map(|(index, link)| (*index, *link)).collect();
            self.maps.links.set_desired(all);
            let is_new = |index: &u32, _: &Link| new.contains_key(index);
            pass::write(
                &mut self.maps.links,
                &mut *dataplane.tables().links,
                is_new,
                pass::number,
                &mut outcome,
            );
        }
        outcome
    }

    /// Makes the maps hold this, as far as possible now.
    ///
    /// Without `allow_removals` (the sources have not listed everything) nothing is removed and nothing that
    /// a former agent left in force is changed, and policies stay as they are; links and rejected objects excepted.
    pub fn apply(
        &mut self,
        desired: Desired,
        allow_removals: bool,
        dataplane: &mut dyn Dataplane,
    ) -> Outcome {
        self.maps.set_desired(desired);
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
        self.maps.pending() + usize::from(self.epoch_due) + usize::from(self.hints.is_none())
    }
}
