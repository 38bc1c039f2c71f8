//! The handle by which the agent reports what it does. No lock is held for longer than it takes to copy numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use lbr_common::addr::Family;
use tokio::sync::watch;

use super::health::{Health, Moment, NodeState, Report, TIMEOUT};
use super::metrics::histograms::Histograms;
use crate::cluster::Change;
use crate::cluster::ClusterState;
use crate::desired::HealthPort;
use crate::engine::Compiled;
use crate::events::Counts;
use crate::model::{EndpointSlice, Extent, Item, Kind, Object, ObjectName, Rejected};
use crate::table::Outcome;

/// How many trigger times are kept until they are in force. Beyond that the histogram lacks some.
const TRIGGERS: usize = 10_000;

/// The source of objects.
pub enum Origin {
    /// A folder, which is always up to date. It need not describe nodes.
    Folder,
    /// An API server, which knows every node. Returns how long it could not be read; zero if all is well.
    ApiServer(Box<dyn Fn() -> Duration + Send + Sync>),
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Folder => "Folder",
            Self::ApiServer(_) => "ApiServer",
        })
    }
}

/// Takes reports of the agent, and answers readers. Clones share one state.
#[derive(Clone, Debug)]
pub struct Observer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    origin: Origin,
    started: SystemTime,
    health: Mutex<Health>,
    figures: Mutex<Figures>,
    /// Trigger times of the changes that are not in force yet.
    triggers: Mutex<Vec<(Family, SystemTime)>>,
    histograms: Histograms,
    health_ports: watch::Sender<BTreeMap<u16, HealthPort>>,
    refused_ports: watch::Sender<BTreeMap<u16, String>>,
}

/// The parts of a change that count here, taken before the store consumes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Note {
    kind: Option<Kind>,
    trigger: Option<(Family, SystemTime)>,
}

impl Note {
    /// The note of a change.
    pub fn of(change: &Change) -> Self {
        match change {
            Change::Apply(object) => match object {
                Object::Service(_) => Self { kind: Some(Kind::Service), trigger: None },
                Object::EndpointSlice(slice) => {
                    Self { kind: Some(Kind::EndpointSlice), trigger: trigger(slice) }
                }
                _ => Self::default(),
            },
            Change::Restrict(partial) => Self { kind: Some(partial.reference().kind), trigger: None },
            Change::Delete(object) => Self { kind: Some(object.kind), trigger: None },
            Change::Addresses(..) | Change::Origin(..) | Change::Rejected(_) | Change::Synced(_) => {
                Self::default()
            }
        }
    }
}

/// The time of the change in the cluster that this slice follows. Removals do not count.
fn trigger(slice: &EndpointSlice) -> Option<(Family, SystemTime)> {
    let first = slice.endpoints.first()?;
    Some((Family::of(first.addr), slice.triggered?))
}

/// One round of the agent's loop: compiled and written.
#[derive(Debug)]
pub struct Round<'a> {
    /// When it began.
    pub began: Instant,
    /// How long it took to compile,
    pub compiled: Duration,
    /// and what was compiled.
    pub did: Compiled,
    /// Whether every kind has been listed.
    pub is_synced: bool,
    /// The result of writing.
    pub outcome: &'a Outcome,
    /// Policies that the maps have no room for.
    pub without_room: usize,
    /// The compiled state.
    pub state: &'a ClusterState,
    /// Name of this node.
    pub node: &'a str,
    /// How many entries the agent's maps have.
    pub entries: Vec<(&'static str, usize)>,
    /// Health check ports of Services.
    pub health_ports: BTreeMap<u16, HealthPort>,
    /// The objects and parts that are not in force.
    pub rejected: &'a [Rejected],
}

