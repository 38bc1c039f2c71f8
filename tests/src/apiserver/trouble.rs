//! Faults on request of a test.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::fault::{End, Fault, Order, When};
use super::kind::Kind;
use super::objects::put;
use super::server::Server;
use super::shared::StreamingLists;
use super::store::Store;

impl Server {
    /// Injects a fault into so many matching requests. Faults are used in the order of injection.
    pub fn fault(&self, times: usize, when: When, fault: Fault) {
        self.shared.state().faults.add(times, when, fault);
    }

    /// The number of injected faults that have not happened.
    pub fn faults_left(&self) -> usize {
        self.shared.state().faults.left()
    }

    /// Removes all pending faults. Hanging requests still hang.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// Ends all open watches.
    pub fn end_watches(&self, how: End) {
        self.shared.end_watches(how);
    }

    /// Makes all versions before `revision` too old: a watch or list from one of them gets 410. Open watches go on.
    pub fn compact(&self, revision: u64) {
        self.shared.change(|state| state.store.compact(revision));
    }

    /// [`Self::compact`] up to the current version, which is raised first, so that no version known to a client is
    /// left.
    pub fn compact_all(&self) {
        self.shared.change(|state| {
            let revision = state.store.advance(1);
            state.store.compact(revision);
        });
    }

    /// Replaces all objects, with resource versions that begin again at `revision`, as after a restored backup. All
    /// watches break. [`Self::refuse_future`] decides whether a watch from a future version is refused; a real server
    /// accepts it, and sends nothing until then.
    pub fn other_history(&self, revision: u64, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let replaced = self.shared.change(|state| {
            state.store = Store::from(revision);
            objects.into_iter().try_for_each(|object| put(state, object))
        });
        self.end_watches(End::Broken);
        replaced
    }

    /// Raises the revision without a visible change, then sends a bookmark to the watches of a kind.
    pub fn bookmark(&self, kind: &'static Kind) -> u64 {
        self.shared.change(|state| {
            state.ask_bookmark(kind);
            state.store.advance(1)
        })
    }

    /// Holds back the events of a kind.
    pub fn hold(&self, kind: &'static Kind) {
        self.shared.change(|state| state.delivery_mut(kind).held = true);
    }

    /// Sends the held events. A client that reconnects within another order may miss events; a real server keeps the
    /// order within one kind.
    pub fn release(&self, kind: &'static Kind, order: Order) {
        self.shared.change(|state| {
            let revision = state.store.revision();
            let delivery = state.delivery_mut(kind);
            delivery.held = false;
            if order == Order::ObjectsReversed {
                delivery.reordered_until = revision;
            }
        });
    }

    /// Whether each event of a kind is sent twice.
    pub fn send_twice(&self, kind: &'static Kind, twice: bool) {
        self.shared.change(|state| state.delivery_mut(kind).twice = twice);
    }

    /// Sets the delay of a kind's events.
    pub fn delay_events(&self, kind: &'static Kind, delay: Duration) {
        self.shared.change(|state| state.delivery_mut(kind).delay = delay);
    }

    /// Whether a kind is served. One that is not gets 404, and is absent from discovery. Its open watches go on.
    pub fn serve(&self, kind: &'static Kind, served: bool) {
        self.shared.change(|state| match served {
            true => state.settings.absent.remove(kind),
            false => state.settings.absent.insert(kind),
        });
    }

    /// Sets the treatment of `sendInitialEvents`.
    pub fn streaming_lists(&self, how: StreamingLists) {
        self.shared.state().settings.streaming_lists = how;
    }

    /// Whether a watch from a version that is gone gets 410 as its status, instead of its first event.
    pub fn expired_by_status(&self, by_status: bool) {
        self.shared.state().settings.expired_by_status = by_status;
    }

    /// Whether a watch from a future version gets 410.
    pub fn refuse_future(&self, refuse: bool) {
        self.shared.state().settings.refuse_future = refuse;
    }

    /// Sets how often watches opened from now on get bookmarks: every minute by default.
    pub fn bookmarks_every(&self, time: Duration) {
        self.shared.state().settings.bookmarks_every = time;
    }
}
