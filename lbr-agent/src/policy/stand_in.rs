//! What is in force in place of policies that do not fit into the maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{NetworkPolicy, ObjectName};

/// What is in force in place of a policy that does not fit into the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// The last version that fitted. In addition, the pods that the new version selects are isolated.
    pub version: Option<Arc<NetworkPolicy>>,
    /// Why, and what to do.
    pub reason: String,
}

/// Policies that the maps have no room for.
pub type StandIns = BTreeMap<ObjectName, StandIn>;
