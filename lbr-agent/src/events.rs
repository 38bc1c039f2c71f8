//! What people find on the objects themselves (`kubectl describe`): Events, as kube-proxy writes them.
//!
//! The agent never waits for them. What it has to say goes into a queue, and what finds no place there is offered
//! again in the next round, if it is still so. Who writes them is the source's business: without an API server nobody
//! does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lbr_common::text::RejectedRecord;
use tokio::sync::mpsc;

use crate::model::{Kind, ObjectName, ObjectRef};
use crate::reconcile::Problem;
use crate::store::ClusterState;

/// What waits to be written. A cluster in which everything is wrong fills it; the rest waits for its turn.
const QUEUE: usize = 256;

/// Bytes of a note that the API takes.
const NOTE: usize = 1_024;

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Occurrence {
    /// Whose event it is.
    pub object: ObjectRef,
    /// `Warning`, else `Normal`.
    pub is_warning: bool,
    /// One word, for programs.
    pub reason: &'static str,
    /// What was done, one word.
    pub action: &'static str,
    /// For people; at most 1 KB.
    pub note: String,
}

impl Occurrence {
    /// The agent begins. The name is kube-proxy's, so that whoever looks for it finds it.
    pub fn starting(node: &str) -> Self {
        Self::of_node(node, false, "Starting", String::new())
    }

    /// The server of this flag can not listen. Names and meanings are kube-proxy's.
    pub fn can_not_listen(node: &str, flag: &str, address: std::net::SocketAddr) -> Self {
        let reason = match flag {
            "--metrics-bind-address" => "FailedToStartMetricServer",
            _ => "FailedToStartProxierHealthcheck",
        };
        Self::of_node(node, true, reason, format!("{flag}: can not listen on {address}; it is tried again"))
    }

    /// The health check port of this Service can not be listened on. Names and meanings are kube-proxy's.
    pub fn health_port(node: &str, service: &ObjectName, error: &anyhow::Error) -> Self {
        let mut note = format!("node {node}: {error:#}; it is tried again");
        note.truncate(note.floor_char_boundary(NOTE));
        Self {
            object: ObjectRef { kind: Kind::Service, name: service.clone() },
            is_warning: true,
            reason: "FailedToStartServiceHealthcheck",
            action: "Listen",
            note,
        }
    }

    fn of_node(node: &str, is_warning: bool, reason: &'static str, note: String) -> Self {
        let object = ObjectRef { kind: Kind::Node, name: ObjectName::cluster(node) };
        Self { object, is_warning, reason, action: "StartLbr", note }
    }
}

/// What became of occurrences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that wrote an event, or how often it happened again.
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

/// Where the agent says what happened. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<(mpsc::Sender<Occurrence>, Arc<Counters>)>);

impl Events {
    /// Nobody writes them.
    pub fn nowhere() -> Self {
        Self::default()
    }

    /// For the one who writes them.
    pub(crate) fn queue() -> (Self, mpsc::Receiver<Occurrence>, Arc<Counters>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        (Self(Some((sender, Arc::clone(&counters)))), receiver, counters)
    }

    /// Never waits. False if there is no place in the queue.
    pub fn tell(&self, occurrence: Occurrence) -> bool {
        let Some((sender, counters)) = &self.0 else { return true };
        let is_taken = sender.try_send(occurrence).is_ok();
        counters.dropped.fetch_add(u64::from(!is_taken), Ordering::Relaxed);
        is_taken
    }

    /// What became of them so far.
    pub fn counts(&self) -> Counts {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let counters = self.0.as_ref().map(|(_, counters)| counters);
        counters
            .map_or_else(Counts::default, |c| Counts { written: load(&c.written), dropped: load(&c.dropped) })
    }
}

/// What of Services and NetworkPolicies is not in force: each is told when it begins, not in every round.
#[derive(Debug, Default)]
pub(crate) struct Troubles {
    events: Events,
    told: BTreeSet<Occurrence>,
}

impl Troubles {
    pub(crate) fn new(events: Events) -> Self {
        Self { events, told: BTreeSet::new() }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.events.counts()
    }

    /// What it comes to now.
    pub(crate) fn now(
        &mut self,
        rejected: &BTreeMap<u32, RejectedRecord>,
        problems: &[Problem],
        state: &ClusterState,
    ) {
        if self.events.0.is_none() {
            return;
        }
        let now = all(rejected, problems, state);
        self.told.retain(|told| now.contains(told));
        for occurrence in now {
            if self.told.contains(&occurrence) {
                continue;
            }
            if !self.events.tell(occurrence.clone()) {
                return;
            }
            self.told.insert(occurrence);
        }
    }
}

/// One occurrence for each object and reason, however many of its fields are concerned.
fn all(
    rejected: &BTreeMap<u32, RejectedRecord>,
    problems: &[Problem],
    state: &ClusterState,
) -> BTreeSet<Occurrence> {
    let mut notes: BTreeMap<(ObjectRef, &'static str), Vec<String>> = BTreeMap::new();
    let mut add = |object: ObjectRef, reason, note: String| {
        notes.entry((object, reason)).or_default().push(note);
    };
    for record in rejected.values() {
        if let Some((object, _)) = named(record.object.as_str()) {
            // Those without room are in this list too, for people.
            let is_policy = object.kind == Kind::NetworkPolicy && record.field.as_str().is_empty();
            if is_policy && state.without_room.contains_key(&object.name) {
                continue;
            }
            let (field, reason) = (record.field.as_str(), record.reason.as_str());
            let note = if field.is_empty() { reason.to_owned() } else { format!("{field}: {reason}") };
            add(object, "Rejected", note);
        }
    }
    for problem in problems {
        if let Some((object, part)) = named(&problem.key) {
            let colon = if part.is_empty() { "" } else { ": " };
            add(object, "NotInForce", format!("{part}{colon}{}", problem.error));
        }
    }
    for (name, stand_in) in &state.without_room {
        let object = ObjectRef { kind: Kind::NetworkPolicy, name: name.clone() };
        add(object, "NotInForce", stand_in.reason.clone());
    }
    let occurrence = |((object, reason), notes): ((ObjectRef, &'static str), Vec<String>)| {
        let mut note = notes.join("; ");
        note.truncate(note.floor_char_boundary(NOTE));
        Occurrence { object, is_warning: true, reason, action: "Program", note }
    };
    notes.into_iter().map(occurrence).collect()
}

/// The object that such a text begins with (`Service default/web port http`), and the rest.
fn named(text: &str) -> Option<(ObjectRef, &str)> {
    let (kind, rest) = text.split_once(' ')?;
    let kind = [Kind::Service, Kind::NetworkPolicy].into_iter().find(|known| known.as_str() == kind)?;
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let (namespace, name) = name.split_once('/')?;
    let name = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
    Some((ObjectRef { kind, name }, rest))
}

#[cfg(test)]
mod tests;
