//! Writes the difference between the desired content, which `compile` computes, and the content of the maps.
//!
//! A write that fails stays pending and holds up only the entries that depend on it; [`Reconciler::retry`] tries again.
//! The order is in `order.rs`, the conditions of each step in `pass/`.

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

/// Desired and actual content of all maps, and what a change makes necessary.
#[derive(Debug)]
pub struct Reconciler {
    maps: Maps,
    /// A backend or a link was removed or changed, or other policies are in force, and the epoch has not been raised yet.
    epoch_due: bool,
    /// A backend for UDP was removed, and the sockets that are connected to it have not been aborted yet.
    sockets_due: bool,
    /// The hints that were written last.
    hints: Option<Hints>,
    inherited: Inherited,
}

/// Entries that a former agent left in force. The agent does not touch them while the sources have not listed everything: a
/// Service whose slices are not all known yet would lose live endpoints.
#[derive(Debug)]
struct Inherited {
    frontends: BTreeSet<FrontendKey>,
    services: BTreeSet<u32>,
}

/// The result of one round of writing.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Entries added or replaced.
    pub writes: usize,
    /// Entries removed.
    pub removals: usize,
    /// Entries that still differ, for the next try.
    pub pending: usize,
    /// Writes that failed, and entries that do not fit. An entry that only waits for another one is not listed.
    pub problems: Vec<Problem>,
    /// Connected UDP sockets that lost their backend, and were aborted.
    pub aborted_sockets: usize,
    /// Why there may be more of them. It is tried again in the next round.
    pub abort_failed: Option<std::io::Error>,
}

impl Outcome {
    /// Whether the maps hold what they should.
    pub fn is_converged(&self) -> bool {
        self.pending == 0
    }
}

/// A write that failed or was not tried.
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
        // A former agent may have ended between the removal of a backend and what follows from it.
        Ok(Self { maps, epoch_due: true, sockets_due: true, hints: None, inherited })
    }

    /// What the maps hold, as far as known.
    pub fn actual(&self) -> Desired {
        self.maps.actual()
    }

    /// The desired content of `rejected`.
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
        let link = self.maps.in_force(addr).map(|endpoint| endpoint.ifindex);
        let has_programs =
            |link: u32| self.maps.links.actual().contains_key(&link) && !self.maps.links.must_write(&link);
        link.is_some_and(has_programs) && !self.epoch_due
    }

    /// The policies in this for which the maps have no room.
    pub fn shortage(&self, desired: &Desired, dataplane: &mut dyn Dataplane) -> Shortage {
        self.maps.shortage(desired, &dataplane.tables())
    }

    /// Enters and attaches those of these pod links that are new, and touches nothing else: a pod that has just been
    /// plugged in does not wait until its cluster is compiled. Its link has no entry in `link_policy`, which says that
    /// its pod is not known yet. What fails is tried again by [`Self::apply`].
    pub fn plug(&mut self, links: &BTreeMap<u32, Link>, dataplane: &mut dyn Dataplane) -> Outcome {
        let (desired, uplinks) = (self.maps.links.desired(), self.maps.uplinks.actual());
        // A link that turns from an uplink into a pod's link changes two maps, in an order: not here.
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
    /// Without `allow_removals` (the sources have not listed everything) it removes nothing, changes nothing that a former
    /// agent left in force, and leaves policies as they are; links and rejected objects excepted.
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
