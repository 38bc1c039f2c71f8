//! Behind which pod link an address is. Pure: opens no socket.
//!
//! A pod's claims about itself (ARP, neighbour discovery, the link address of its packets) are believed only as far as
//! they take nothing from others:
//!
//! - A host route that ends in a pod link counts more than any claim on the wire.
//! - An address is behind a pod link only if the node's own route for it leads to that link or to its master. So no pod
//!   becomes another node's pod, or a gateway.
//! - The node's own addresses are behind no pod link.
//! - A link has one pod, and a pod one link. Behind the link of a known pod are that pod's addresses only. Any other
//!   address that the pod claims is ignored: packets from it are spoofed, and lbr looks for the pod to which the API
//!   gives the address.
//! - A link whose pod is not known yet has the first few addresses that are claimed there ([`CLAIMS`] of each family).
//!   When the API names several pods among them, the first one claimed is the link's.
//! - An address stays where it was as long as its link exists and no rule above contradicts it: a pod's address even
//!   when the neighbour tables forget it, any other as long as it is claimed. So a pod that answers for its neighbour
//!   does not take the address away, and invented addresses do not pile up. The price: a pod that is not known yet
//!   keeps an address that it was the first to claim, even if the API gives it to another pod, until the API has that
//!   pod no more.
//!
//! [`CLAIMS`]: super::known::CLAIMS

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use lbr_common::addr::Family;

use super::known::Known;
use super::select::LinkFact;
use crate::node::links::{LocalLinks, PodAddresses};

/// A link-layer address.
pub(super) type Mac = [u8; 6];

/// A neighbour that answers, or did when last probed.
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

    /// Forgets a fact, unless another one has replaced it.
    pub(super) fn remove(&mut self, fact: NeighbourFact) {
        if self.contains(fact) {
            match fact {
                NeighbourFact::Address(device, addr, _) => drop(self.addresses.remove(&(device, addr))),
                NeighbourFact::Port(bridge, vlan, mac, _) => drop(self.ports.remove(&(bridge, mac, vlan))),
            }
        }
    }

    /// Forgets an address with any link-layer address.
    pub(super) fn remove_address(&mut self, device: u32, addr: IpAddr) {
        self.addresses.remove(&(device, addr));
    }

    pub(super) fn mac(&self, device: u32, addr: IpAddr) -> Option<Mac> {
        self.addresses.get(&(device, addr)).copied()
    }

    /// The addresses with this link-layer address on an interface.
    pub(super) fn of_mac(&self, device: u32, mac: Mac) -> impl Iterator<Item = IpAddr> {
        let (first, last) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));
        let all = self.addresses.range((device, first)..=(device, last));
        all.filter(move |(_, known)| **known == mac).map(|((_, addr), _)| *addr)
    }

    pub(super) fn contains(&self, fact: NeighbourFact) -> bool {
        match fact {
            NeighbourFact::Address(device, addr, mac) => self.addresses.get(&(device, addr)) == Some(&mac),
            NeighbourFact::Port(bridge, vlan, mac, port) => {
                self.ports.get(&(bridge, mac, vlan)) == Some(&port)
            }
        }
    }

    /// The port through which the bridge reaches a link-layer address; `None` if VLANs disagree.
    pub(super) fn port(&self, bridge: u32, mac: Mac) -> Option<u32> {
        let mut ports = self.ports.range((bridge, mac, 0)..=(bridge, mac, u16::MAX)).map(|(_, port)| *port);
        let first = ports.next()?;
        ports.all(|port| port == first).then_some(first)
    }
}

/// The places where addresses can be.
pub(super) struct Places<'a> {
    local: &'a LocalLinks,
    /// Pod link → its master.
    masters: BTreeMap<u32, u32>,
    /// Families and lengths of the routes' prefixes, the longest first.
    lengths: Vec<(Family, u8)>,
}

