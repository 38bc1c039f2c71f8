//! Watches: each pulls its unsent events from the history, so nothing is queued for slow clients.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::event;
use super::failure::Failure;
use super::fault::End;
use super::history::Change;
use super::object::Object;
use super::reply::{Reply, broken};
use super::request::{Query, Target};
use super::selector::Selector;
use super::shared::{Shared, State, StreamingLists};

/// "Never" for a test.
const FAR: Duration = Duration::from_secs(86_400);

/// The name of the parameters in refusals.
pub(super) const OPTIONS: &str = "ListOptions.meta.k8s.io \"\"";

/// One open watch.
#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    target: Target,
    selector: Selector,
    /// Everything up to this revision was sent, or does not concern this watch.
    sent: u64,
    bookmarks: bool,
    ready: VecDeque<Bytes>,
    changed: watch::Receiver<()>,
    ended: watch::Receiver<(u64, End)>,
    asked_bookmarks: u64,
    deadline: Instant,
    next_bookmark: Instant,
    /// No more events after those that are ready.
    over: bool,
}

/// Opens a watch.
pub(super) fn watch(shared: &Arc<Shared>, target: Target, query: &Query) -> Result<Reply, Failure> {
    let kind = target.kind;
    let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let asked = query.resource_version()?;
    let bookmarks = query.flag("allowWatchBookmarks");
    // Subscribed before the state is read, so that no change is missed.
    let (changed, ended) = (shared.changed.subscribe(), shared.ended.subscribe());
    let state = shared.state();
    let current = state.store.revision();
    let known = state.settings.streaming_lists != StreamingLists::Unknown;
    let initial = match query.has("sendInitialEvents") {
        true if known => Some(initial_events(&state, query, asked, current)?),
        false if known && query.has("resourceVersionMatch") => {
            let why =
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(Failure::invalid(OPTIONS, "resourceVersionMatch", why));
        }
        _ => None,
    };
    let timeout = match query.number("timeoutSeconds")? {
        0 => FAR,
        seconds => Duration::from_secs(seconds),
    };
    let now = Instant::now();
    shared.opened(kind);
    let mut watch = Watch {
        shared: Arc::clone(shared),
        selector,
        sent: current,
        bookmarks,
        ready: VecDeque::new(),
        changed,
        ended,
        asked_bookmarks: state.asked_bookmarks(kind),
        deadline: now + timeout,
        next_bookmark: now + state.settings.bookmarks_every,
        over: false,
        target,
    };
    match (initial, asked.unwrap_or(0)) {
        (Some(true), _) => {
            watch.send_all(&state);
            if bookmarks {
                watch.send_bookmark(current, true);
            }
        }
        (None, 0) => watch.send_all(&state),
        (Some(false), 0) => {}
        (_, from) if from < state.store.history().oldest() => watch.refuse(&state, from)?,
        (_, from) if from > current && state.settings.refuse_future => watch.refuse(&state, from)?,
        (_, from) => watch.sent = from,
    }
    Ok(Reply::watch(watch))
}

/// The rules for `sendInitialEvents`, and its value.
fn initial_events(state: &State, query: &Query, asked: Option<u64>, current: u64) -> Result<bool, Failure> {
    let refused = |field, why| Err(Failure::invalid(OPTIONS, field, why));
    if state.settings.streaming_lists == StreamingLists::Refused {
        let why = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return refused("sendInitialEvents", why);
    }
    if query.text("resourceVersionMatch") != "NotOlderThan" {
        let why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return refused("resourceVersionMatch", why);
    }
    match asked {
        Some(asked) if asked > current => Err(Failure::too_large(asked, current)),
        _ => Ok(query.flag("sendInitialEvents")),
    }
}

impl Watch {
    /// The body of the response.
    pub(super) fn events(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Next::Event(event) => Some((stream::iter([Ok(event)]).left_stream(), Some(watch))),
                Next::Break => Some((broken().right_stream(), None)),
                Next::End => None,
            }
        })
        .flatten()
    }

    async fn next(&mut self) -> Next {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Next::Event(event);
            }
            if self.over {
                return Next::End;
            }
            let delay = self.pull();
            if !self.ready.is_empty() {
                tokio::time::sleep(delay).await;
                continue;
            }
            tokio::select! {
                ended = self.ended.changed() => {
                    let end = self.ended.borrow_and_update().1;
                    match (ended, end) {
                        (Err(_), _) | (_, End::Broken) => return Next::Break,
                        (_, End::Clean) => return Next::End,
                        (_, End::Expired) => self.send_expired("too old resource version: made by the test"),
                    }
                }
                _ = self.changed.changed() => {}
                () = sleep_until(self.next_bookmark) => {
                    let state = self.shared.clone();
                    let state = state.state();
                    self.next_bookmark = Instant::now() + state.settings.bookmarks_every;
                    if self.bookmarks && !state.delivery(self.target.kind).held {
                        self.send_bookmark(self.sent, false);
                    }
                }
                () = sleep_until(self.deadline) => return Next::End,
            }
        }
    }

    /// Makes events of the changes since the last call, and returns their delay.
    fn pull(&mut self) -> Duration {
        let shared = Arc::clone(&self.shared);
        let state = shared.state();
        let (kind, current) = (self.target.kind, state.store.revision());
        let delivery = state.delivery(kind);
        if delivery.held {
            return Duration::ZERO;
        }
        let changes: Vec<&Change> = state.store.history().after(kind, self.sent).collect();
        let reorder = self.sent < delivery.reordered_until;
        for change in if reorder { event::objects_reversed(&changes) } else { changes } {
            if let Some(event) = self.seen(change) {
                self.ready.extend(std::iter::repeat_n(event, if delivery.twice { 2 } else { 1 }));
            }
        }
        // A watch from a future version stays there.
        self.sent = self.sent.max(current);
        let asked = state.asked_bookmarks(kind);
        if asked > self.asked_bookmarks && self.bookmarks {
            self.send_bookmark(self.sent, false);
        }
        self.asked_bookmarks = asked;
        delivery.delay
    }

    /// The event of a change for this watch's selector.
    fn seen(&self, change: &Change) -> Option<Bytes> {
        let passes = |object: &Arc<Object>| self.target.holds(&object.key) && self.selector.matches(object);
        let before = change.before.as_ref().filter(|object| passes(object));
        let after = change.after.as_ref().filter(|object| passes(object));
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(event::of("ADDED", after)),
            (Some(_), Some(after)) => Some(event::of("MODIFIED", after)),
            // The last state that passed, at the version of the change.
            (Some(before), None) => Some(event::of("DELETED", &before.at(change.revision))),
        }
    }

    fn send_all(&mut self, state: &State) {
        let all = state.store.after(self.target.kind, None);
        let all = all.filter(|object| self.target.holds(&object.key) && self.selector.matches(object));
        self.ready.extend(all.map(|object| event::of("ADDED", object)));
    }

    fn send_bookmark(&mut self, revision: u64, end_of_initial: bool) {
        self.ready.push_back(event::bookmark(self.target.kind, revision, end_of_initial));
    }

    fn send_expired(&mut self, message: &str) {
        self.ready.push_back(event::error(&Failure::expired(message)));
        self.over = true;
    }

    /// A version from which no watch can start: normally an event, or else a status.
    fn refuse(&mut self, state: &State, from: u64) -> Result<(), Failure> {
        let message = format!("too old resource version: {from} ({})", state.store.revision());
        if state.settings.expired_by_status {
            return Err(Failure::expired(message));
        }
        self.send_expired(&message);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.closed(self.target.kind);
    }
}

enum Next {
    Event(Bytes),
    Break,
    End,
}
