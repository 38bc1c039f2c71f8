//! Kubernetes Events, as `kubectl describe` shows them at an object and as kube-proxy writes them.
//!
//! The agent never waits for them. It queues events, and one that finds no place is offered again in the next round, if
//! it is still true. A source writes them: without an API server there is no writer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::model::{Extent, Item, Kind, ObjectName, ObjectRef, Rejected};
use crate::policy::stand_in::StandIns;
use crate::service::HEALTH_PORT;
use crate::table::Problem;

/// How many events wait to be written. In a cluster with errors everywhere the rest waits for its turn.
const QUEUE: usize = 256;

/// Size of a note in the API, in bytes.
const NOTE: usize = 1_024;

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    /// The object that the event is about.
    pub object: ObjectRef,
    /// `Warning`, else `Normal`.
    pub is_warning: bool,
    /// One word, for programs.
    pub reason: &'static str,
    /// What lbr was doing, in one word.
    pub action: &'static str,
    /// For people; at most 1 KB.
    pub note: String,
}

impl Occurrence {
    /// The agent starts. The name is kube-proxy's, so that existing searches find it.
    pub fn starting(node: &str) -> Self {
        Self::of_node(node, false, "Starting", String::new())
    }

    /// The server of this flag cannot listen. Names and meanings are kube-proxy's.
    pub fn can_not_listen(node: &str, flag: &str, address: std::net::SocketAddr) -> Self {
        let reason = match flag {
            "--metrics-bind-address" => "FailedToStartMetricServer",
            _ => "FailedToStartProxierHealthcheck",
        };
        Self::of_node(node, true, reason, format!("{flag}: cannot listen on {address}; lbr keeps trying"))
    }

    fn of_node(node: &str, is_warning: bool, reason: &'static str, note: String) -> Self {
        let object = Kind::Node.named(&ObjectName::cluster(node));
        Self { object, is_warning, reason, action: "StartLbr", note }
    }
}

/// How many occurrences were written or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that wrote an event or raised its count.
    pub written: u64,
    /// Given up: the queue was full, or the API server refuses events.
    pub dropped: u64,
}

/// The same as shared numbers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) written: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

/// Takes occurrences from the agent. Clones share one queue.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<(mpsc::Sender<Occurrence>, Arc<Counters>)>);

impl Events {
    /// Drops all occurrences: there is no writer.
    pub fn nowhere() -> Self {
        Self::default()
    }

    /// A queue with its writer's end.
    pub(crate) fn queue() -> (Self, mpsc::Receiver<Occurrence>, Arc<Counters>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        (Self(Some((sender, Arc::clone(&counters)))), receiver, counters)
    }

    /// Queues an occurrence without waiting. False if there is no place in the queue.
    pub fn tell(&self, occurrence: Occurrence) -> bool {
        let Some((sender, counters)) = &self.0 else { return true };
        let is_taken = sender.try_send(occurrence).is_ok();
        counters.dropped.fetch_add(u64::from(!is_taken), Ordering::Relaxed);
        is_taken
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let counters = self.0.as_ref().map(|(_, counters)| counters);
        counters
            .map_or_else(Counts::default, |c| Counts { written: load(&c.written), dropped: load(&c.dropped) })
    }
}

/// Services and NetworkPolicies that are not in force: each trouble is reported when it begins, not in every round.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    events: Events,
    reported: BTreeSet<Occurrence>,
}

impl Troubles {
    pub(crate) fn new(events: Events) -> Self {
        Self { events, reported: BTreeSet::new() }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.events.counts()
    }

    /// Takes the present troubles, and reports the new ones.
    pub(crate) fn now(&mut self, rejected: &[Rejected], problems: &[Problem], without_room: &StandIns) {
        if self.events.0.is_none() {
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
