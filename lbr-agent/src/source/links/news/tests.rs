use std::net::Ipv4Addr;

use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState};

use super::*;
use crate::node::links::{LocalLink, PodAddresses};
use crate::source::links::known::CLAIMS;

const BRIDGE: u32 = 3;
/// Ports of the bridge: one with a known pod, one without.
const KNOWN: u32 = 5;
const PENDING: u32 = 6;

struct World {
    facts: Facts,
    local: LocalLinks,
    known: Known,
    pods: PodAddresses,
}

impl World {
    fn new() -> Self {
        let link = |index: u32, is_pair| LinkFact {
            index,
            name: format!("link{index}"),
            is_pair,
            is_bridge: !is_pair,
            peer_is_elsewhere: is_pair,
            master: is_pair.then_some(BRIDGE),
            is_ethernet: true,
        };
        let links = vec![link(BRIDGE, false), link(KNOWN, true), link(PENDING, true)];
        let of_pods =
            |index: u32| (index, LocalLink { name: format!("link{index}"), master: Some(9), has_peer: true });
        let mut known = Known::default();
        let pods = [pod(KNOWN, 1), pod(PENDING, 9)].map(|addr| (addr, format!("ns/{addr}")));
        let pods = PodAddresses::from(pods);
        known.begin(&links, &[], &pods);
        known.found(KNOWN, &pods[&pod(KNOWN, 1)]);
        let local = LocalLinks {
            links: [KNOWN, PENDING].map(of_pods).into(),
            addresses: [(pod(KNOWN, 1), KNOWN)].into(),
            ..LocalLinks::default()
        };
        let mut world = Self { facts: Facts { links, ..Facts::default() }, local, known, pods };
        for port in [KNOWN, PENDING] {
            world.take(RouteNetlinkMessage::NewNeighbour(at_port(port)));
        }
        world.take(RouteNetlinkMessage::NewNeighbour(claim(KNOWN, 1, NeighbourState::Reachable)));
        world
    }

    fn take(&mut self, message: RouteNetlinkMessage) -> News {
        let picture = Picture { local: &self.local, known: &self.known, pods: &self.pods };
        self.facts.take(&NetlinkPayload::InnerMessage(message), picture)
    }
}

fn pod(of: u32, last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, of as u8, last).into()
}

/// An event of a neighbour on the bridge with the link address of a port's pod.
fn claim(port: u32, last: u8, state: NeighbourState) -> NeighbourMessage {
    let IpAddr::V4(addr) = pod(port, last) else { unreachable!() };
    let mut message = NeighbourMessage::default();
    (message.header.family, message.header.ifindex) = (AddressFamily::Inet, BRIDGE);
    message.header.state = state;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, port as u8]),
        NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)),
    ];
    message
}

fn at_port(port: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    (message.header.family, message.header.ifindex) = (AddressFamily::Bridge, port);
    message.header.state = NeighbourState::Reachable;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, port as u8]),
        NeighbourAttribute::Controller(BRIDGE),
    ];
    message
}

#[test]
fn only_what_can_change_the_picture_is_news() {
    use NeighbourState::{Failed, Incomplete, Reachable, Stale};
    use RouteNetlinkMessage::{DelNeighbour, NewNeighbour};
    let mut world = World::new();
    for (what, message, expected) in [
        ("still there", NewNeighbour(claim(KNOWN, 1, Stale)), News::None),
        ("is asked for", NewNeighbour(claim(PENDING, 2, Incomplete)), News::None),
        ("never answered", NewNeighbour(claim(PENDING, 2, Failed)), News::None),
        ("removed, not known", DelNeighbour(claim(PENDING, 2, Failed)), News::None),
        ("a pod that is not known yet", NewNeighbour(claim(PENDING, 2, Reachable)), News::Claims(PENDING)),
        ("again", NewNeighbour(claim(PENDING, 2, Stale)), News::None),
        ("a pod's that is looked for", NewNeighbour(claim(PENDING, 9, Reachable)), News::Claims(PENDING)),
        ("a known pod claims another address", NewNeighbour(claim(KNOWN, 2, Reachable)), News::None),
        ("it is forgotten", DelNeighbour(claim(KNOWN, 2, Stale)), News::None),
        ("a known pod is silent", NewNeighbour(claim(KNOWN, 1, Failed)), News::None),
        ("same port", NewNeighbour(at_port(PENDING)), News::None),
        ("removed from its port", DelNeighbour(at_port(PENDING)), News::Claims(PENDING)),
        ("at its port again", NewNeighbour(at_port(PENDING)), News::Claims(PENDING)),
        ("removed", DelNeighbour(claim(PENDING, 2, Stale)), News::Claims(PENDING)),
    ] {
        assert_eq!(world.take(message), expected, "{what}");
    }
    // An address in the picture is news when it goes, not before.
    assert_eq!(world.take(NewNeighbour(claim(PENDING, 3, Reachable))), News::Claims(PENDING));
    world.local.addresses.insert(pod(PENDING, 3), PENDING);
    let mut moved = claim(PENDING, 3, Reachable);
    moved.attributes[0] = NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, KNOWN as u8]);
    assert_eq!(world.take(NewNeighbour(moved)), News::None, "another pod claims it");
    assert_eq!(world.take(NewNeighbour(claim(PENDING, 3, Failed))), News::Claims(PENDING));
    // A claim beyond the limit is no news.
    let claims = (20..).take(CLAIMS);
    claims.for_each(|last| assert!(world.known.claim(PENDING, pod(PENDING, last))));
    assert_eq!(world.take(NewNeighbour(claim(PENDING, 4, Reachable))), News::None);
    // Nor is a claim of a known pod's address.
    assert_eq!(world.take(DelNeighbour(at_port(KNOWN))), News::None);
}

#[test]
fn an_interface_that_comes_is_known_before_everything_is_read() {
    let mut world = World::new();
    let mut message = LinkMessage::default();
    message.header.index = 8;
    message.attributes = vec![LinkAttribute::IfName("veth8".into())];
    let event = || RouteNetlinkMessage::NewLink(message.clone());
    assert_eq!(world.take(event()), News::Link(8));
    assert_eq!(world.facts.links.last().map(|link| link.name.as_str()), Some("veth8"));
    assert_eq!(world.take(event()), News::Everything(8), "set down or up");
    let mut port = message.clone();
    port.header.interface_family = AddressFamily::Bridge;
    port.attributes.clear();
    assert_eq!(world.take(RouteNetlinkMessage::NewLink(port)), News::Everything(8));
    assert_eq!(world.facts.links.last().map(|link| link.name.as_str()), Some("veth8"));
    message.attributes.push(LinkAttribute::Controller(BRIDGE));
    assert_eq!(world.take(RouteNetlinkMessage::NewLink(message)), News::Link(8));
    let lost = NetlinkPayload::Overrun(Vec::new());
    let picture = Picture { local: &world.local, known: &world.known, pods: &world.pods };
    assert_eq!(world.facts.take(&lost, picture), News::Everything(0));
}
