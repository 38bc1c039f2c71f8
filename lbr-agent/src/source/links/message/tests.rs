//! Messages as the kernel sends them.

use rtnetlink::packet_route::route::RouteNextHop;

use super::*;

#[test]
fn links_are_read() {
    let mut message = LinkMessage::default();
    message.header.index = 7;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.attributes = vec![
        LinkAttribute::IfName("veth7".into()),
        LinkAttribute::Controller(3),
        LinkAttribute::LinkNetNsId(0),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
    ];
    let expected = LinkFact {
        index: 7,
        name: "veth7".into(),
        is_pair: true,
        is_bridge: false,
        peer_is_elsewhere: true,
        master: Some(3),
        is_ethernet: true,
    };
    assert_eq!(link_fact(&message), expected);
    message.attributes = vec![
        LinkAttribute::IfName("br0".into()),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    let fact = link_fact(&message);
    assert_eq!(
        (fact.is_pair, fact.is_bridge, fact.peer_is_elsewhere, fact.master),
        (false, true, false, None)
    );
}

#[test]
fn routes_are_read() {
    let to = RouteAttribute::Destination(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 5)));
    let gateway = RouteAttribute::Gateway(RouteAddress::Inet(Ipv4Addr::new(10, 0, 0, 1)));
    let oif = RouteAttribute::Oif(5);
    let mut hop = RouteNextHop::default();
    hop.interface_index = 2;
    hop.attributes = vec![gateway.clone()];
    for (what, table, kind, attributes, expected) in [
        ("direct", 254, RouteType::Unicast, vec![to.clone(), oif.clone()], Some((0, Way::Direct(5)))),
        (
            "metric",
            254,
            RouteType::Unicast,
            vec![to.clone(), oif.clone(), RouteAttribute::Priority(9)],
            Some((9, Way::Direct(5))),
        ),
        (
            "gateway",
            254,
            RouteType::Unicast,
            vec![to.clone(), gateway, oif.clone()],
            Some((0, Way::Gateways(vec![5]))),
        ),
        (
            "several gateways",
            254,
            RouteType::Unicast,
            vec![to.clone(), RouteAttribute::MultiPath(vec![hop])],
            Some((0, Way::Gateways(vec![2]))),
        ),
        ("blackhole", 254, RouteType::BlackHole, vec![to.clone()], Some((0, Way::Other))),
        ("local", 255, RouteType::Local, vec![to.clone(), oif.clone()], None),
        (
            "other table",
            252,
            RouteType::Unicast,
            vec![to.clone(), oif.clone(), RouteAttribute::Table(1000)],
            None,
        ),
        ("broadcast", 254, RouteType::Broadcast, vec![to, oif], None),
    ] {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        (message.header.table, message.header.kind) = (table, kind);
        message.attributes = attributes;
        let fact = route_fact(&message);
        if let Some(fact) = &fact {
            assert_eq!(fact.destination.to_string(), "10.0.0.5/32", "{what}");
        }
        assert_eq!(fact.map(|f| (f.metric, f.way)), expected, "{what}");
    }
    let mut default = RouteMessage::default();
    default.header.address_family = AddressFamily::Inet6;
    (default.header.table, default.header.kind) = (254, RouteType::Unicast);
    default.attributes = vec![RouteAttribute::Oif(2)];
    assert_eq!(route_fact(&default).map(|f| f.destination.to_string()), Some("::/0".to_owned()));
    default.header.destination_prefix_length = 64;
    default.attributes.push(RouteAttribute::Destination(RouteAddress::Inet6("fe80::".parse().unwrap())));
    assert_eq!(route_fact(&default), None);
}

fn neighbour(
    family: AddressFamily,
    state: NeighbourState,
    attributes: Vec<NeighbourAttribute>,
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    (message.header.family, message.header.ifindex, message.header.state) = (family, 5, state);
    message.attributes = attributes;
    message
}

