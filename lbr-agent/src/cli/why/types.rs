//! What an answer consists of; text and JSON are both made of it.

use serde::Serialize;

/// The answer: one connection for each family, and for each endpoint of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// Whether all of them pass.
    pub allowed: bool,
    /// The result and its reason, in one line.
    pub summary: String,
    /// Which of several things the destination was taken for; empty if it can mean one only.
    pub taken: String,
    /// Why no packet has the source in question.
    pub spoofed: Option<String>,
    /// Frontends of the Service in question; empty without one.
    pub services: Vec<Frontend>,
    /// To each endpoint, or to the destination itself.
    pub connections: Vec<Connection>,
}

/// An address and port of the Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frontend {
    /// Name of the Service.
    pub service: String,
    /// Its address.
    pub address: String,
    /// Its port, with protocol and name.
    pub port: String,
    /// How many endpoints it leads to.
    pub endpoints: usize,
    /// Why it leads nowhere; empty if it leads somewhere.
    pub refused: String,
    /// The counter of packets that it refuses (`lbr show counters`); empty if it leads somewhere.
    pub counter: &'static str,
}

/// One possible connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connection {
    /// Whether it passes.
    pub allowed: bool,
    /// Its client.
    pub source: End,
    /// Where it goes after translation.
    pub destination: End,
    /// The sender's opinion.
    pub egress: Opinion,
    /// The receiver's opinion.
    pub ingress: Opinion,
    /// The sender's opinion if its audited policies were enforced, where that differs.
    pub audited_egress: Option<Opinion>,
    /// The same for the receiver.
    pub audited_ingress: Option<Opinion>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// `namespace/name`, if it is a known pod.
    pub pod: Option<String>,
    /// With port and protocol, for a destination.
    pub address: String,
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
pub enum Opinion {
    /// A policy allows it.
    Allowed {
        /// `namespace/name` of the policy.
        policy: String,
        /// Path of the rule: `spec.ingress[0]`.
        rule: String,
        /// Text of the rule.
        yaml: String,
    },
    /// These policies isolate the pod, and none allows it.
    Denied {
        /// `namespace/name` of each.
        policies: Vec<String>,
    },
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
    /// Not known, and behind the link of a pod that is isolated: policies can not be asked.
    NotJudged,
}

impl Opinion {
    /// Whether no policy of this node judges this end.
    pub(super) fn is_elsewhere(&self) -> bool {
        matches!(self, Self::OtherNode | Self::NoPod)
    }
}
