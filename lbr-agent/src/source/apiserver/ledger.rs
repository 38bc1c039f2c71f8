//! Turns the API server's events into changes of the store. Pure: it asks the server nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::Change;
use crate::model::convert::Converted;
use crate::model::{Extent, Kind, Object, ObjectName, ObjectRef, Rejected};

/// Origin of all these objects, for people.
pub(super) const ORIGIN: &str = "API server";

/// One observation of a watch.
#[derive(Debug)]
pub(super) enum Seen {
    /// A list of all objects of a kind begins.
    Listing(Kind),
    /// An object, in a list or by itself.
    Item(ObjectRef, Box<Converted<Object>>),
    /// The list is complete: objects that it did not name are gone.
    Listed(Kind),
    /// The object is gone.
    Gone(ObjectRef),
}

/// The version of an object that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InForce {
    Accepted,
    /// What can be read of a rejected object.
    Fallback,
    /// None: the object is rejected, without a former version, and nothing of it counts.
    Nothing,
}

/// The objects that were seen, without their content, which the store has.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    known: BTreeMap<ObjectRef, InForce>,
    rejected: BTreeMap<ObjectRef, Vec<Rejected>>,
    rejected_changed: bool,
    /// New rejections. An object that is listed again with the same problems is not new.
    new: Vec<Rejected>,
    /// Names in a list that is not complete yet.
    listing: BTreeMap<Kind, BTreeSet<ObjectName>>,
}

impl Ledger {
    /// The changes that follow from one event.
    pub(super) fn apply(&mut self, seen: Seen) -> Vec<Change> {
        match seen {
            // A list that was cut off counts for nothing.
            Seen::Listing(kind) => {
                self.listing.insert(kind, BTreeSet::new());
                Vec::new()
            }
            Seen::Item(reference, converted) => self.item(reference, *converted).into_iter().collect(),
            Seen::Gone(reference) => self.gone(&reference).into_iter().collect(),
            Seen::Listed(kind) => {
                let named = self.listing.remove(&kind).unwrap_or_default();
                let of_kind = self.known.keys().filter(|reference| reference.kind == kind);
                let gone: Vec<_> =
                    of_kind.filter(|reference| !named.contains(&reference.name)).cloned().collect();
                let mut changes: Vec<_> = gone.iter().filter_map(|reference| self.gone(reference)).collect();
                changes.push(Change::Synced(kind));
                changes
            }
        }
    }

    /// All rejections, if they changed since the last call.
    pub(super) fn rejected(&mut self) -> Option<Change> {
        let changed = std::mem::take(&mut self.rejected_changed);
        changed.then(|| Change::Rejected(self.rejected.values().flatten().cloned().collect()))
    }

    /// The new rejections since the last call, for the log.
    pub(super) fn take_new(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.new)
    }

    fn item(&mut self, reference: ObjectRef, converted: Converted<Object>) -> Option<Change> {
        if let Some(named) = self.listing.get_mut(&reference.kind) {
            named.insert(reference.name.clone());
        }
        let before = self.known.get(&reference).copied();
        let extent = if converted.object.is_some() { Extent::Limited } else { Extent::Rejected };
        let was_accepted = before == Some(InForce::Accepted);
        let mut consequence = None;
        let (change, in_force) = match (converted.object, converted.partial) {
            (Some(object), _) => (Some(Change::Apply(object)), InForce::Accepted),
            (None, Some(partial)) => {
                consequence = partial.consequence(was_accepted);
                match (was_accepted, consequence) {
                    (true, _) => (Some(Change::Restrict(partial)), InForce::Accepted),
                    (false, Some(_)) => (Some(Change::Restrict(partial)), InForce::Fallback),
                    (false, None) => (None, InForce::Nothing),
                }
            }
            (None, None) => (None, before.unwrap_or(InForce::Nothing)),
        };
        let mut reasons: Vec<(String, String)> =
            converted.problems.into_iter().map(|problem| (problem.field, problem.reason)).collect();
        reasons.extend(consequence.map(|text| (String::new(), text.to_owned())));
        let rejected = reasons.into_iter().map(|(field, reason)| Rejected {
            extent,
            object: reference.clone().into(),
            origin: ORIGIN.to_owned(),
            field,
            reason,
        });
        self.set_rejected(&reference, rejected.collect());
        self.known.insert(reference, in_force);
        change
    }

    fn gone(&mut self, reference: &ObjectRef) -> Option<Change> {
        self.set_rejected(reference, Vec::new());
        if let Some(named) = self.listing.get_mut(&reference.kind) {
            named.remove(&reference.name);
        }
        let in_force = self.known.remove(reference)?;
        (in_force != InForce::Nothing).then(|| Change::Delete(reference.clone()))
    }

    fn set_rejected(&mut self, reference: &ObjectRef, rejected: Vec<Rejected>) {
        let before = self.rejected.get(reference).map_or(&[][..], Vec::as_slice);
        if before == rejected {
            return;
        }
        self.rejected_changed = true;
        self.new.extend(rejected.iter().filter(|one| !before.contains(one)).cloned());
        if rejected.is_empty() {
            self.rejected.remove(reference);
        } else {
            self.rejected.insert(reference.clone(), rejected);
        }
    }
}

#[cfg(test)]
mod tests;
