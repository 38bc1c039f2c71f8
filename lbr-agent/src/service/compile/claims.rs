//! Which Service gets an address and port that several ask for: an index of all claims, kept from one change to the next.

use std::collections::BTreeSet;

use lbr_common::addr::Family;
use lbr_common::service::FrontendKey;

use super::plan::{Plan, Role};
use crate::model::ObjectName;
use crate::table::compact_set;

/// A Service port that asks for a frontend. The first in this order gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    role: Role,
    service: ObjectName,
    /// Place of the port in `spec.ports`.
    index: u32,
    family: Family,
}

/// What a Service asks for: a claim without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ask {
    pub(super) key: FrontendKey,
    pub(super) role: Role,
    /// Place of the port in `spec.ports`.
    pub(super) index: u32,
    pub(super) family: Family,
}

impl Ask {
    fn claim(self, service: &ObjectName) -> (FrontendKey, Claim) {
        let Self { key, role, index, family } = self;
        (key, Claim { role, service: service.clone(), index, family })
    }
}

/// Result of asking for a frontend.
pub(super) enum Settled<'a> {
    /// The plan gets it in this role.
    Won,
    /// It has it in another role.
    HasIt,
    /// It belongs to this Service.
    Lost(&'a ObjectName),
}

/// The claims to every frontend, the winner's first.
#[derive(Debug)]
pub(super) struct Claims {
    all: BTreeSet<(FrontendKey, Claim)>,
    /// Comes before every claim.
    first: Claim,
}

impl Default for Claims {
    fn default() -> Self {
        let [role, ..] = Role::ALL;
        let first = Claim { role, service: ObjectName::default(), index: 0, family: Family::V4 };
        Self { all: BTreeSet::new(), first }
    }
}

impl Claims {
    /// Keeps the same in less memory, after many claims came at once.
    pub(super) fn compact(&mut self) {
        compact_set(&mut self.all);
    }

    /// Takes a claim back. The other Services that ask for the frontend have to look again: added to `others`.
    pub(super) fn withdraw(&mut self, ask: Ask, service: &ObjectName, others: &mut BTreeSet<ObjectName>) {
        self.all.remove(&ask.claim(service));
        self.add_others(&ask.key, service, others);
    }

    /// Enters a claim. The other Services that ask for the frontend have to look again: added to `others`.
    pub(super) fn enter(&mut self, ask: Ask, service: &ObjectName, others: &mut BTreeSet<ObjectName>) {
        self.add_others(&ask.key, service, others);
        self.all.insert(ask.claim(service));
    }

    /// Whether a plan gets a frontend that it asks for in this role.
    pub(super) fn settle(&self, key: &FrontendKey, role: Role, plan: &Plan<'_>) -> Settled<'_> {
        let is_of_plan = |claim: &Claim| {
            (&claim.service, claim.index, claim.family) == (&plan.service.name, plan.index, plan.family)
        };
        match self.of(key).next() {
            Some(first) if !is_of_plan(first) => Settled::Lost(&first.service),
            Some(first) if first.role != role => Settled::HasIt,
            _ => Settled::Won,
        }
    }

    /// The claims to a frontend, the winner's first.
    fn of(&self, key: &FrontendKey) -> impl Iterator<Item = &Claim> {
        let (key, start) = (*key, (*key, self.first.clone()));
        self.all.range(start..).take_while(move |(its, _)| *its == key).map(|(_, claim)| claim)
    }

    fn add_others(&self, key: &FrontendKey, service: &ObjectName, others: &mut BTreeSet<ObjectName>) {
        let of_others = self.of(key).filter(|claim| claim.service != *service);
        others.extend(of_others.map(|claim| claim.service.clone()));
    }
}
