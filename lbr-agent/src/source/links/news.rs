//! What an event means: the facts that it changes, and whether these can change the picture. Pure.
//!
//! Most events change nothing: a neighbour that is confirmed, and whatever a known pod claims. An event of a neighbour
//! says all that there is to know, so nothing is read because of it.

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
use super::{LocalLinks, PodAddresses};

/// What the kernel says.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) links: Vec<LinkFact>,
    pub(super) routes: Vec<RouteFact>,
    pub(super) node_addresses: BTreeSet<IpAddr>,
    pub(super) addresses: Vec<AddressFact>,
    pub(super) neighbours: Neighbours,
}

/// What is known when an event comes.
#[derive(Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) local: &'a LocalLinks,
    pub(super) known: &'a Known,
    pub(super) pods: &'a PodAddresses,
}

/// What to do because of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// The picture may be another one, by what is claimed at this link.
    Claims(u32),
    /// There is another interface, or it is something else now. More is to be read.
    Link(u32),
    /// Everything is to be read, because of this interface; 0: of none in particular.
    Everything(u32),
}

impl Facts {
    /// Takes the event in.
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
        // A bridge speaks of its port, and does not say all.
        if message.header.interface_family == AddressFamily::Bridge {
            return News::Everything(index);
        }
        let fact = link_fact(message);
        match self.links.iter_mut().find(|known| known.index == index) {
            // Down, or up again. The kernel does not tell of all routes that go by that.
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
        // It does not answer any more, or is gone in a state that says nothing of where it was.
        let is_fact_of_address = matches!(fact, Some(NeighbourFact::Address(..)));
        if (fact.is_none() || !is_there && is_fact_of_address)
            && let Some((device, addr)) = neighbour_key(entry)
        {
            self.neighbours.remove_address(device, addr);
        }
        let link = before.or_else(|| self.concern(fact, entry, picture));
        link.map_or(News::None, News::Claims)
    }

    /// The link, if what the neighbour tables say of an entry now can make a difference to the picture.
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
    /// As [`super::addresses::Places::link`], for one question.
    fn pod_link(&self, local: &LocalLinks, device: u32, mac: Mac) -> Option<u32> {
        if local.links.contains_key(&device) {
            return Some(device);
        }
        let port = self.neighbours.port(device, mac).filter(|port| local.links.contains_key(port))?;
        self.links.iter().any(|link| link.index == port && link.master == Some(device)).then_some(port)
    }
}

impl Picture<'_> {
    /// The link, if it makes a difference that this one claims the address, or that none does.
    fn concern(&self, addr: IpAddr, claims: Option<u32>) -> Option<u32> {
        match (self.local.addresses.get(&addr), self.pods.get(&addr)) {
            // A pod's address stays where it is. Any other goes when nobody claims it any more.
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
