//! What a status consists of; text and JSON are both made of it. Times are RFC 3339, ages are seconds.

use serde::Serialize;

use crate::cli::rows::RejectedRow;

/// The status of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::cli) struct Status {
    /// The pin folder.
    pub(super) bpffs: String,
    pub(super) agent: Agent,
    pub(super) object: Object,
    pub(super) source: Option<SourceStatus>,
    pub(super) state: Option<State>,
    pub(super) counts: Counts,
    pub(super) rejected: Vec<RejectedRow>,
    /// The fullest first.
    pub(super) maps: Vec<MapFill>,
    pub(super) uplinks: Vec<Uplink>,
    pub(super) links: Links,
    /// Socket programs that are attached, of 10.
    pub(super) socket_programs: usize,
    pub(super) kernel: Kernel,
}

/// The agent of the pin folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Agent {
    pub(super) state: AgentState,
    pub(super) version: Option<String>,
    /// In the agent's own PID namespace.
    pub(super) process: Option<u32>,
    pub(super) pod: Option<String>,
    pub(super) node: Option<String>,
    /// When its programs were in place.
    pub(super) since: Option<String>,
    /// When it ended by itself.
    pub(super) stopped: Option<String>,
    pub(super) last_report: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AgentState {
    Running,
    /// It runs, and has not reported for longer than it should.
    Silent,
    /// It ended by itself.
    Stopped,
    /// It was killed, or crashed.
    Killed,
    /// No agent runs, and the last one left no report.
    Unknown,
}

/// The kernel object: SHA-256 of its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Object {
    /// The one that this `lbr` carries.
    pub(in crate::cli) here: String,
    /// The one that the agent loaded, by its report.
    pub(in crate::cli) in_force: Option<String>,
    /// Whether both are the same; `None`: not known.
    pub(in crate::cli) same: Option<bool>,
    /// Whether the programs at the pinned links are those of the report; `None`: there is no pinned link to compare, as
    /// with clsact.
    pub(in crate::cli) confirmed: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SourceStatus {
    /// `folder` or `api-server`.
    pub(super) kind: String,
    pub(super) place: String,
    /// How long it has not been read. 0: the agent follows it.
    pub(super) age_seconds: f64,
    /// When the last change came in.
    pub(super) changed: Option<String>,
}

/// How far the maps are what the source says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct State {
    /// Whether every kind has been listed.
    pub(super) synced: bool,
    /// When everything was last in force.
    pub(super) in_force_since: Option<String>,
    /// Map entries that wait.
    pub(super) pending: usize,
    /// Writes of the last round that failed.
    pub(super) problems: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) services: usize,
    pub(super) service_ports: usize,
    /// Endpoints of Services.
    pub(super) endpoints: usize,
    /// Pods of this node with an address.
    pub(super) pods: usize,
    /// Those that policies isolate.
    pub(super) isolated_pods: usize,
    /// NetworkPolicies that select pods of this node.
    pub(super) policies: usize,
    /// Connections with a recent packet.
    pub(super) flows: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct MapFill {
    pub(super) map: &'static str,
    pub(super) entries: usize,
    pub(super) max_entries: u32,
    pub(super) percent: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Uplink {
    pub(super) name: String,
    /// `tcx`, `clsact`, or `none`.
    pub(super) tc: &'static str,
    /// `native`, `generic`, or `off`.
    pub(super) xdp: &'static str,
    pub(super) ipv4: String,
    pub(super) ipv6: String,
}

/// Pods' interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Links {
    pub(super) tcx: usize,
    pub(super) clsact: usize,
    /// Without programs.
    pub(super) detached: usize,
    /// Of all these: the pod behind it is not known yet.
    pub(super) pending: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Kernel {
    /// As in `uname -r`.
    pub(super) release: String,
    pub(super) tcx: bool,
    pub(super) missing: Vec<Missing>,
}

/// A feature that this kernel lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    pub(super) feature: String,
    /// The first Linux that has it.
    pub(super) since: String,
    /// What lbr does without it.
    pub(super) without: &'static str,
}