#[test]
fn neighbours_are_read() {
    let mac = [2, 0, 0, 0, 0, 1];
    let at = NeighbourAttribute::LinkLayerAddress(mac.to_vec());
    let v4 = NeighbourAttribute::Destination(NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 5)));
    let v6 = |text: &str| NeighbourAttribute::Destination(NeighbourAddress::Inet6(text.parse().unwrap()));
    let known = |text: &str| Some(NeighbourFact::Address(5, text.parse().unwrap(), mac));
    for (state, expected) in [
        (NeighbourState::Reachable, known("10.0.0.5")),
        (NeighbourState::Stale, known("10.0.0.5")),
        (NeighbourState::Delay, known("10.0.0.5")),
        (NeighbourState::Probe, known("10.0.0.5")),
        (NeighbourState::Permanent, known("10.0.0.5")),
        (NeighbourState::Incomplete, None),
        (NeighbourState::Failed, None),
        (NeighbourState::Noarp, None),
        (NeighbourState::None, None),
    ] {
        let message = neighbour(AddressFamily::Inet, state, vec![v4.clone(), at.clone()]);
        assert_eq!(neighbour_fact(&message), expected, "{state}");
        assert_eq!(neighbour_key(&message), Some((5, "10.0.0.5".parse().unwrap())), "{state}");
    }
    let reachable = |attributes| neighbour(AddressFamily::Inet6, NeighbourState::Reachable, attributes);
    assert_eq!(neighbour_fact(&reachable(vec![v6("fd00::5"), at.clone()])), known("fd00::5"));
    assert_eq!(neighbour_fact(&reachable(vec![v6("fe80::5"), at])), None);
    assert_eq!(neighbour_fact(&reachable(vec![v6("fd00::5")])), None);
}

#[test]
fn forwarding_entries_are_read() {
    let mac = [2, 0, 0, 0, 0, 1];
    let at = NeighbourAttribute::LinkLayerAddress(mac.to_vec());
    let bridge = NeighbourAttribute::Controller(3);
    let vlan = NeighbourAttribute::Vlan(7);
    for (what, state, attributes, expected) in [
        ("learned", NeighbourState::Reachable, vec![at.clone(), bridge.clone()], Some(0)),
        ("old", NeighbourState::Stale, vec![at.clone(), bridge.clone()], Some(0)),
        ("static", NeighbourState::Noarp, vec![at.clone(), bridge.clone()], Some(0)),
        ("in a VLAN", NeighbourState::Reachable, vec![at.clone(), bridge.clone(), vlan], Some(7)),
        ("the port's own", NeighbourState::Permanent, vec![at.clone(), bridge], None),
        ("of an interface", NeighbourState::Reachable, vec![at], None),
    ] {
        let fact = neighbour_fact(&neighbour(AddressFamily::Bridge, state, attributes));
        assert_eq!(fact, expected.map(|vlan| NeighbourFact::Port(3, vlan, mac, 5)), "{what}");
    }
}

#[test]
fn addresses_of_the_node_are_read() {
    let addr = |text: &str| text.parse::<IpAddr>().unwrap();
    for (attributes, expected) in [
        (vec![AddressAttribute::Address(addr("10.0.0.1"))], Some("10.0.0.1")),
        (vec![AddressAttribute::Address(addr("fe80::1"))], Some("fe80::1")),
        (
            vec![AddressAttribute::Address(addr("10.0.0.2")), AddressAttribute::Local(addr("10.0.0.1"))],
            Some("10.0.0.1"),
        ),
        (
            vec![AddressAttribute::Local(addr("10.0.0.1")), AddressAttribute::Address(addr("10.0.0.2"))],
            Some("10.0.0.1"),
        ),
        (vec![AddressAttribute::Address(addr("::1"))], None),
        (vec![AddressAttribute::Local(addr("127.0.0.1"))], None),
        (vec![], None),
    ] {
        let mut message = AddressMessage::default();
        message.attributes = attributes;
        assert_eq!(node_address(&message), expected.map(addr));
    }
}

#[test]
fn what_a_pod_can_give_its_node_is_no_subnet_address() {
    for (what, addr, prefix, scope, flags, expected) in [
        ("IPv4", "172.18.0.2", 16, AddressScope::Universe, AddressHeaderFlags::Permanent, true),
        ("from DHCP", "172.18.0.2", 16, AddressScope::Universe, AddressHeaderFlags::empty(), true),
        ("a gateway's", "10.1.0.1", 32, AddressScope::Universe, AddressHeaderFlags::Permanent, false),
        ("for the node itself", "10.1.0.1", 24, AddressScope::Host, AddressHeaderFlags::Permanent, false),
        ("IPv6", "fd00::2", 64, AddressScope::Universe, AddressHeaderFlags::Permanent, true),
        ("advertised", "fd00::2", 64, AddressScope::Universe, AddressHeaderFlags::empty(), false),
        ("a gateway's in IPv6", "fd00::1", 128, AddressScope::Universe, AddressHeaderFlags::Permanent, false),
    ] {
        let mut message = AddressMessage::default();
        (message.header.index, message.header.prefix_len) = (5, prefix);
        (message.header.scope, message.header.flags) = (scope, flags);
        message.attributes = vec![AddressAttribute::Address(addr.parse().unwrap())];
        assert_eq!(address_fact(&message).map(|fact| fact.is_of_subnet), Some(expected), "{what}");
    }
}
