//! Whether the proxy is healthy, as kube-proxy answers it: pure, the time is handed in.
//!
//! ```text
//! queued ──> in force within the limit ──> applied      healthy
//!        └─> still not in force after it                unhealthy, until applied
//! ```
//!
//! Nothing here depends on how long ago anything was heard: a node whose API server is away goes on with its last
//! state, which is in force.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

/// kube-proxy's default sync period; what waits for twice as long is late.
const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// How long a change may wait.
pub const TIMEOUT: Duration = SYNC_PERIOD.saturating_mul(2);

/// A point in time on both clocks: ages are told by the first one, which nobody sets, people read the second one.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Never goes back.
    pub clock: Instant,
    /// As it is printed.
    pub wall: SystemTime,
}

impl Moment {
    /// This one.
    pub fn now() -> Self {
        Self { clock: Instant::now(), wall: SystemTime::now() }
    }
}

/// IP families, by kube-proxy's names for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Name in metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// What of a Node object decides whether load balancers should send new connections to it.
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
    /// Since when the oldest change waits that is not in force.
    queued: Option<Instant>,
    /// When all was in force last.
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
    /// Healthy, since nothing is known yet. `is_node_required`: a node that is not known after the sources have
    /// listed everything is not eligible. Where no API server is asked, perhaps nobody describes nodes.
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

    /// A change has come in that is not in force yet. The oldest one counts.
    pub fn queued(&mut self, at: Moment) {
        self.queued.get_or_insert(at.clock);
    }

    /// The sources have listed everything: from here on what waits can be late. What came before waited for this.
    pub fn synced(&mut self, at: Moment) {
        if !self.is_synced {
            self.is_synced = true;
            self.queued = self.queued.map(|_| at.clock);
        }
    }

    /// All that came in is in force.
    pub fn applied(&mut self, at: Moment) {
        self.queued = None;
        self.applied = Some(at);
    }

    /// This node as the sources know it.
    pub fn node(&mut self, node: Option<NodeState>) {
        self.is_node_eligible = match node {
            Some(node) => !node.is_deleting && !node.is_to_be_deleted,
            None => !self.is_node_required && !self.is_node_known,
        };
        self.is_node_known |= node.is_some();
    }

    /// Whether all that should be in force is, or is not late.
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

    /// `/livez`: for the kubelet. A node that is to be removed still has a proxy that lives.
    pub fn livez(&self, now: Moment) -> Report {
        self.report(now, None)
    }

    fn report(&self, now: Moment, node_eligible: Option<bool>) -> Report {
        let healthy = self.is_healthy(now);
        let is_ok = healthy && node_eligible != Some(false);
        // As kube-proxy: whoever only looks at this field sees a time that is recent if all is well.
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
        // Text and booleans: nothing that JSON could not say.
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

/// RFC 3339 in UTC with as many digits of a second as are needed, as Go prints it; its zero time for "never".
fn go_time(at: Option<Moment>) -> String {
    let time = at.and_then(|at| jiff::Timestamp::try_from(at.wall).ok());
    time.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests;
