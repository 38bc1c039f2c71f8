//! Which pod is behind which link, and the claims of links without a known pod, remembered from picture to picture.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::select::{LinkFact, RouteFact, Way};
use crate::node::links::PodAddresses;

/// Addresses of each family that a link may claim before its pod is known.
pub(super) const CLAIMS: usize = 8;

/// Known pods and claims of veths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known(BTreeMap<u32, KnownLink>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KnownLink {
    /// Name of the interface: another interface may get the index.
    name: String,
    /// A pod is or was known behind it.
    is_pods: bool,
    /// The pod behind it, as long as the API has it.
    pod: Option<String>,
    /// Claimed addresses that no pod has, the oldest claim first.
    claims: Vec<IpAddr>,
}

impl Known {
    /// Whether a pod is, or was, known behind the link.
    pub(super) fn has_pod(&self, index: u32, name: &str) -> bool {
        self.0.get(&index).is_some_and(|link| link.is_pods && link.name == name)
    }

    /// Whether a claim at the link may be this pod's address. A pod has one link, a link has one pod.
    pub(super) fn may_be(&self, index: u32, pod: &str) -> bool {
        match self.0.get(&index).and_then(|link| link.pod.as_deref()) {
            Some(known) => known == pod,
            None => self.0.values().all(|link| link.pod.as_deref() != Some(pod)),
        }
    }

    /// Whether the link may claim one more address that no pod has.
    pub(super) fn may_claim(&self, index: u32, addr: IpAddr) -> bool {
        self.0.get(&index).is_none_or(|link| {
            let of_family = link.claims.iter().filter(|claim| claim.is_ipv4() == addr.is_ipv4());
            link.pod.is_none() && of_family.count() < CLAIMS
        })
    }

    /// Takes the present links and pods, then looks for host routes: these are the node's own configuration, so an
    /// interface's past does not matter.
    pub(super) fn begin(&mut self, links: &[LinkFact], routes: &[RouteFact], pods: &PodAddresses) {
        let mut old = std::mem::take(&mut self.0);
        for link in links.iter().filter(|link| link.is_pair) {
            let known = old.remove(&link.index).filter(|known| known.name == link.name);
            let new = || KnownLink { name: link.name.clone(), ..KnownLink::default() };
            self.0.insert(link.index, known.unwrap_or_else(new));
        }
        let named: BTreeSet<&str> = pods.values().map(String::as_str).collect();
        for link in self.0.values_mut() {
            link.pod.take_if(|pod| !named.contains(pod.as_str()));
        }
        for route in routes {
            if let Way::Direct(index) = route.way
                && route.destination.prefix_len() == route.destination.max_prefix_len()
                && let Some(pod) = pods.get(&route.destination.addr())
            {
                self.found(index, pod);
            }
        }
    }

    /// Records that a pod's address is behind the link. The first pod stays as long as the API has it.
    pub(super) fn found(&mut self, index: u32, pod: &str) {
        if let Some(link) = self.0.get_mut(&index) {
            link.is_pods = true;
            link.pod.get_or_insert_with(|| pod.to_owned());
        }
    }

    /// Takes out all claims: links and addresses, each link's in their order.
    pub(super) fn take_claims(&mut self) -> Vec<(u32, IpAddr)> {
        let links = self.0.iter_mut();
        let claims = links.map(|(index, link)| (*index, std::mem::take(&mut link.claims)));
        claims.flat_map(|(index, claims)| claims.into_iter().map(move |addr| (index, addr))).collect()
    }

    /// Records a claim at the link of an address that no pod has. False if the link may claim no more.
    pub(super) fn claim(&mut self, index: u32, addr: IpAddr) -> bool {
        let may = self.may_claim(index, addr);
        if may && let Some(link) = self.0.get_mut(&index) {
            link.claims.push(addr);
        }
        may
    }
}
