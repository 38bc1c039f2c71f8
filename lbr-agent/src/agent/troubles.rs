//! Events about Services and NetworkPolicies that are not in force.

use std::collections::{BTreeMap, BTreeSet};

use crate::events::{Counts, Events, Occurrence};
use crate::model::{Extent, Item, Kind, ObjectRef, Rejected};
use crate::policy::stand_in::StandIns;
use crate::service::HEALTH_PORT;
use crate::table::Problem;

/// Size of a note in the API, in bytes.
const NOTE: usize = 1_024;

/// Services and NetworkPolicies that are not in force: each trouble is reported when it begins, not in every round.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    events: Events,
    reported: BTreeSet<Occurrence>,
}

impl Troubles {
    pub(super) fn new(events: Events) -> Self {
        Self { events, reported: BTreeSet::new() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.events.counts()
    }

    /// Takes the present troubles, and reports the new ones.
    pub(super) fn now(&mut self, rejected: &[Rejected], problems: &[Problem], without_room: &StandIns) {
        if self.events.is_nowhere() {
            return;
        }
        let now = all(rejected, problems, without_room);
        self.reported.retain(|old| now.contains(old));
        for occurrence in now {
            if self.reported.contains(&occurrence) {
                continue;
            }
            if !self.events.tell(occurrence.clone()) {
                return;
            }
            self.reported.insert(occurrence);
        }
    }
}

/// One occurrence for each object and reason, for all of its fields together.
fn all(rejected: &[Rejected], problems: &[Problem], without_room: &StandIns) -> BTreeSet<Occurrence> {
    let mut notes: BTreeMap<(ObjectRef, &'static str), Vec<String>> = BTreeMap::new();
    let mut add = |object: &ObjectRef, reason, note: String| {
        // People look for Events at these two kinds.
        if matches!(object.kind, Kind::Service | Kind::NetworkPolicy) {
            notes.entry((object.clone(), reason)).or_default().push(note);
        }
    };
    for one in rejected {
        let Item::Object(object) = &one.object else { continue };
        // The list contains policies without room, too.
        let is_policy = object.kind == Kind::NetworkPolicy && one.field.is_empty();
        if !(is_policy && without_room.contains_key(&object.name)) {
            add(object, reason(one), note(&one.field, &one.reason));
        }
    }
    for problem in problems {
        if let Some(object) = &problem.object {
            add(object, "NotInForce", note(&problem.key, &problem.error.to_string()));
        }
    }
    for (name, stand_in) in without_room {
        add(&Kind::NetworkPolicy.named(name), "NotInForce", stand_in.reason.clone());
    }
    let occurrence = |((object, reason), notes): ((ObjectRef, &'static str), Vec<String>)| {
        let mut note = notes.join("; ");
        note.truncate(note.floor_char_boundary(NOTE));
        Occurrence { object, is_warning: true, reason, action: "Program", note }
    };
    notes.into_iter().map(occurrence).collect()
}

fn reason(one: &Rejected) -> &'static str {
    match (one.extent, one.field.as_str()) {
        // kube-proxy's, so that existing searches find it.
        (Extent::Limited, HEALTH_PORT) => "FailedToStartServiceHealthcheck",
        (Extent::Limited, _) => "Limited",
        (Extent::Rejected, _) => "Rejected",
    }
}

/// Why, with the part of the object that it is about.
fn note(part: &str, why: &str) -> String {
    if part.is_empty() { why.to_owned() } else { format!("{part}: {why}") }
}

#[cfg(test)]
mod tests;
