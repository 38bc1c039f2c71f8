//! Which ready endpoints are near enough, by the hints of their slices.
//!
//! As in kube-proxy, hints count only if every ready endpoint has them, so that endpoints without hints get neither all
//! traffic nor none.

use std::sync::Arc;

use crate::model::Endpoint;
use crate::node::here::Here;

/// Which endpoints a connection may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach<'a> {
    /// To endpoints for this node.
    Node(&'a str),
    /// To endpoints for this zone.
    Zone(&'a str),
    /// Anywhere.
    All,
}

impl<'a> Reach<'a> {
    /// The reach that the hints of the ready endpoints allow.
    pub(super) fn new<'e>(ready: impl Iterator<Item = &'e Endpoint> + Clone, here: &Here<'a>) -> Self {
        let agree = |hints: fn(&Endpoint) -> &[Arc<str>], name: &str| {
            ready.clone().all(|e| !hints(e).is_empty())
                && ready.clone().any(|e| hints(e).iter().any(|hint| **hint == *name))
        };
        if agree(|e| &e.for_nodes, here.name) {
            return Self::Node(here.name);
        }
        match here.zone {
            Some(zone) if agree(|e| &e.for_zones, zone) => Self::Zone(zone),
            _ => Self::All,
        }
    }

    /// Whether a ready endpoint is near enough.
    pub(super) fn covers(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Node(name) => endpoint.for_nodes.iter().any(|hint| **hint == *name),
            Self::Zone(zone) => endpoint.for_zones.iter().any(|hint| **hint == *zone),
            Self::All => true,
        }
    }
}
