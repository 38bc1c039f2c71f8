//! The agent's loop: it applies changes and brings the maps up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lbr_common::maglev;
use lbr_common::policy::{Endpoint, policy_flags};
use lbr_common::text::PodName;
use tokio::sync::{mpsc, watch};

use crate::compile::{self, Ids, NodeView, Settings};
use crate::dataplane::{Dataplane, WriteError};
use crate::desired::Desired;
use crate::events::{Events, Troubles};
use crate::fit::Fit;
use crate::gate::{self, Waiting};
use crate::reconcile::{Outcome, Problem, Reconciler};
use crate::serve::health::Moment;
use crate::serve::{Note, Observer, Round};
use crate::source::Change;
use crate::source::links::{LocalLinks, PodAddresses};
use crate::store::Store;

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
    store: Store,
    ids: Ids,
    fit: Fit,
    node: NodeView,
    reconciler: Reconciler,
    dataplane: &'a mut dyn Dataplane,
    pods: watch::Sender<PodAddresses>,
    waiting: Waiting,
    observer: Observer,
    troubles: Troubles,
    ready: bool,
    retry_after: Duration,
    reported: Vec<String>,
    /// What was reported last of sockets that could not be aborted.
    abort_failed: Option<String>,
    /// What was found while compiling.
    found: BTreeSet<String>,
}

/// Runs until `shutdown` is done. The maps and programs stay as they are then.
pub async fn run(
    node_name: String,
    settings: Settings,
    mut inputs: Inputs,
    dataplane: &mut dyn Dataplane,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let reconciler = Reconciler::load(dataplane).context("read the maps of the last run")?;
    // The size of the existing map counts: a former agent may have made it.
    let maglev_tables = Some(maglev::table_count(dataplane.tables().maglev.max_entries() as usize));
    let settings = Settings { maglev_tables, ..settings };
    let ids = Ids::restore(&reconciler.actual());
    let links = inputs.links.borrow_and_update().clone();
    let mut agent = Agent {
        store: Store::new(),
        ids,
        fit: Fit::default(),
        node: NodeView { name: node_name, settings, links, ..NodeView::default() },
        reconciler,
        dataplane,
        pods: inputs.pods,
        waiting: Waiting::default(),
        observer: inputs.observer,
        troubles: Troubles::new(inputs.events),
        ready: false,
        retry_after: RETRY_MIN,
        reported: Vec::new(),
        abort_failed: None,
        found: BTreeSet::new(),
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
                agent.node.refused_ports = refused_ports.borrow_and_update().clone();
                due = Some(agent.soonest(due));
            }
            Some(request) = inputs.gate.recv() => {
                agent.waiting.add(request, &mut agent.store);
                due = Some(Instant::now());
            }
            () = tokio::time::sleep_until(at), if due.is_some() => due = agent.write(&mut inputs.links),
        }
    }
}

/// Addresses of this node's pods.
fn pods(desired: &Desired) -> PodAddresses {
    let pods = desired.endpoints.iter().filter(|(_, e)| e.policy.flags & policy_flags::POD != 0);
    pods.map(|(addr, _)| (IpAddr::from(*addr), pod_name(desired.pod_names.get(addr)))).collect()
}

/// The pods that a former agent left in the maps. They count as this node's until the source has listed its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// Their addresses.
    pub pods: PodAddresses,
    /// The links of these pods, where known.
    pub links: BTreeMap<IpAddr, u32>,
}

impl Former {
    /// Reads the maps.
    pub fn read(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
        let generation = dataplane.generation()?;
        let tables = dataplane.tables();
        let names: BTreeMap<_, _> = tables.pod_names.entries()?.into_iter().collect();
        let is_pod = |endpoint: &Endpoint| endpoint.policy.at(generation).flags & policy_flags::POD != 0;
        let mut former = Self::default();
        for (addr, endpoint) in tables.endpoints.entries()?.into_iter().filter(|(_, e)| is_pod(e)) {
            former.pods.insert(addr.into(), pod_name(names.get(&addr)));
            if endpoint.ifindex != 0 {
                former.links.insert(addr.into(), endpoint.ifindex);
            }
        }
        Ok(former)
    }
}

fn pod_name(name: Option<&PodName>) -> String {
    name.map(|name| format!("{}/{}", name.namespace.as_str(), name.name.as_str())).unwrap_or_default()
}

