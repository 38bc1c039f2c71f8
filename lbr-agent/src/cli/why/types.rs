//! What an answer consists of; text and JSON are both made of it.

use serde::Serialize;

/// The answer: one connection for each family, and for each endpoint of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Why {
    /// Whether all of them pass.
    pub(super) allowed: bool,
    /// The result and its reason, in one line.
    pub(super) summary: String,
    /// Which of several things the destination was taken for; empty if it can mean one only.
    pub(super) taken: String,
    /// Frontends of the Service in question; empty without one.
    pub(super) services: Vec<Frontend>,
    pub(super) connections: Vec<Connection>,
}

/// An address and port of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Frontend {
    pub(super) service: String,
    pub(super) address: String,
    pub(super) port: String,
    /// How many endpoints it leads to.
    pub(super) endpoints: usize,
    /// Why it leads nowhere; empty if it leads somewhere.
    pub(super) refused: String,
}

/// One possible connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Connection {
    pub(super) allowed: bool,
    pub(super) source: End,
    pub(super) destination: End,
    pub(super) egress: Opinion,
    pub(super) ingress: Opinion,
    /// The sender's opinion if its audited policies were enforced, where that differs.
    pub(super) audited_egress: Option<Opinion>,
    /// The same for the receiver.
    pub(super) audited_ingress: Option<Opinion>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct End {
    /// `namespace/name`, if it is a known pod.
    pub(super) pod: Option<String>,
    /// With port and protocol, for a destination.
    pub(super) address: String,
}

impl End {
    /// Name for people.
    pub(super) fn name(&self) -> &str {
        self.pod.as_deref().unwrap_or(&self.address)
    }
}

/// How the policies of one end judge a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub(super) enum Opinion {
    /// A policy allows it.
    Allowed {
        policy: String,
        /// Path of the rule: `spec.ingress[0]`.
        rule: String,
        yaml: String,
    },
    /// These policies isolate the pod, and none allows it.
    Denied { policies: Vec<String> },
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// A pod that reaches itself.
    Itself,
    /// One end is the node itself.
    Node,
    /// A pod of another node, which judges it there.
    OtherNode,
    /// No known pod, so no policy judges this end.
    NoPod,
    /// Behind an interface of this node, but the pod is not known yet.
    Pending,
}

impl Opinion {
    /// Whether no policy of this node judges this end.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::OtherNode | Self::NoPod)
    }
}
