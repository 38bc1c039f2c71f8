//! The cluster as this node sees it: the state, and the changes that sources send.

mod change;
mod store;

use std::collections::BTreeMap;

pub use self::change::Change;
pub use self::store::Store;
use crate::model::{
    EndpointSlice, Namespace, NetworkPolicy, Node, ObjectName, Pod, Rejected, Service, ServiceCidr,
};

/// Every object that was accepted, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// Services.
    pub services: BTreeMap<ObjectName, Service>,
    /// EndpointSlices.
    pub slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Namespaces.
    pub namespaces: BTreeMap<ObjectName, Namespace>,
    /// Pods.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// Nodes.
    pub nodes: BTreeMap<ObjectName, Node>,
    /// NetworkPolicies.
    pub policies: BTreeMap<ObjectName, NetworkPolicy>,
    /// ServiceCIDRs.
    pub service_cidrs: BTreeMap<ObjectName, ServiceCidr>,
    /// The source's present rejections.
    pub rejected: Vec<Rejected>,
    /// Where each object is written, by its kind and name as people write them.
    pub origins: BTreeMap<String, String>,
    /// Where all others are from.
    pub origin: String,
    /// Policies that the maps have no room for.
    pub without_room: BTreeMap<ObjectName, StandIn>,
}

/// What is in force in place of a policy that does not fit into the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    /// The last version that fitted. In addition, the pods that the new version selects are isolated.
    pub version: Option<NetworkPolicy>,
    /// Why, and what to do.
    pub reason: String,
}

impl ClusterState {
    /// Where this object (`Service default/web`) is from, for people.
    pub fn origin_of(&self, object: &str) -> &str {
        self.origins.get(object).unwrap_or(&self.origin)
    }

    /// The versions in force of each policy, and whether their rules are. A version without room still isolates the
    /// pods that it selects; if it is audited, it audits nothing.
    pub fn policies_in_force<'a>(&'a self) -> impl Iterator<Item = (&'a NetworkPolicy, bool)> {
        self.policies.iter().flat_map(|(name, policy)| {
            let stand_in = self.without_room.get(name);
            let last = stand_in.and_then(|stand_in| stand_in.version.as_ref());
            let wanted = (stand_in.is_none() || !policy.audit).then_some((policy, stand_in.is_none()));
            let with_edit = |(policy, has_rules): (&'a NetworkPolicy, bool)| {
                let edit = policy.edit.as_deref().map(|edit| (edit, has_rules));
                [Some((policy, has_rules)), edit]
            };
            let versions = last.map(|last| (last, true)).into_iter().chain(wanted);
            versions.flat_map(with_edit).flatten()
        })
    }
}
