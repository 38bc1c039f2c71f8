//! Behind which pod link an address is: pure, no socket is opened here.
//!
//! What a pod says of itself (ARP, neighbour discovery, the link address it sends from) is believed only as
//! far as it takes nothing from others:
//!
//! - A host route that ends in a pod link counts more than anything said on the wire.
//! - An address is behind a pod link only if the node's own route for it leads to that link or to its master.
//!   So no pod becomes another node's pod, or a gateway.
//! - The node's own addresses are behind none.
//! - What was known stays as long as its link exists and nothing above speaks against it: for a pod's address
//!   even when the neighbour tables forget it, for any other as long as some neighbour is said to have it. So
//!   a pod that answers for its neighbour does not take the address away, and what pods invent does not pile
//!   up. The price: the first one to claim an address keeps it until its link goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::select::LinkFact;
use super::{LocalLinks, PodAddresses};

/// A link-layer address.
pub(super) type Mac = [u8; 6];

/// A neighbour that answers, or did when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NeighbourFact {
    /// The address has this link-layer address on this interface.
    Address(u32, IpAddr, Mac),
    /// The bridge sends to this link-layer address through this port: bridge, VLAN, address, port.
    Port(u32, u16, Mac, u32),
}

/// The neighbour tables and the forwarding tables of all bridges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbours {
    /// Interface and address → link-layer address.
    addresses: BTreeMap<(u32, IpAddr), Mac>,
    /// Bridge, link-layer address and VLAN → port.
    ports: BTreeMap<(u32, Mac, u16), u32>,
}

impl Neighbours {
    pub(super) fn insert(&mut self, fact: NeighbourFact) {
        match fact {
            NeighbourFact::Address(device, addr, mac) => {
                self.addresses.insert((device, addr), mac);
            }
            NeighbourFact::Port(bridge, vlan, mac, port) => {
                self.ports.insert((bridge, mac, vlan), port);
            }
        }
    }

    pub(super) fn contains(&self, fact: NeighbourFact) -> bool {
        match fact {
            NeighbourFact::Address(device, addr, mac) => self.addresses.get(&(device, addr)) == Some(&mac),
            NeighbourFact::Port(bridge, vlan, mac, port) => {
                self.ports.get(&(bridge, mac, vlan)) == Some(&port)
            }
        }
    }

    pub(super) fn has_address(&self, device: u32, addr: IpAddr) -> bool {
        self.addresses.contains_key(&(device, addr))
    }

    /// The port through which the bridge reaches a link-layer address; none if VLANs disagree.
    fn port(&self, bridge: u32, mac: Mac) -> Option<u32> {
        let mut ports = self.ports.range((bridge, mac, 0)..=(bridge, mac, u16::MAX)).map(|(_, port)| *port);
        let first = ports.next()?;
        ports.all(|port| port == first).then_some(first)
    }
}

/// Where addresses can be.
pub(super) struct Places<'a> {
    local: &'a LocalLinks,
    /// Pod link → its master.
    masters: BTreeMap<u32, u32>,
    /// Lengths of the routes' prefixes, the longest first: family and length.
    lengths: Vec<(bool, u8)>,
}

impl<'a> Places<'a> {
    /// `local` must be complete but for [`LocalLinks::addresses`].
    pub(super) fn new(local: &'a LocalLinks, links: &[LinkFact]) -> Self {
        let masters = links
            .iter()
            .filter(|link| local.links.contains_key(&link.index))
            .filter_map(|link| Some((link.index, link.master?)))
            .collect();
        let lengths: BTreeSet<(bool, u8)> =
            local.routes.keys().map(|net| (net.addr().is_ipv4(), net.prefix_len())).collect();
        Self { local, masters, lengths: lengths.into_iter().rev().collect() }
    }

    /// [`LocalLinks::addresses`], given the picture before and the addresses of this node's pods.
    pub(super) fn addresses(
        &self,
        neighbours: &Neighbours,
        before: &LocalLinks,
        pods: &PodAddresses,
    ) -> BTreeMap<IpAddr, u32> {
        let claims = self.claims(neighbours);
        let mut addresses = self.host_routes();
        for (addr, link) in &before.addresses {
            let is_remembered = claims.contains_key(addr) || pods.contains_key(addr);
            if is_remembered && self.is_same_link(*link, before) && self.leads_to(*addr, *link) {
                addresses.entry(*addr).or_insert(*link);
            }
        }
        for (addr, link) in claims {
            addresses.entry(addr).or_insert(link);
        }
        addresses.retain(|addr, _| !self.local.node_addresses.contains(addr));
        addresses
    }

    /// Pods' addresses that are behind no known link, and the interface on which they would answer.
    pub(super) fn unknown<'p>(
        &self,
        addresses: &BTreeMap<IpAddr, u32>,
        pods: &'p PodAddresses,
    ) -> impl Iterator<Item = (IpAddr, u32)> + use<'_, 'a, 'p> {
        let known: BTreeSet<IpAddr> = addresses.keys().copied().collect();
        pods.keys().filter_map(move |addr| {
            let is_settled = known.contains(addr) || self.local.node_addresses.contains(addr);
            let device = self.device(*addr).filter(|_| !is_settled)?;
            let leads_to_pods =
                self.local.links.contains_key(&device) || self.masters.values().any(|m| *m == device);
            leads_to_pods.then_some((*addr, device))
        })
    }

    fn host_routes(&self) -> BTreeMap<IpAddr, u32> {
        let is_host = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        let routes = self.local.routes.iter().filter(|(net, _)| is_host(net));
        let routes = routes.filter(|(_, link)| self.local.links.contains_key(link));
        routes.map(|(net, link)| (net.addr(), *link)).collect()
    }

    /// What the tables say now.
    fn claims(&self, neighbours: &Neighbours) -> BTreeMap<IpAddr, u32> {
        let mut claims = BTreeMap::new();
        for ((device, addr), mac) in &neighbours.addresses {
            let link = if self.local.links.contains_key(device) {
                Some(*device)
            } else {
                neighbours.port(*device, *mac).filter(|port| self.masters.get(port) == Some(device))
            };
            if let Some(link) = link
                && self.device(*addr) == Some(*device)
            {
                claims.insert(*addr, link);
            }
        }
        claims
    }

    /// Whether the index still means the same interface.
    fn is_same_link(&self, link: u32, before: &LocalLinks) -> bool {
        match (self.local.links.get(&link), before.links.get(&link)) {
            (Some(now), Some(then)) => now.name == then.name,
            _ => false,
        }
    }

    fn leads_to(&self, addr: IpAddr, link: u32) -> bool {
        let device = self.device(addr);
        device.is_some() && (device == Some(link) || device == self.masters.get(&link).copied())
    }

    /// The interface on which the address itself answers, by the longest match.
    fn device(&self, addr: IpAddr) -> Option<u32> {
        let lengths = self.lengths.iter().filter(|(is_v4, _)| *is_v4 == addr.is_ipv4());
        let mut routes = lengths.filter_map(|(_, length)| {
            let net = IpNet::new(addr, *length).ok()?.trunc();
            self.local.routes.get(&net).copied()
        });
        routes.next().filter(|device| *device != 0)
    }
}

#[cfg(test)]
mod tests;
