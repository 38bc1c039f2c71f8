//! The cluster as this node sees it: the state, and the changes that sources send.

mod change;
mod changes;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use self::change::Change;
pub use self::changes::Changes;
pub use self::store::Store;
use crate::model::{
    EndpointSlice, Namespace, NetworkPolicy, Node, ObjectName, ObjectRef, Pod, Rejected, Service, ServiceCidr,
};
use crate::table::compact;

/// Every object that was accepted, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// Services.
    pub services: BTreeMap<ObjectName, Service>,
    /// EndpointSlices.
    pub slices: BTreeMap<ObjectName, EndpointSlice>,
    /// Each Service with each of its slices. The store keeps it.
    pub slices_of: BTreeSet<(ObjectName, ObjectName)>,
    /// Namespaces.
    pub namespaces: BTreeMap<ObjectName, Namespace>,
    /// Pods.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// Nodes.
    pub nodes: BTreeMap<ObjectName, Node>,
    /// NetworkPolicies.
    pub policies: BTreeMap<ObjectName, Arc<NetworkPolicy>>,
    /// ServiceCIDRs.
    pub service_cidrs: BTreeMap<ObjectName, ServiceCidr>,
    /// The source's present rejections.
    pub rejected: Vec<Rejected>,
    /// Where each object is written.
    pub origins: BTreeMap<ObjectRef, String>,
    /// Where all others are from.
    pub origin: String,
}

impl ClusterState {
    /// Where this object is from, for people.
    pub fn origin_of(&self, object: &ObjectRef) -> &str {
        self.origins.get(object).unwrap_or(&self.origin)
    }

    /// Keeps the same in less memory, after many objects came at once.
    fn compact(&mut self) {
        let Self { services, slices, slices_of, pods, nodes, policies, .. } = self;
        compact(services);
        compact(slices);
        compact(pods);
        compact(nodes);
        compact(policies);
        // A slice may have come before its Service.
        let shared = |name: ObjectName| services.get(&name).map_or(name, |service| service.name.clone());
        let all = std::mem::take(slices_of).into_iter();
        *slices_of = all.map(|(service, slice)| (shared(service), slice)).collect();
    }

    /// The slices of a Service, in order of their names.
    pub fn slices_of(&self, service: &ObjectName) -> Vec<&EndpointSlice> {
        let all = self.slices_of.range((service.clone(), ObjectName::default())..);
        let its = all.take_while(|(owner, _)| owner == service);
        its.filter_map(|(_, slice)| self.slices.get(slice)).collect()
    }
}
