//! The agent's loop: it waits for changes, drives the engine, and reports.

mod report;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

use self::report::Reports;
use crate::cluster::Change;
use crate::dataplane::Dataplane;
use crate::engine::Engine;
use crate::events::Events;
use crate::gate::{self, Waiting};
use crate::node::links::{LocalLinks, PodAddresses};
use crate::node::{NodeView, Settings};
use crate::serve::health::Moment;
use crate::serve::{Note, Observer, Round};
use crate::table::Outcome;

/// How long the agent collects further changes before it writes the maps. Short against the second that a saved file
/// may take to be in force, long against the time in which the events of one object arrive.
const BATCH: Duration = Duration::from_millis(10);

/// The same before every kind has been listed: listing takes seconds in a large cluster, and each round over half a
/// state delays the next one.
const LISTING: Duration = Duration::from_millis(500);

/// Delay before a failed write is retried; doubles up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What the agent reads, and where it reports.
#[derive(Debug)]
pub struct Inputs {
    /// Objects.
    pub changes: mpsc::Receiver<Change>,
    /// Pod links and routes.
    pub links: watch::Receiver<LocalLinks>,
    /// Output: addresses of this node's pods, which [`crate::source::links::watch_links`] looks for.
    pub pods: watch::Sender<PodAddresses>,
    /// Requests to wait for a pod's policies.
    pub gate: mpsc::Receiver<gate::Request>,
    /// Gets what happened, for health and metrics.
    pub observer: Observer,
    /// Gets the problems of objects, for Kubernetes Events.
    pub events: Events,
}

/// The one task that owns the state.
struct Agent<'a> {
    engine: Engine,
    dataplane: &'a mut dyn Dataplane,
    pods: watch::Sender<PodAddresses>,
    waiting: Waiting,
    observer: Observer,
    reports: Reports,
    retry_after: Duration,
}

/// Runs until `shutdown` is done. The maps and programs stay as they are then.
pub async fn run(
    node_name: String,
    settings: Settings,
    mut inputs: Inputs,
    dataplane: &mut dyn Dataplane,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let links = inputs.links.borrow_and_update().clone();
    let node = NodeView { name: node_name, settings, links, ..NodeView::default() };
    let mut agent = Agent {
        engine: Engine::start(node, dataplane)?,
        dataplane,
        pods: inputs.pods,
        waiting: Waiting::default(),
        observer: inputs.observer,
        reports: Reports::new(inputs.events),
        retry_after: RETRY_MIN,
    };
    let mut refused_ports = agent.observer.refused_ports();
    let mut shutdown = pin!(shutdown);
    // When to write the maps; `None`: nothing to do.
    let mut due = Some(Instant::now());
    loop {
        let at = tokio::time::Instant::from_std(due.unwrap_or_else(Instant::now));
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            change = inputs.changes.recv() => {
                let change = change.context("the source of objects has ended")?;
                let mut changed = agent.take(change);
                while let Ok(change) = inputs.changes.try_recv() {
                    changed |= agent.take(change);
                }
                if changed {
                    due = Some(agent.soonest(due));
                }
            }
            changed = inputs.links.changed() => {
                changed.context("the watch of the node's links has ended")?;
                agent.plug(&mut inputs.links);
                due = Some(agent.soonest(due));
            }
            Ok(()) = refused_ports.changed() => {
                agent.engine.set_refused_ports(refused_ports.borrow_and_update().clone());
                due = Some(agent.soonest(due));
            }
            Some(request) = inputs.gate.recv() => {
                agent.waiting.add(request, &mut agent.engine);
                due = Some(Instant::now());
            }
            () = tokio::time::sleep_until(at), if due.is_some() => due = agent.write(&mut inputs.links),
        }
    }
}

impl Agent<'_> {
    /// Applies a change. Returns whether anything is different.
    fn take(&mut self, change: Change) -> bool {
        let (note, now) = (Note::of(&change), Moment::now());
        let changed = self.engine.take(change);
        if changed {
            self.observer.queued(note, now);
        }
        if self.engine.is_synced() {
            self.observer.synced(now);
        }
        changed
    }

    /// When to write the maps after a change.
    fn soonest(&self, due: Option<Instant>) -> Instant {
        let then = Instant::now() + if self.engine.is_synced() { BATCH } else { LISTING };
        due.map_or(then, |due| due.min(then))
    }

    /// Takes the newest picture of the links.
    fn plug(&mut self, links: &mut watch::Receiver<LocalLinks>) {
        self.observer.queued(Note::default(), Moment::now());
        let outcome = self.engine.set_links(links.borrow_and_update().clone(), self.dataplane);
        if outcome.writes > 0 {
            tracing::debug!(links = outcome.writes, "new pod links have their programs");
        }
    }

    /// Calls [`Self::plug`] if there is a newer picture.
    fn plug_if_new(&mut self, links: &mut watch::Receiver<LocalLinks>) -> bool {
        // The loop reports it when the sender is gone.
        let is_new = links.has_changed().unwrap_or(false);
        if is_new {
            self.plug(links);
        }
        is_new
    }

    /// Brings the maps up to date. Returns when to try again, if something is left.
    fn write(&mut self, links: &mut watch::Receiver<LocalLinks>) -> Option<Instant> {
        self.plug_if_new(links);
        let began = Instant::now();
        let mut compiled = self.engine.compile(self.dataplane);
        let took = began.elapsed();
        let is_old = self.plug_if_new(links);
        self.publish(std::mem::take(&mut compiled.pods));
        let (counts, health_ports) = (compiled.counts, compiled.health_ports.clone());
        if self.engine.is_synced() && !self.reports.is_ready() {
            self.reports.warn_of_ephemeral_ports(&compiled, self.engine.node());
        }
        let outcome = self.engine.write(compiled, self.dataplane);
        if outcome.writes + outcome.removals > 0 {
            tracing::debug!(
                writes = outcome.writes,
                removals = outcome.removals,
                "compiled in {took:?}, in force after {:?}",
                began.elapsed()
            );
        }
        self.waiting.answer(&self.engine);
        let round = Round {
            began,
            compiled: took,
            is_synced: self.engine.is_synced(),
            outcome: &outcome,
            state: self.engine.state(),
            node: &self.engine.node().name,
            entries: self.engine.entries(),
            health_ports,
            rejected: self.engine.rejected(),
        };
        self.observer.wrote(round, Moment::now());
        self.reports.wrote(&outcome, &self.engine);
        self.observer.set_events(self.reports.event_counts());
        if self.engine.is_synced() {
            self.reports.ready(counts, began);
        }
        let next = self.next_try(&outcome);
        if is_old { Some(Instant::now()) } else { next }
    }

    /// Passes the addresses of this node's pods on, if they are others.
    fn publish(&self, mut pods: PodAddresses) {
        let is_synced = self.engine.is_synced();
        self.pods.send_if_modified(|known| {
            if !is_synced {
                // The source may still list the pods of the former agent.
                for (addr, pod) in &*known {
                    pods.entry(*addr).or_insert_with(|| pod.clone());
                }
            }
            let changed = *known != pods;
            *known = pods;
            changed
        });
    }

    fn next_try(&mut self, outcome: &Outcome) -> Option<Instant> {
        // Until every kind is listed, some entries wait on purpose.
        let is_done = outcome.pending == 0 && self.engine.state().without_room.is_empty();
        if is_done || !self.engine.is_synced() {
            self.retry_after = RETRY_MIN;
            return None;
        }
        let then = Instant::now() + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
        Some(then)
    }
}
