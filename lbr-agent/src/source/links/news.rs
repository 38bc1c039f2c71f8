//! The meaning of an event: which facts it changes, and whether these can change the picture. Pure.
//!
//! Most events change nothing: confirmed neighbours, and claims of a known pod. An event of a neighbour is complete, so
//! it causes no reading.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::addresses::{Mac, NeighbourFact, Neighbours};
use super::known::Known;
use super::message::{link_fact, neighbour_fact, neighbour_key};
use super::select::{AddressFact, LinkFact, RouteFact};
use crate::node::links::{LocalLinks, PodAddresses};

/// Facts from the kernel.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) links: Vec<LinkFact>,
    pub(super) routes: Vec<RouteFact>,
    pub(super) node_addresses: BTreeSet<IpAddr>,
    pub(super) addresses: Vec<AddressFact>,
    pub(super) neighbours: Neighbours,
}

/// The state when an event arrives.
#[derive(Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) local: &'a LocalLinks,
    pub(super) known: &'a Known,
    pub(super) pods: &'a PodAddresses,
}

/// What an event requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// The claims at this link may change the picture.
    Claims(u32),
    /// An interface is new, or has changed. More must be read.
    Link(u32),
    /// Everything must be read, because of this interface; 0: of none in particular.
    Everything(u32),
}

impl Facts {
    /// Takes in an event.
    pub(super) fn take(
        &mut self,
        payload: &NetlinkPayload<RouteNetlinkMessage>,
        picture: Picture<'_>,
    ) -> News {
        let NetlinkPayload::InnerMessage(message) = payload else {
            // Events were lost.
            return News::Everything(0);
        };
        match message {
            RouteNetlinkMessage::NewNeighbour(entry) => self.neighbour(entry, true, picture),
            RouteNetlinkMessage::DelNeighbour(entry) => self.neighbour(entry, false, picture),
            RouteNetlinkMessage::NewLink(link) => self.link(link),
            RouteNetlinkMessage::DelLink(link) => News::Everything(link.header.index),
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                News::Everything(interface(route))
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                News::Everything(address.header.index)
            }
            _ => News::Everything(0),
        }
    }

    fn link(&mut self, message: &LinkMessage) -> News {
        let index = message.header.index;
        // A bridge's message about its port is incomplete.
        if message.header.interface_family == AddressFamily::Bridge {
            return News::Everything(index);
        }
        let fact = link_fact(message);
        match self.links.iter_mut().find(|known| known.index == index) {
            // The interface went down or up. The kernel does not report all routes that this removes.
            Some(known) if *known == fact => return News::Everything(index),
            Some(known) => *known = fact,
            None => self.links.push(fact),
        }
        News::Link(index)
    }

    fn neighbour(&mut self, entry: &NeighbourMessage, is_there: bool, picture: Picture<'_>) -> News {
        let fact = neighbour_fact(entry);
        if fact.is_some_and(|fact| is_there == self.neighbours.contains(fact)) {
            return News::None;
        }
        let before = self.concern(fact, entry, picture);
        match fact {
            Some(fact) if is_there => self.neighbours.insert(fact),
            Some(fact) => self.neighbours.remove(fact),
            None => {}
        }
        // The neighbour does not answer any more, or is gone in a state without a link-layer address.
        let is_fact_of_address = matches!(fact, Some(NeighbourFact::Address(..)));
        if (fact.is_none() || !is_there && is_fact_of_address)
            && let Some((device, addr)) = neighbour_key(entry)
        {
            self.neighbours.remove_address(device, addr);
        }
        let link = before.or_else(|| self.concern(fact, entry, picture));
        link.map_or(News::None, News::Claims)
    }

    /// The link, if the present entries of the neighbour tables can change the picture.
    fn concern(
        &self,
        fact: Option<NeighbourFact>,
        entry: &NeighbourMessage,
        picture: Picture<'_>,
    ) -> Option<u32> {
        let of_address = |device: u32, addr: IpAddr, mac: Option<Mac>| {
            let claims = mac.and_then(|mac| self.pod_link(picture.local, device, mac));
            picture.concern(addr, claims)
        };
        match fact {
            Some(NeighbourFact::Port(bridge, _, mac, _)) => {
                let mut addresses = self.neighbours.of_mac(bridge, mac);
                addresses.find_map(|addr| of_address(bridge, addr, Some(mac)))
            }
            _ => {
                let (device, addr) = neighbour_key(entry)?;
                of_address(device, addr, self.neighbours.mac(device, addr))
            }
        }
    }
}

impl Facts {
    /// As [`super::addresses::Places::link`], for a single address.
    fn pod_link(&self, local: &LocalLinks, device: u32, mac: Mac) -> Option<u32> {
        if local.links.contains_key(&device) {
            return Some(device);
        }
        let port = self.neighbours.port(device, mac).filter(|port| local.links.contains_key(port))?;
        self.links.iter().any(|link| link.index == port && link.master == Some(device)).then_some(port)
    }
}

impl Picture<'_> {
    /// The link, if this claim, or the lack of one, changes the picture.
    fn concern(&self, addr: IpAddr, claims: Option<u32>) -> Option<u32> {
        match (self.local.addresses.get(&addr), self.pods.get(&addr)) {
            // A pod's address stays where it is. Any other goes when it is not claimed any more.
            (Some(_), Some(_)) => None,
            (Some(link), None) => claims.is_none().then_some(*link),
            (None, Some(pod)) => claims.filter(|link| self.known.may_be(*link, pod)),
            (None, None) => claims.filter(|link| self.known.may_claim(*link, addr)),
        }
    }
}

/// The first interface that a route leads to; 0 if none.
fn interface(route: &RouteMessage) -> u32 {
    let first = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
        _ => None,
    });
    first.unwrap_or(0)
}

#[cfg(test)]
mod tests;
