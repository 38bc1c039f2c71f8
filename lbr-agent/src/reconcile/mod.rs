//! Writes what all parts want, in the order of `order.rs`.
//!
//! A write that fails stays pending and holds up only the entries that depend on it; [`Reconciler::retry`] tries again.

mod order;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use lbr_common::addr::Addr;
use lbr_common::link::Link;

use crate::dataplane::{Concerned, Dataplane, WriteError};
use crate::desired::Desired;
use crate::link::Links;
use crate::policy::Policies;
use crate::service::Services;
use crate::table::{Due, Outcome, Pass, ReportMaps};

/// The maps of all parts, and what their changes make necessary.
#[derive(Debug)]
pub struct Reconciler {
    pub(crate) links: Links,
    pub(crate) policy: Policies,
    pub(crate) services: Services,
    pub(crate) report: ReportMaps,
    due: Due,
}

impl Reconciler {
    /// Reads what the maps hold. Nothing is desired yet.
    pub fn load(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
        Ok(Self {
            links: Links::load(dataplane)?,
            policy: Policies::load(dataplane)?,
            services: Services::load(dataplane)?,
            report: ReportMaps::load(dataplane.tables())?,
            // A former agent may have ended between the removal of a backend and what follows from it.
            due: Due { flows: Concerned::all(), sockets: true },
        })
    }

    /// What the maps hold, as far as known.
    pub fn actual(&self) -> Desired {
        let (mut actual, generation) = (Desired::default(), self.policy.generation);
        self.links.maps.actual(generation, &mut actual);
        self.policy.maps.actual(generation, &mut actual);
        self.services.maps.actual(generation, &mut actual);
        self.report.actual(generation, &mut actual);
        actual
    }

    /// What the maps should hold.
    pub fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        self.links.maps.desired(&mut desired);
        self.policy.maps.desired(&mut desired);
        self.services.maps.desired(&mut desired);
        self.report.desired(&mut desired);
        desired
    }

    /// How many entries each map has, as far as known.
    pub fn entries(&self) -> Vec<(&'static str, usize)> {
        let [links, policy] = [self.links.maps.entries(), self.policy.maps.entries()];
        [self.services.maps.entries(), self.report.entries(), policy, links].concat()
    }

    /// Whether this is the address of a pod of this node whose interface has its programs, and whose policies are in
    /// force as they are desired.
    pub fn is_ready(&self, addr: &Addr) -> bool {
        let link = self.policy.in_force(addr).map(|endpoint| endpoint.ifindex);
        link.is_some_and(|link| self.links.has_programs(link)) && self.due.flows.is_none()
    }

    /// Enters and attaches those of these pod links that are new, and touches nothing else: a pod that has just been
    /// plugged in does not wait until its cluster is compiled. Its link has no entry in `link_policy`, which says that
    /// its pod is not known yet. What fails is tried again by [`Self::apply`].
    pub fn plug(&mut self, links: &BTreeMap<u32, Link>, dataplane: &mut dyn Dataplane) -> Outcome {
        self.links.plug(links, dataplane)
    }

    /// Makes the maps hold this, as far as possible now.
    ///
    /// Without `allow_removals` (the sources have not listed everything) it removes nothing, changes nothing that a former
    /// agent left in force, and leaves policies as they are; links and rejected objects excepted.
    pub fn apply(
        &mut self,
        mut desired: Desired,
        allow_removals: bool,
        dataplane: &mut dyn Dataplane,
    ) -> Outcome {
        self.links.maps.set_desired(&mut desired);
        self.policy.set_desired(&mut desired);
        self.services.maps.set_desired(&mut desired);
        self.report.set_desired(&mut desired);
        self.retry(allow_removals, dataplane)
    }

    /// Tries once more what is pending.
    pub fn retry(&mut self, allow_removals: bool, dataplane: &mut dyn Dataplane) -> Outcome {
        let mut due = self.due.clone();
        let mut pass = Pass { dataplane, allow_removals, due: &mut due, outcome: Outcome::default() };
        order::run(self, &mut pass);
        let outcome = pass.outcome;
        self.due = due;
        Outcome { pending: self.pending(), ..outcome }
    }

    fn pending(&self) -> usize {
        let policy = self.policy.pending();
        let (links, report) = (self.links.maps.pending(0), self.report.pending(0));
        links + policy + self.services.pending() + report + usize::from(!self.due.flows.is_none())
    }
}
