//! Which Service gets an address and port that several ask for: an index of all claims, kept from one change to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lbr_common::addr::Family;
use lbr_common::service::FrontendKey;

use super::plan::{Plan, Role};
use crate::model::ObjectName;

/// A Service port that asks for a frontend. The first in this order gets it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) role: Role,
    pub(super) service: Arc<ObjectName>,
    /// Place of the port in `spec.ports`.
    pub(super) index: usize,
    pub(super) family: Family,
}

impl Claim {
    /// Whether this plan makes it, in whatever role.
    fn is_of(&self, plan: &Plan<'_>) -> bool {
        (&*self.service, self.index, self.family) == (&plan.service.name, plan.index, plan.family)
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
#[derive(Debug, Default)]
pub(super) struct Claims(BTreeMap<FrontendKey, Vec<Claim>>);

impl Claims {
    /// Takes a claim back. The other Services that ask for the frontend have to look again: added to `others`.
    pub(super) fn withdraw(&mut self, key: FrontendKey, claim: &Claim, others: &mut BTreeSet<ObjectName>) {
        let Some(claims) = self.0.get_mut(&key) else { return };
        if let Ok(place) = claims.binary_search(claim) {
            claims.remove(place);
        }
        add_others(claims, claim, others);
        if claims.is_empty() {
            self.0.remove(&key);
        }
    }

    /// Enters a claim. The other Services that ask for the frontend have to look again: added to `others`.
    pub(super) fn enter(&mut self, key: FrontendKey, claim: Claim, others: &mut BTreeSet<ObjectName>) {
        let claims = self.0.entry(key).or_default();
        add_others(claims, &claim, others);
        if let Err(place) = claims.binary_search(&claim) {
            claims.insert(place, claim);
        }
    }

    /// Whether a plan gets a frontend that it asks for in this role.
    pub(super) fn settle(&self, key: &FrontendKey, role: Role, plan: &Plan<'_>) -> Settled<'_> {
        match self.0.get(key).and_then(|claims| claims.first()) {
            Some(first) if !first.is_of(plan) => Settled::Lost(&first.service),
            Some(first) if first.role != role => Settled::HasIt,
            _ => Settled::Won,
        }
    }
}

fn add_others(claims: &[Claim], claim: &Claim, others: &mut BTreeSet<ObjectName>) {
    let others_of = claims.iter().filter(|other| other.service != claim.service);
    others.extend(others_of.map(|other| ObjectName::clone(&other.service)));
}