impl<'a> Places<'a> {
    /// `local` must be complete but for [`LocalLinks::addresses`].
    pub(super) fn new(local: &'a LocalLinks, links: &[LinkFact]) -> Self {
        let masters = links
            .iter()
            .filter(|link| local.links.contains_key(&link.index))
            .filter_map(|link| Some((link.index, link.master?)))
            .collect();
        let lengths: BTreeSet<(Family, u8)> =
            local.routes.keys().map(|net| (Family::of(net.addr()), net.prefix_len())).collect();
        Self { local, masters, lengths: lengths.into_iter().rev().collect() }
    }

    /// [`LocalLinks::addresses`], from the picture before and the addresses of this node's pods. Results go into
    /// `known`, after a call of [`Known::begin`].
    pub(super) fn addresses(
        &self,
        neighbours: &Neighbours,
        before: &LocalLinks,
        pods: &PodAddresses,
        known: &mut Known,
    ) -> BTreeMap<IpAddr, u32> {
        let claims = self.claims(neighbours);
        let mut addresses = self.host_routes();
        addresses.retain(|addr, _| !self.local.node_addresses.contains(addr));
        let stays = |addr: IpAddr, link: u32| self.is_same_link(link, before) && self.leads_to(addr, link);
        let remembered = before.addresses.iter().filter(|(addr, link)| stays(**addr, **link));
        // The oldest first. Addresses that are remembered without a claim were a pod's.
        let mut claimed = known.take_claims();
        claimed.retain(|(link, addr)| stays(*addr, *link));
        let were_claimed: BTreeSet<IpAddr> = claimed.iter().map(|(_, addr)| *addr).collect();
        let of_pods =
            remembered.filter(|(addr, _)| !were_claimed.contains(addr)).map(|(addr, link)| (*link, *addr));
        let old: Vec<(u32, IpAddr)> = of_pods.chain(claimed.iter().copied()).collect();
        let new = || claims.iter().map(|(addr, link)| (*link, *addr));
        for (link, addr) in old.iter().copied().chain(new()) {
            if let Some(pod) = pods.get(&addr)
                && !addresses.contains_key(&addr)
                && known.may_be(link, pod)
            {
                known.found(link, pod);
                addresses.insert(addr, link);
            }
        }
        let is_claimed = |addr: &IpAddr| claims.contains_key(addr);
        for (link, addr) in old.into_iter().filter(|(_, addr)| is_claimed(addr)).chain(new()) {
            let is_free = !pods.contains_key(&addr) && !addresses.contains_key(&addr);
            if is_free && known.claim(link, addr) {
                addresses.insert(addr, link);
            }
        }
        addresses
    }

    /// Whether any pod link claims the address.
    pub(super) fn is_claimed(&self, neighbours: &Neighbours, device: u32, addr: IpAddr) -> bool {
        let mac = neighbours.mac(device, addr);
        mac.is_some_and(|mac| self.link(neighbours, device, mac).is_some())
    }

    /// The pod link with this link-layer address behind it.
    fn link(&self, neighbours: &Neighbours, device: u32, mac: Mac) -> Option<u32> {
        if self.local.links.contains_key(&device) {
            return Some(device);
        }
        neighbours.port(device, mac).filter(|port| self.masters.get(port) == Some(&device))
    }

    /// Pods' addresses that are behind no known link, and the interface on which they should answer.
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

    /// The present claims in the tables.
    fn claims(&self, neighbours: &Neighbours) -> BTreeMap<IpAddr, u32> {
        let mut claims = BTreeMap::new();
        for ((device, addr), mac) in &neighbours.addresses {
            if let Some(link) = self.link(neighbours, *device, *mac)
                && !self.local.node_addresses.contains(addr)
                && self.device(*addr) == Some(*device)
            {
                claims.insert(*addr, link);
            }
        }
        claims
    }

    /// Whether the index still belongs to the same interface.
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
        let lengths = self.lengths.iter().filter(|(family, _)| *family == Family::of(addr));
        let mut routes = lengths.filter_map(|(_, length)| {
            let net = IpNet::new(addr, *length).ok()?.trunc();
            self.local.routes.get(&net).copied()
        });
        routes.next().filter(|device| *device != 0)
    }
}

#[cfg(test)]
mod tests;