impl Agent<'_> {
    /// Applies a change. Returns whether anything is different.
    fn take(&mut self, change: Change) -> bool {
        let (note, now) = (Note::of(&change), Moment::now());
        let changed = self.store.apply(change);
        if changed {
            self.observer.queued(note, now);
        }
        if self.store.is_synced() {
            self.observer.synced(now);
        }
        changed
    }

    /// When to write the maps after a change.
    fn soonest(&self, due: Option<Instant>) -> Instant {
        let then = Instant::now() + if self.store.is_synced() { BATCH } else { LISTING };
        due.map_or(then, |due| due.min(then))
    }

    /// Takes the newest picture of the links. New pods' links get their programs at once; all else comes with the next
    /// round.
    fn plug(&mut self, links: &mut watch::Receiver<LocalLinks>) {
        self.node.links = links.borrow_and_update().clone();
        self.observer.queued(Note::default(), Moment::now());
        let outcome = self.reconciler.plug(&compile::links(&self.node.links), self.dataplane);
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
        let begin = Instant::now();
        let Self { fit, store, node, ids, reconciler, dataplane, .. } = self;
        let mut desired = fit.compile(store, node, ids, |draft| reconciler.shortage(draft, &mut **dataplane));
        let compiled = begin.elapsed();
        let is_old = self.plug_if_new(links);
        if is_old {
            // Keep the links that got their programs meanwhile.
            let links = compile::links(&self.node.links).into_iter();
            for (index, link) in links.filter(|(index, _)| !desired.uplinks.contains_key(index)) {
                desired.links.entry(index).or_insert(link);
            }
        }
        let synced = self.store.is_synced();
        self.pods.send_if_modified(|known| {
            let mut pods = pods(&desired);
            if !synced {
                // The source may still list the pods of the former agent.
                for (addr, pod) in &*known {
                    pods.entry(*addr).or_insert_with(|| pod.clone());
                }
            }
            let changed = *known != pods;
            *known = pods;
            changed
        });
        let (services, backends, links) =
            (desired.services.len(), desired.backends.len(), desired.links.len());
        let health_ports = desired.health_ports.clone();
        if synced
            && !self.ready
            && let Some(ephemeral) = &self.node.settings.ephemeral_ports
            && let Some(warning) = compile::ephemeral::warning(&desired, ephemeral)
        {
            tracing::warn!("{warning}");
        }
        let outcome = self.reconciler.apply(desired, synced, self.dataplane);
        if outcome.writes + outcome.removals > 0 {
            tracing::debug!(
                writes = outcome.writes,
                removals = outcome.removals,
                "compiled in {compiled:?}, in force after {:?}",
                begin.elapsed()
            );
        }
        self.waiting.answer(&self.reconciler);
        let round = Round {
            began: begin,
            compiled,
            is_synced: synced,
            outcome: &outcome,
            state: self.store.state(),
            node: &self.node.name,
            entries: self.reconciler.entries(),
            health_ports,
            rejected: self.reconciler.rejected(),
        };
        self.observer.wrote(round, Moment::now());
        self.report(&outcome.problems);
        self.report_sockets(&outcome);
        if synced {
            self.report_compiled();
            self.troubles.now(self.reconciler.rejected(), &outcome.problems, self.store.state());
        }
        self.observer.set_events(self.troubles.counts());
        if synced && !self.ready {
            self.ready = true;
            tracing::info!(
                "ready: {services} Service ports, {backends} endpoints, {links} pod links, in {:?}",
                begin.elapsed()
            );
        }
        let next = self.next_try(&outcome);
        if is_old { Some(Instant::now()) } else { next }
    }

    fn next_try(&mut self, outcome: &Outcome) -> Option<Instant> {
        // Until every kind is listed, some entries wait on purpose.
        let is_done = outcome.pending == 0 && self.store.state().without_room.is_empty();
        if is_done || !self.store.is_synced() {
            self.retry_after = RETRY_MIN;
            return None;
        }
        let then = Instant::now() + self.retry_after;
        self.retry_after = (self.retry_after * 2).min(RETRY_MAX);
        Some(then)
    }

    /// Logs a failure once, until it is another one.
    fn report_sockets(&mut self, outcome: &Outcome) {
        if outcome.aborted_sockets > 0 {
            tracing::info!(
                "{} connected UDP sockets of this node's processes lost their endpoint and were aborted",
                outcome.aborted_sockets
            );
        }
        let failed = outcome.abort_failed.as_ref().map(ToString::to_string);
        if failed != self.abort_failed
            && let Some(error) = &failed
        {
            tracing::warn!(
                "connected UDP sockets of this node's processes may keep removed endpoints until they connect again: \
                 {error}; the next change of endpoints tries once more"
            );
        }
        self.abort_failed = failed;
    }

    /// Logs once what was found while compiling. The sources log what they found.
    fn report_compiled(&mut self) {
        let of_source: BTreeSet<_> = self.store.state().rejected.iter().map(compile::record).collect();
        let found = self.reconciler.rejected().values().filter(|record| !of_source.contains(record));
        let found: BTreeSet<String> = found.map(|record| compile::rejected(record).to_string()).collect();
        for text in found.difference(&self.found) {
            tracing::warn!("{text}");
        }
        self.found = found;
    }

    /// Logs each problem once, and once more when it is over.
    fn report(&mut self, problems: &[Problem]) {
        let now: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.key, p.error)).collect();
        for text in now.iter().filter(|text| !self.reported.contains(text)) {
            tracing::warn!("not in force: {text}");
        }
        for text in self.reported.iter().filter(|text| !now.contains(text)) {
            tracing::info!("in force, or gone: {text}");
        }
        self.reported = now;
    }
}

#[cfg(test)]
mod tests;
