//! What an answer consists of; text and JSON are both made of it.

use serde::Serialize;

/// The answer: one connection for each family, and for each endpoint of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Why {
    /// Whether all of them pass.
    pub(super) allowed: bool,
    /// The same and the reason, in one line.
    pub(super) summary: String,
    /// Frontends of the Service that is asked for; empty without one.
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

/// A connection that may come of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Connection {
    pub(super) allowed: bool,
    pub(super) source: End,
    pub(super) destination: End,
    pub(super) egress: Opinion,
    pub(super) ingress: Opinion,
    /// What the sender would say if its audited policies were enforced, where that makes a difference.
    pub(super) audited_egress: Option<Opinion>,
    /// The same for the receiver.
    pub(super) audited_ingress: Option<Opinion>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct End {
    /// `namespace/name`, if it is a pod that is known.
    pub(super) pod: Option<String>,
    /// With port and protocol, for a destination.
    pub(super) address: String,
}

impl End {
    /// What a person calls it.
    pub(super) fn name(&self) -> &str {
        self.pod.as_deref().unwrap_or(&self.address)
    }
}

/// What one end says to a connection.
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
    /// A pod of another node, and judged there.
    OtherNode,
    /// No pod that is known, so nobody judges at this end.
    NoPod,
    /// Behind an interface of this node, but the pod is not known yet.
    Pending,
}

impl Opinion {
    /// Whether the policies of this node have nothing to do with it.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::OtherNode | Self::NoPod)
    }
}
