//! The agent's loop: it waits for changes, drives the engine, and reports.

mod memory;
mod report;
mod start;
#[cfg(test)]
mod tests;
mod troubles;

use std::future::Future;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};

pub use self::start::Loading;

use self::report::Reports;
use self::start::{Start, loaded};
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

/// The longest time for which the agent collects further changes before it writes the maps, while one change follows the
/// other: as long as the last round took, so that rounds fill half of the time at most. The first change after a pause is
/// written at once.
const BATCH: Duration = Duration::from_millis(10);

/// How long it collects before every kind has been listed: listing takes seconds in a large cluster, and each round over half a
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
    /// Programs that are not loaded yet; `None`: all are.
    pub loading: Option<Loading>,
    /// When the agent started.
    pub started: Instant,
}

/// The one task that owns the state.
struct Agent<'a> {
    engine: Engine,
    dataplane: &'a mut dyn Dataplane,
    pods: watch::Sender<PodAddresses>,
    waiting: Waiting,
    observer: Observer,
    reports: Reports,
    start: Start,
    /// A kind was listed, and memory was not given back since.
    has_listed: bool,
    retry_after: Duration,
    /// Until then further changes are collected.
    quiet_until: Instant,
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
    let mut loading = inputs.loading;
    let mut agent = Agent {
        engine: Engine::start(node, dataplane)?,
        dataplane,
        pods: inputs.pods,
        waiting: Waiting::default(),
        observer: inputs.observer,
        reports: Reports::new(inputs.events),
        start: Start::new(inputs.started),
        has_listed: false,
        retry_after: RETRY_MIN,
        quiet_until: Instant::now(),
    };
    let mut refused_ports = agent.observer.refused_ports();
    let mut shutdown = pin!(shutdown);
    // When to write the maps; `None`: nothing to do.
    let mut due = Some(Instant::now());
    loop {
        let at = tokio::time::Instant::from_std(due.unwrap_or_else(Instant::now));
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            () = loaded(&mut loading) => {
                agent.attach(loading.take())?;
                due = Some(Instant::now());
            }
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
                let refused = refused_ports.borrow_and_update().clone();
                agent.engine.set_node(|node| node.refused_ports = refused, agent.dataplane);
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
        self.has_listed |= matches!(change, Change::Synced(_));
        let changed = self.engine.take(change);
        if changed {
            self.observer.queued(note, now);
        }
        if self.engine.is_synced() {
            self.observer.synced(now);
            self.start.listed();
        }
        changed
    }

    /// Replaces the programs of a former agent with the loaded ones. From then on links can be attached.
    fn attach(&mut self, loading: Option<Loading>) -> anyhow::Result<()> {
        let programs = self.dataplane.attach_programs()?;
        self.start.loaded();
        loading.map_or(Ok(()), |loading| (loading.then)(programs))
    }

    /// When to write the maps after a change.
    fn soonest(&self, due: Option<Instant>) -> Instant {
        let now = Instant::now();
        let then = if self.engine.is_synced() { self.quiet_until.max(now) } else { now + LISTING };
        due.map_or(then, |due| due.min(then))
    }

    /// Takes the newest picture of the links.
    fn plug(&mut self, links: &mut watch::Receiver<LocalLinks>) {
        self.observer.queued(Note::default(), Moment::now());
        let links = links.borrow_and_update().clone();
        let outcome = self.engine.set_node(|node| node.links = links, self.dataplane);
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
        let did = self.engine.compile(self.dataplane);
        let took = began.elapsed();
        let is_old = self.plug_if_new(links);
        self.publish();
        if self.engine.is_synced() && !self.reports.is_ready() {
            self.reports.warn_of_ephemeral_ports(&self.engine);
        }
        let written = Instant::now();
        let outcome = self.engine.write(self.dataplane);
        if !self.reports.is_ready() {
            self.start.round(took, written.elapsed(), self.engine.is_synced() && !outcome.waits_for_programs);
        }
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
            did,
            is_synced: self.engine.is_synced(),
            outcome: &outcome,
            without_room: self.engine.without_room().len(),
            state: self.engine.state(),
            node: &self.engine.node().name,
            entries: self.engine.entries(),
            health_ports: self.engine.health_ports().clone(),
            rejected: self.engine.rejected(),
        };
        self.observer.wrote(round, Moment::now());
        self.quiet_until = Instant::now() + began.elapsed().min(BATCH);
        self.reports.wrote(&outcome, &self.engine);
        self.observer.set_events(self.reports.event_counts());
        if self.engine.is_synced() && self.dataplane.can_attach() {
            self.reports.ready(&self.engine, &self.start);
        }
        if self.has_listed && self.engine.is_synced() && !outcome.waits_for_programs {
            memory::give_back();
            self.has_listed = false;
        }
        let next = self.next_try(&outcome);
        if is_old { Some(Instant::now()) } else { next }
    }

    /// Passes the addresses of this node's pods on, if they are others.
    fn publish(&self) {
        let pods = self.engine.pods();
        self.pods.send_if_modified(|known| {
            let changed = match self.engine.is_synced() {
                true => *known != *pods,
                // The source may still list the pods of the former agent.
                false => pods.iter().any(|(addr, pod)| known.get(addr) != Some(pod)),
            };
            if changed && self.engine.is_synced() {
                known.clone_from(pods);
            } else if changed {
                known.extend(pods.iter().map(|(addr, pod)| (*addr, pod.clone())));
            }
            changed
        });
    }

    fn next_try(&mut self, outcome: &Outcome) -> Option<Instant> {
        // Until every kind is listed and the programs are loaded, some entries wait on purpose.
        let is_done = outcome.pending == 0 && self.engine.without_room().is_empty();
        if is_done || !self.engine.is_synced() || !self.dataplane.can_attach() {
            self.retry_after = RETRY_MIN;
            return None;
        }
        let then = Instant::now() + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
        Some(then)
    }
}
