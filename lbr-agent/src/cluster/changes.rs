//! What changed since the last compile, so that a change costs what it changes.

use std::collections::BTreeSet;

use crate::model::{Kind, ObjectName};

/// The objects that changed. What a part does not find here, it need not look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services that changed, or one of whose slices did.
    pub services: BTreeSet<ObjectName>,
    /// Nodes.
    pub nodes: BTreeSet<ObjectName>,
    /// Other kinds: whether one of their objects did.
    pub kinds: BTreeSet<Kind>,
    /// What the sources reject, or where an object is written.
    pub rejected: bool,
}

impl Changes {
    /// Whether any object of this kind changed.
    pub fn has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Service | Kind::EndpointSlice => !self.services.is_empty(),
            Kind::Node => !self.nodes.is_empty(),
            _ => self.kinds.contains(&kind),
        }
    }

    pub(super) fn add(&mut self, kind: Kind, name: &ObjectName) {
        match kind {
            // The store adds the Services that slices belong to.
            Kind::EndpointSlice => {}
            Kind::Service => drop(self.services.insert(name.clone())),
            Kind::Node => drop(self.nodes.insert(name.clone())),
            _ => drop(self.kinds.insert(kind)),
        }
    }
}
