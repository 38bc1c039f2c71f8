//! The state of the cluster as this node sees it. One task owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{
    EndpointSlice, Kind, Namespace, NetworkPolicy, Node, Object, ObjectName, ObjectRef, Pod, Rejected,
    Service, ServiceCidr,
};
use crate::source::Change;

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
    /// The versions in force of each policy, and whether their rules are. A version without room still isolates the
    /// pods that it selects; if it is audited, it audits nothing.
    pub fn policies_in_force(&self) -> impl Iterator<Item = (&NetworkPolicy, bool)> {
        self.policies.iter().flat_map(|(name, policy)| {
            let stand_in = self.without_room.get(name);
            let last = stand_in.and_then(|stand_in| stand_in.version.as_ref());
            let wanted = (stand_in.is_none() || !policy.audit).then_some((policy, stand_in.is_none()));
            last.map(|last| (last, true)).into_iter().chain(wanted)
        })
    }
}

/// Applies changes, and finds out whether anything is different.
#[derive(Debug, Default)]
pub struct Store {
    state: ClusterState,
    synced: BTreeSet<Kind>,
    /// Addresses of pods without an address in the API.
    addresses: BTreeMap<ObjectName, Vec<IpAddr>>,
}

impl Store {
    /// An empty store that has not seen any list yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one change. True if it changes the state, or lists a kind for the first time.
    pub fn apply(&mut self, change: Change) -> bool {
        let s = &mut self.state;
        match change {
            Change::Apply(Object::Pod(mut o)) => {
                if o.ips.is_empty() {
                    o.ips = self.addresses.get(&o.name).cloned().unwrap_or_default();
                } else {
                    self.addresses.remove(&o.name);
                }
                put(&mut s.pods, o.name.clone(), o)
            }
            Change::Apply(Object::Service(o)) => put(&mut s.services, o.name.clone(), o),
            Change::Apply(Object::EndpointSlice(o)) => put(&mut s.slices, o.name.clone(), o),
            Change::Apply(Object::Namespace(o)) => put(&mut s.namespaces, ObjectName::cluster(&o.name), o),
            Change::Apply(Object::Node(o)) => put(&mut s.nodes, ObjectName::cluster(&o.name), o),
            Change::Apply(Object::NetworkPolicy(o)) => put(&mut s.policies, o.name.clone(), o),
            Change::Apply(Object::ServiceCidr(o)) => {
                put(&mut s.service_cidrs, ObjectName::cluster(&o.name), o)
            }
            Change::Delete(ObjectRef { kind, name }) => match kind {
                Kind::Service => s.services.remove(&name).is_some(),
                Kind::EndpointSlice => s.slices.remove(&name).is_some(),
                Kind::Namespace => s.namespaces.remove(&name).is_some(),
                Kind::Pod => {
                    self.addresses.remove(&name);
                    s.pods.remove(&name).is_some()
                }
                Kind::Node => s.nodes.remove(&name).is_some(),
                Kind::NetworkPolicy => s.policies.remove(&name).is_some(),
                Kind::ServiceCidr => s.service_cidrs.remove(&name).is_some(),
            },
            Change::Rejected(rejected) => {
                let changed = s.rejected != rejected;
                s.rejected = rejected;
                changed
            }
            Change::Synced(kind) => self.synced.insert(kind),
        }
    }

    /// Sets the addresses of a pod until the API has any.
    pub fn set_addresses(&mut self, pod: &ObjectName, addresses: &[IpAddr]) {
        let known = self.state.pods.get_mut(pod);
        if known.as_ref().is_some_and(|pod| !pod.ips.is_empty()) {
            return;
        }
        if let Some(known) = known {
            known.ips = addresses.to_vec();
        }
        self.addresses.insert(pod.clone(), addresses.to_vec());
    }

    /// Sets the policies without room.
    pub fn set_without_room(&mut self, policies: BTreeMap<ObjectName, StandIn>) {
        self.state.without_room = policies;
    }

    /// The present state.
    pub fn state(&self) -> &ClusterState {
        &self.state
    }

    /// Whether every kind has been listed once. Before that, nothing may be removed from a map.
    pub fn is_synced(&self) -> bool {
        self.synced.len() == Kind::ALL.len()
    }
}

fn put<V: PartialEq>(map: &mut BTreeMap<ObjectName, V>, name: ObjectName, value: V) -> bool {
    if map.get(&name) == Some(&value) {
        return false;
    }
    map.insert(name, value);
    true
}
