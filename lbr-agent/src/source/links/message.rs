//! Converts netlink messages to facts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};

use super::addresses::{Mac, NeighbourFact};
use super::select::{AddressFact, LinkFact, RouteFact, Way};

pub(super) fn link_fact(message: &LinkMessage) -> LinkFact {
    let mut fact = LinkFact {
        index: message.header.index,
        name: String::new(),
        is_pair: false,
        is_bridge: false,
        peer_is_elsewhere: false,
        master: None,
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => fact.name.clone_from(name),
            LinkAttribute::Controller(index) => fact.master = (*index != 0).then_some(*index),
            LinkAttribute::LinkNetNsId(_) => fact.peer_is_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                let is_pair = |i: &LinkInfo| matches!(i, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit));
                fact.is_pair = infos.iter().any(is_pair);
                fact.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    fact
}

/// The fact, if the route is of the main table and packets to other machines or pods can take it.
pub(super) fn route_fact(message: &RouteMessage) -> Option<RouteFact> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut metric = 0;
    let mut destination = unspecified(header.address_family)?;
    let mut interface = None;
    let mut has_gateway = false;
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => has_gateway = true,
            RouteAttribute::MultiPath(next) => hops.extend(next.iter().map(|hop| {
                let is_gateway =
                    |a: &RouteAttribute| matches!(a, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
                (hop.interface_index, hop.attributes.iter().any(is_gateway))
            })),
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => destination = IpAddr::V4(*addr),
            RouteAttribute::Destination(RouteAddress::Inet6(addr)) => destination = IpAddr::V6(*addr),
            _ => {}
        }
    }
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?.trunc();
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) || is_of_the_link(destination) {
        return None;
    }
    let gateways: Vec<u32> =
        hops.iter().filter(|(_, is_gateway)| *is_gateway).map(|(index, _)| *index).collect();
    let way = match (header.kind, interface) {
        (RouteType::Unicast, Some(index)) if has_gateway => Way::Gateways(vec![index]),
        (RouteType::Unicast, Some(index)) => Way::Direct(index),
        (RouteType::Unicast, None) if !gateways.is_empty() => Way::Gateways(gateways),
        (
            RouteType::Unicast
            | RouteType::BlackHole
            | RouteType::Unreachable
            | RouteType::Prohibit
            | RouteType::Throw,
            _,
        ) => Way::Other,
        _ => return None,
    };
    Some(RouteFact { destination, metric, way })
}

fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}

/// Every interface has `fe80::/64`, which distinguishes none.
fn is_of_the_link(destination: IpNet) -> bool {
    matches!(destination.network(), IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// An address of the node. Loopback addresses are in every network namespace, so they do not count.
pub(super) fn node_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => found = Some(*addr),
            // On a point-to-point link this is the other end's, unless the message has no local address.
            AddressAttribute::Address(addr) => found = found.or(Some(*addr)),
            _ => {}
        }
    }
    found.filter(|addr| !addr.is_loopback())
}

/// The fact, if other hosts can reach the node by this address and it is certainly its own: a tentative one may turn
/// out to be another host's.
pub(super) fn address_fact(message: &AddressMessage) -> Option<AddressFact> {
    const UNSURE: AddressHeaderFlags = AddressHeaderFlags::Tentative
        .union(AddressHeaderFlags::Deprecated)
        .union(AddressHeaderFlags::Dadfailed);
    let is_unsure = message.header.flags.intersects(UNSURE);
    let addr = node_address(message).filter(|addr| !is_unsure && !is_link_local(*addr))?;
    let full = if addr.is_ipv4() { 32 } else { 128 };
    let is_settled = addr.is_ipv4() || message.header.flags.contains(AddressHeaderFlags::Permanent);
    let is_of_subnet =
        is_settled && message.header.scope == AddressScope::Universe && message.header.prefix_len < full;
    Some(AddressFact { index: message.header.index, addr, is_of_subnet })
}

/// The fact, if the neighbour's address may count and its link-layer address is usable.
pub(super) fn neighbour_fact(message: &NeighbourMessage) -> Option<NeighbourFact> {
    let header = &message.header;
    let (mut addr, mut mac, mut bridge, mut vlan) = (None, None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => addr = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => addr = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = Mac::try_from(bytes.as_slice()).ok(),
            NeighbourAttribute::Controller(index) => bridge = Some(*index),
            NeighbourAttribute::Vlan(id) => vlan = *id,
            _ => {}
        }
    }
    if header.family == AddressFamily::Bridge {
        // Permanent entries are the ports' own addresses. Entries without a bridge are an interface's own filter.
        let is_own = header.state == NeighbourState::Permanent;
        return if is_own { None } else { Some(NeighbourFact::Port(bridge?, vlan, mac?, header.ifindex)) };
    }
    let is_usable = matches!(
        header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    let addr = addr.filter(|addr| is_usable && !is_link_local(*addr))?;
    Some(NeighbourFact::Address(header.ifindex, addr, mac?))
}

/// Interface and address of an entry in a neighbour table, in any state.
pub(super) fn neighbour_key(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
            Some((message.header.ifindex, IpAddr::V4(*v4)))
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
            Some((message.header.ifindex, IpAddr::V6(*v6)))
        }
        _ => None,
    })
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
