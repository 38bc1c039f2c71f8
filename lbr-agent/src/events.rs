//! Kubernetes Events, as `kubectl describe` shows them at an object and as kube-proxy writes them.
//!
//! The agent never waits for them. It queues events, and one that finds no place is offered again in the next round, if
//! it is still true. A source writes them: without an API server there is no writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::model::{Kind, ObjectName, ObjectRef};

/// How many events wait to be written. In a cluster with errors everywhere the rest waits for its turn.
pub(crate) const QUEUE: usize = 256;

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

    /// Whether nobody writes them.
    pub(crate) fn is_nowhere(&self) -> bool {
        self.0.is_none()
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
