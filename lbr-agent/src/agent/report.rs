//! What the agent logs and turns into Events: each thing once, not in every round.

use std::collections::BTreeSet;

use super::start::Start;
use super::troubles::Troubles;
use crate::engine::Engine;
use crate::events::{Counts, Events};
use crate::table::{Outcome, Problem};

/// What was reported so far.
#[derive(Debug)]
pub(super) struct Reports {
    troubles: Troubles,
    is_ready: bool,
    problems: Vec<String>,
    /// What was reported last of sockets that could not be aborted.
    abort_failed: Option<String>,
    /// What was found while compiling.
    found: BTreeSet<String>,
}

impl Reports {
    pub(super) fn new(events: Events) -> Self {
        let troubles = Troubles::new(events);
        Self { troubles, is_ready: false, problems: Vec::new(), abort_failed: None, found: BTreeSet::new() }
    }

    /// Whether [`Self::ready`] was called.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Reports once that everything that was listed is in force.
    pub(super) fn ready(&mut self, engine: &Engine, start: &Start) {
        if !self.is_ready {
            let [services, backends, links] = engine.counts();
            self.is_ready = true;
            tracing::info!(
                "ready: {services} Service ports, {backends} endpoints, {links} pod links, {start}"
            );
        }
    }

    /// Warns of NodePorts that the node's own connections may use.
    pub(super) fn warn_of_ephemeral_ports(&self, engine: &Engine) {
        if let Some(warning) = engine.ephemeral_warning() {
            tracing::warn!("{warning}");
        }
    }

    /// Reports a round.
    pub(super) fn wrote(&mut self, outcome: &Outcome, engine: &Engine) {
        self.log_problems(&outcome.problems);
        self.log_sockets(outcome);
        if engine.is_synced() {
            self.log_found(engine);
            self.troubles.now(engine.rejected(), &outcome.problems, engine.without_room());
        }
    }

    /// How many Events were written or dropped.
    pub(super) fn event_counts(&self) -> Counts {
        self.troubles.counts()
    }

    /// Logs a failure once, until it is another one.
    fn log_sockets(&mut self, outcome: &Outcome) {
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
    fn log_found(&mut self, engine: &Engine) {
        let of_source: BTreeSet<_> = engine.state().rejected.iter().collect();
        let found = engine.rejected().iter().filter(|one| !of_source.contains(one));
        let found: BTreeSet<String> = found.map(ToString::to_string).collect();
        for text in found.difference(&self.found) {
            tracing::warn!("{text}");
        }
        self.found = found;
    }

    /// Logs each problem once, and once more when it is over.
    fn log_problems(&mut self, problems: &[Problem]) {
        let now: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for text in now.iter().filter(|text| !self.problems.contains(text)) {
            tracing::warn!("not in force: {text}");
        }
        for text in self.problems.iter().filter(|text| !now.contains(text)) {
            tracing::info!("in force, or gone: {text}");
        }
        self.problems = now;
    }
}
