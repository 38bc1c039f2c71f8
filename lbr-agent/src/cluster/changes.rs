//! What changed since the last compile, so that a change costs what it changes.

use std::collections::{BTreeMap, BTreeSet};

use super::ClusterState;
use crate::model::{Kind, ObjectName, Pod};

/// The objects that changed. What a part does not find here, it need not look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services that changed, or one of whose slices did.
    pub services: BTreeSet<ObjectName>,
    /// Nodes.
    pub nodes: BTreeSet<ObjectName>,
    /// Pods, each with what it was; `None`: it is new.
    pub pods: BTreeMap<ObjectName, Option<Box<Pod>>>,
    /// Namespaces.
    pub namespaces: BTreeSet<ObjectName>,
    /// NetworkPolicies.
    pub policies: BTreeSet<ObjectName>,
    /// Whether a ServiceCIDR did.
    pub service_cidrs: bool,
    /// What the sources reject, or where an object is written.
    pub rejected: bool,
}

impl Changes {
    /// Whether any object of this kind changed.
    pub fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Service | Kind::EndpointSlice => !self.services.is_empty(),
            Kind::Node => !self.nodes.is_empty(),
            Kind::Pod => !self.pods.is_empty(),
            Kind::Namespace => !self.namespaces.is_empty(),
            Kind::NetworkPolicy => !self.policies.is_empty(),
            Kind::ServiceCidr => self.service_cidrs,
        }
    }

    /// What is new with this state, for somebody who knows of no pod or policy yet.
    pub(crate) fn of_policy(state: &ClusterState) -> Self {
        let pods = state.pods.keys().map(|name| (name.clone(), None));
        Self { pods: pods.collect(), policies: state.policies.keys().cloned().collect(), ..Self::default() }
    }

    /// Notes what a pod was at the last compile.
    pub(super) fn add_pod(&mut self, name: &ObjectName, former: Option<Pod>) {
        self.pods.entry(name.clone()).or_insert_with(|| former.map(Box::new));
    }

    pub(super) fn add(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            // The store adds the Services that slices belong to.
            Kind::EndpointSlice => {}
            // It does so with what the pod was.
            Kind::Pod => {}
            Kind::Service => drop(self.services.insert(name.clone())),
            Kind::Node => drop(self.nodes.insert(name.clone())),
            Kind::Namespace => drop(self.namespaces.insert(name.clone())),
            Kind::NetworkPolicy => drop(self.policies.insert(name.clone())),
            Kind::ServiceCidr => self.service_cidrs = true,
        }
    }
}