/// Numbers for `/metrics`.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) entries: Vec<(&'static str, usize)>,
    pub(super) objects: Vec<(&'static str, usize)>,
    pub(super) rejected: usize,
    pub(super) limited: usize,
    pub(super) without_room: usize,
    pub(super) rounds: u64,
    pub(super) compiled_services: u64,
    pub(super) compiled_everything: u64,
    pub(super) compiled_policies: u64,
    pub(super) compiled_all_policies: u64,
    pub(super) events: Counts,
    pub(super) pending: usize,
    pub(super) problems: usize,
    pub(super) is_synced: bool,
    pub(super) queued: Option<SystemTime>,
    pub(super) applied: Option<SystemTime>,
    pub(super) services: Changes,
    pub(super) endpoints: Changes,
    pub(super) healthz: BTreeMap<u16, u64>,
    pub(super) livez: BTreeMap<u16, u64>,
    pub(super) bind_failures: BTreeMap<&'static str, u64>,
    pub(super) aborted_sockets: u64,
    pub(super) failed_aborts: u64,
}

/// Number of changes of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Changes {
    /// Not in force yet.
    pub(super) pending: u64,
    /// All so far.
    pub(super) total: u64,
}

impl Observer {
    /// For an agent that starts.
    pub fn new(origin: Origin) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Shared {
            health: Mutex::new(Health::new(TIMEOUT, matches!(origin, Origin::ApiServer(_)))),
            origin,
            started: SystemTime::now(),
            figures: Mutex::default(),
            triggers: Mutex::default(),
            histograms: Histograms::new()?,
            health_ports: watch::Sender::default(),
            refused_ports: watch::Sender::default(),
        })))
    }

    /// Records a change that is not in force yet.
    pub fn queued(&self, note: Note, at: Moment) {
        self.health().queued(at);
        let mut figures = self.figures();
        figures.queued = Some(at.wall);
        let changes = match note.kind {
            Some(Kind::Service) => &mut figures.services,
            Some(Kind::EndpointSlice) => &mut figures.endpoints,
            _ => return,
        };
        changes.pending += 1;
        changes.total += 1;
        // Older ones would measure how long no agent ran.
        let trigger = note.trigger.filter(|(_, time)| *time >= self.0.started);
        let mut triggers = lock(&self.0.triggers);
        if triggers.len() < TRIGGERS {
            triggers.extend(trigger);
        }
    }

    /// Records that every kind has been listed.
    pub fn synced(&self, at: Moment) {
        self.health().synced(at);
    }

    /// Records the end of a round.
    pub fn wrote(&self, round: Round<'_>, at: Moment) {
        self.health_after(&round, at);
        let took = at.clock.saturating_duration_since(round.began);
        let histograms = &self.0.histograms;
        histograms.compiled(round.compiled);
        let mut figures = self.figures();
        figures.objects = objects(round.state);
        (figures.rejected, figures.limited) = rejected_and_limited(round.rejected);
        figures.without_room = round.without_room;
        figures.compiled_services += round.did.services as u64;
        figures.compiled_everything += u64::from(round.did.all_services);
        figures.compiled_policies += u64::from(round.did.policies);
        figures.compiled_all_policies += u64::from(round.did.all_policies);
        figures.rounds += 1;
        figures.pending = round.outcome.pending;
        figures.problems = round.outcome.problems.len();
        figures.aborted_sockets += round.outcome.aborted_sockets as u64;
        figures.failed_aborts += u64::from(round.outcome.abort_failed.is_some());
        figures.is_synced = round.is_synced;
        figures.entries = round.entries;
        if !round.is_synced {
            return;
        }
        self.0.health_ports.send_if_modified(|known| {
            let changed = *known != round.health_ports;
            *known = round.health_ports;
            changed
        });
        for family in Family::ALL {
            histograms.wrote(family, took);
        }
        if round.outcome.is_converged() {
            figures.applied = Some(at.wall);
            figures.services.pending = 0;
            figures.endpoints.pending = 0;
            for (family, trigger) in lock(&self.0.triggers).drain(..) {
                histograms.programmed(family, at.wall.duration_since(trigger).unwrap_or_default());
            }
        }
    }

    /// Sets the counts of Kubernetes Events.
    pub fn set_events(&self, counts: Counts) {
        self.figures().events = counts;
    }

    fn health_after(&self, round: &Round<'_>, at: Moment) {
        let mut health = self.health();
        if !round.is_synced {
            return;
        }
        health.synced(at);
        let node = round.state.nodes.get(&ObjectName::cluster(round.node));
        health.node(node.map(|node| NodeState {
            is_deleting: node.is_deleting,
            is_to_be_deleted: node.is_to_be_deleted,
        }));
        if round.outcome.is_converged() {
            health.applied(at);
        } else {
            // Writes can fail without a change, too.
            health.queued(Moment { clock: round.began, ..at });
        }
    }

    /// Counts a server that could not listen.
    pub(super) fn bind_failed(&self, flag: &'static str) {
        *self.figures().bind_failures.entry(flag).or_default() += 1;
    }

    pub(super) fn healthz(&self, at: Moment) -> Report {
        let report = self.health().healthz(at);
        *self.figures().healthz.entry(code(&report)).or_default() += 1;
        report
    }

    pub(super) fn livez(&self, at: Moment) -> Report {
        let report = self.health().livez(at);
        *self.figures().livez.entry(code(&report)).or_default() += 1;
        report
    }

    /// Whether every change is in force, or not late. Node eligibility does not count.
    pub(super) fn is_healthy(&self, at: Moment) -> bool {
        self.health().is_healthy(at)
    }

    /// Health check ports of Services, as of the last round.
    pub(super) fn health_ports(&self) -> watch::Receiver<BTreeMap<u16, HealthPort>> {
        self.0.health_ports.subscribe()
    }

    /// Health check ports that cannot be opened, and why.
    pub(crate) fn refused_ports(&self) -> watch::Receiver<BTreeMap<u16, String>> {
        self.0.refused_ports.subscribe()
    }

    /// Sets these ports.
    pub(super) fn set_refused_ports(&self, ports: BTreeMap<u16, String>) {
        self.0.refused_ports.send_if_modified(|known| {
            let changed = *known != ports;
            *known = ports;
            changed
        });
    }

    /// All numbers.
    pub(super) fn snapshot(&self) -> Figures {
        self.figures().clone()
    }

    /// How long the API server has been silent, if there is one.
    pub(super) fn silence(&self) -> Option<Duration> {
        match &self.0.origin {
            Origin::Folder => None,
            Origin::ApiServer(silent_for) => Some(silent_for()),
        }
    }

    pub(super) fn histograms(&self) -> &Histograms {
        &self.0.histograms
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        lock(&self.0.health)
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        lock(&self.0.figures)
    }
}

/// The numbers stay valid if a thread panicked while it held the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn code(report: &Report) -> u16 {
    if report.is_ok { 200 } else { 503 }
}

/// Each object counts once. One that is rejected is not counted as limited.
fn rejected_and_limited(all: &[Rejected]) -> (usize, usize) {
    let of = |wanted: Extent| -> BTreeSet<(&Item, &str)> {
        let its = all.iter().filter(|one| one.extent == wanted);
        its.map(|one| (&one.object, one.origin.as_str())).collect()
    };
    let (rejected, limited) = (of(Extent::Rejected), of(Extent::Limited));
    (rejected.len(), limited.difference(&rejected).count())
}

fn objects(state: &ClusterState) -> Vec<(&'static str, usize)> {
    vec![
        ("Service", state.services.len()),
        ("EndpointSlice", state.slices.len()),
        ("Namespace", state.namespaces.len()),
        ("Pod", state.pods.len()),
        ("Node", state.nodes.len()),
        ("NetworkPolicy", state.policies.len()),
        ("ServiceCIDR", state.service_cidrs.len()),
    ]
}

#[cfg(test)]
mod tests;
