//! Which pod is behind which link: pure, remembered from picture to picture.

use std::collections::BTreeMap;

use super::select::{LinkFact, RouteFact, Way};
use super::{LocalLinks, PodAddresses};

/// The links behind which a pod that the API names is, or was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known(BTreeMap<u32, Owner>);

/// A link of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    /// Name of the interface: an index may come to mean another one.
    link: String,
    /// The pod.
    pod: String,
}

impl Known {
    /// Whether a pod is, or was, behind the link.
    pub(super) fn has_pod(&self, index: u32, name: &str) -> bool {
        self.0.get(&index).is_some_and(|owner| owner.link == name)
    }

    /// Forgets links that are gone, and pods that the API does not name any more at those where another one is found.
    /// Then looks for host routes: they are the node's own word, so that what an interface was before does not matter.
    pub(super) fn learn_routes(&mut self, links: &[LinkFact], routes: &[RouteFact], pods: &PodAddresses) {
        let pairs: BTreeMap<u32, &str> = links
            .iter()
            .filter(|link| link.is_pair && link.peer_is_elsewhere)
            .map(|link| (link.index, link.name.as_str()))
            .collect();
        self.0.retain(|index, owner| pairs.get(index).is_some_and(|name| *name == owner.link));
        for route in routes {
            if let Way::Direct(index) = route.way
                && route.destination.prefix_len() == route.destination.max_prefix_len()
                && let (Some(name), Some(pod)) = (pairs.get(&index), pods.get(&route.destination.addr()))
            {
                self.found(index, name, pod, pods);
            }
        }
    }

    /// Pods' addresses that were found behind pod links.
    pub(super) fn learn_addresses(&mut self, local: &LocalLinks, pods: &PodAddresses) {
        for (addr, index) in &local.addresses {
            if let (Some(link), Some(pod)) = (local.links.get(index), pods.get(addr)) {
                self.found(*index, &link.name, pod, pods);
            }
        }
    }

    fn found(&mut self, index: u32, link: &str, pod: &str, pods: &PodAddresses) {
        let owner = || Owner { link: link.to_owned(), pod: pod.to_owned() };
        let known = self.0.entry(index).or_insert_with(owner);
        // The first one stays as long as it exists.
        if !pods.values().any(|named| *named == known.pod) {
            *known = owner();
        }
    }
}
