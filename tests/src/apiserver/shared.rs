//! The state that connections and the test share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::fault::{Delivery, End, Faults};
use super::kind::Kind;
use super::request::Verb;
use super::store::Store;

/// The state, and the notifications of watches.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// A lock of its own: watches are dropped while the state is locked.
    open: Mutex<BTreeMap<&'static Kind, usize>>,
    pub(super) changed: watch::Sender<()>,
    /// A counter, and how watches are to end.
    pub(super) ended: watch::Sender<(u64, End)>,
}

/// Everything behind the lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) faults: Faults,
    pub(super) requests: Vec<Request>,
    pub(super) settings: Settings,
    delivery: BTreeMap<&'static Kind, Delivery>,
    bookmarks: BTreeMap<&'static Kind, u64>,
}

/// The server's behaviour; tests change it while it runs.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) streaming_lists: StreamingLists,
    pub(super) expired_by_status: bool,
    pub(super) refuse_future: bool,
    pub(super) bookmarks_every: Duration,
    pub(super) absent: BTreeSet<&'static Kind>,
    pub(super) token: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streaming_lists: StreamingLists::Served,
            expired_by_status: false,
            refuse_future: false,
            bookmarks_every: Duration::from_secs(60),
            absent: BTreeSet::new(),
            token: None,
        }
    }
}

/// The treatment of `sendInitialEvents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamingLists {
    /// It is served.
    Served,
    /// 422, as where the feature is disabled.
    Refused,
    /// It is an unknown parameter, as before Kubernetes 1.27.
    Unknown,
}

/// A request that was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its verb.
    pub verb: Verb,
    /// The kind it is for; none for discovery and the like, and for kinds that are not served.
    pub kind: Option<&'static Kind>,
    /// HTTP method.
    pub method: String,
    /// Path and parameters.
    pub path: String,
    /// Status code of the answer; none while there is no answer.
    pub code: Option<u16>,
}

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            open: Mutex::default(),
            changed: watch::Sender::new(()),
            ended: watch::Sender::new((0, End::Clean)),
        }
    }

    /// The state. A test that panics with the lock does not affect others.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes the watches.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state());
        self.changed.send_replace(());
        changed
    }

    pub(super) fn end_watches(&self, end: End) {
        self.ended.send_modify(|(count, how)| {
            *count += 1;
            *how = end;
        });
    }

    pub(super) fn opened(&self, kind: &'static Kind) {
        *self.open().entry(kind).or_default() += 1;
    }

    pub(super) fn closed(&self, kind: &Kind) {
        if let Some(open) = self.open().get_mut(kind) {
            *open = open.saturating_sub(1);
        }
    }

    pub(super) fn open_watches(&self, kind: &Kind) -> usize {
        self.open().get(kind).copied().unwrap_or(0)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<&'static Kind, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn delivery(&self, kind: &Kind) -> Delivery {
        self.delivery.get(kind).copied().unwrap_or_default()
    }

    pub(super) fn delivery_mut(&mut self, kind: &'static Kind) -> &mut Delivery {
        self.delivery.entry(kind).or_default()
    }

    /// The number of bookmarks that a test requested.
    pub(super) fn asked_bookmarks(&self, kind: &Kind) -> u64 {
        self.bookmarks.get(kind).copied().unwrap_or(0)
    }

    pub(super) fn ask_bookmark(&mut self, kind: &'static Kind) {
        *self.bookmarks.entry(kind).or_default() += 1;
    }
}
