//! Whether the proxy is healthy, by kube-proxy's rules. Pure: the caller passes the time.
//!
//! ```text
//! queued ──> in force within the limit ──> applied      healthy
//!        └─> still not in force after it                unhealthy, until applied
//! ```
//!
//! Health does not depend on when the API server was last heard: without it a node goes on with its last state, which
//! is in force.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use lbr_common::addr::Family;
use serde::Serialize;

/// kube-proxy's default sync period. A change that waits for twice as long is late.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// How long a change may wait.
pub const TIMEOUT: Duration = SYNC_PERIOD.saturating_mul(2);

/// A point in time on both clocks: ages come from the first, which is never set, and people read the second.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Never goes back.
    pub clock: Instant,
    /// For output.
    pub wall: SystemTime,
}

impl Moment {
    /// The present moment.
    pub fn now() -> Self {
        Self { clock: Instant::now(), wall: SystemTime::now() }
    }
}

/// The parts of a Node object that decide whether load balancers should send new connections to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// It has a `metadata.deletionTimestamp`.
    pub is_deleting: bool,
    /// It has the taint `ToBeDeletedByClusterAutoscaler`.
    pub is_to_be_deleted: bool,
}

/// The state machine. Both IP families come into force by the same writes, so one state stands for both.
#[derive(Debug)]
pub struct Health {
    timeout: Duration,
    /// When the oldest change came that is not in force yet.
    queued: Option<Instant>,
    /// When everything was last in force.
    applied: Option<Moment>,
    is_synced: bool,
    is_node_required: bool,
    is_node_known: bool,
    is_node_eligible: bool,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// 200, or 503.
    pub is_ok: bool,
    /// JSON.
    pub body: String,
}

impl Health {
    /// Healthy, since nothing is known yet. `is_node_required`: a node that is not known after the sources have listed
    /// everything is not eligible. Without an API server, Nodes need not be described.
    pub fn new(timeout: Duration, is_node_required: bool) -> Self {
        Self {
            timeout,
            queued: None,
            applied: None,
            is_synced: false,
            is_node_required,
            is_node_known: false,
            is_node_eligible: true,
        }
    }

    /// Records a change that is not in force yet. The oldest one counts.
    pub fn queued(&mut self, at: Moment) {
        self.queued.get_or_insert(at.clock);
    }

    /// The sources have listed everything: from now on a change can be late. Earlier changes waited for this.
    pub fn synced(&mut self, at: Moment) {
        if !self.is_synced {
            self.is_synced = true;
            self.queued = self.queued.map(|_| at.clock);
        }
    }

    /// All changes are in force.
    pub fn applied(&mut self, at: Moment) {
        self.queued = None;
        self.applied = Some(at);
    }

    /// Sets this node's state in the sources.
    pub fn node(&mut self, node: Option<NodeState>) {
        self.is_node_eligible = match node {
            Some(node) => !node.is_deleting && !node.is_to_be_deleted,
            None => !self.is_node_required && !self.is_node_known,
        };
        self.is_node_known |= node.is_some();
    }

    /// Whether every change is in force, or not late.
    pub fn is_healthy(&self, now: Moment) -> bool {
        let age = |queued| now.clock.saturating_duration_since(queued);
        !self.is_synced || self.queued.is_none_or(|queued| age(queued) < self.timeout)
    }

    /// Whether the node may get new connections.
    pub fn is_node_eligible(&self) -> bool {
        self.is_node_eligible
    }

    /// `/healthz`: for load balancers.
    pub fn healthz(&self, now: Moment) -> Report {
        self.report(now, Some(self.is_node_eligible))
    }

    /// `/livez`: for the kubelet. A node to be removed still has a live proxy.
    pub fn livez(&self, now: Moment) -> Report {
        self.report(now, None)
    }

    fn report(&self, now: Moment, node_eligible: Option<bool>) -> Report {
        let healthy = self.is_healthy(now);
        let is_ok = healthy && node_eligible != Some(false);
        // As in kube-proxy, the time is recent if all is well, for clients that look at this field only.
        let last_updated = if is_ok { Some(now) } else { self.applied };
        let family = |family: Family| {
            self.applied.map(|at| (family.name(), FamilyBody { last_updated: go_time(Some(at)), healthy }))
        };
        let body = Body {
            last_updated: go_time(last_updated),
            current_time: go_time(Some(now)),
            node_eligible,
            healthy,
            status: Family::ALL.into_iter().filter_map(family).collect(),
        };
        // Texts and booleans always convert to JSON.
        Report { is_ok, body: serde_json::to_string(&body).unwrap_or_default() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, FamilyBody>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

/// RFC 3339 in UTC with as many decimals as needed, as Go prints it; Go's zero time for "never".
fn go_time(at: Option<Moment>) -> String {
    let time = at.and_then(|at| jiff::Timestamp::try_from(at.wall).ok());
    time.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests;
