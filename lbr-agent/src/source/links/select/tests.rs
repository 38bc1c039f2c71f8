use super::*;
use crate::node::links::PodAddresses;

fn pair(index: u32, name: &str) -> LinkFact {
    LinkFact {
        index,
        name: name.to_owned(),
        is_pair: true,
        is_bridge: false,
        peer_is_elsewhere: true,
        master: None,
        is_ethernet: true,
    }
}

fn route(destination: &str, metric: u32, way: Way) -> RouteFact {
    RouteFact { destination: destination.parse().unwrap(), metric, way }
}

/// Tables that are not given are empty.
fn picture(
    links: &[LinkFact],
    routes: &[RouteFact],
    addresses: &[AddressFact],
    filter: &LinkFilter,
) -> LocalLinks {
    let (before, known) = (LocalLinks::default(), Known::default());
    select(&View { links, routes, addresses, filter, before: &before, known: &known })
}

/// The kinds of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pod,
    Uplink,
    Neither,
}

fn kind(local: &LocalLinks, index: u32) -> Kind {
    match (local.links.contains_key(&index), local.uplinks.contains_key(&index)) {
        (true, false) => Kind::Pod,
        (false, true) => Kind::Uplink,
        (false, false) => Kind::Neither,
        (true, true) => panic!("{index} is a pod link and an uplink"),
    }
}

/// The interface in question is 5; 6 is an interface of the machine; 7 is always a pod link.
struct Row {
    links: Vec<LinkFact>,
    routes: Vec<RouteFact>,
    addresses: Vec<AddressFact>,
    filter: LinkFilter,
    pods: PodAddresses,
}

impl Row {
    fn new(link: LinkFact) -> Self {
        Self {
            links: vec![link, LinkFact { is_pair: false, ..pair(6, "eno1") }, pair(7, "veth7")],
            routes: Vec::new(),
            addresses: Vec::new(),
            filter: LinkFilter::default(),
            pods: PodAddresses::new(),
        }
    }

    /// Adds a route with a gateway behind it.
    fn via(mut self, destination: &str) -> Self {
        self.routes.push(route(destination, 0, Way::Gateways(vec![5])));
        self
    }

    /// Adds an address. One from a router advertisement is not permanent.
    fn has(mut self, address: &str) -> Self {
        let net: IpNet = address.parse().unwrap();
        let is_of_subnet = net.prefix_len() < net.max_prefix_len();
        self.addresses.push(AddressFact { index: 5, addr: net.addr(), is_of_subnet });
        self
    }

    /// Adds a host route to a pod of the API.
    fn pod(mut self, address: &str) -> Self {
        self.pods.insert(address.parse().unwrap(), "ns/web".to_owned());
        self.routes.push(route(&format!("{address}/32"), 0, Way::Direct(5)));
        self
    }

    fn ports(mut self, ports: &[u32]) -> Self {
        for port in ports {
            self.links.iter_mut().filter(|link| link.index == *port).for_each(|link| link.master = Some(5));
        }
        self
    }

    fn master(mut self, index: u32) -> Self {
        self.links[0].master = Some(index);
        self
    }

    fn filter(mut self, change: impl Fn(&mut LinkFilter)) -> Self {
        change(&mut self.filter);
        self
    }

    fn after(&self, before: &LocalLinks, known: &mut Known) -> LocalLinks {
        known.begin(&self.links, &self.routes, &self.pods);
        let Self { links, routes, addresses, filter, .. } = self;
        select(&View { links, routes, addresses, filter, before, known })
    }

    fn picture(&self) -> LocalLinks {
        self.after(&LocalLinks::default(), &mut Known::default())
    }
}

fn named(name: &str) -> Vec<Pattern> {
    vec![name.parse().unwrap()]
}

#[test]
fn the_table_of_kinds() {
    use Kind::{Neither, Pod, Uplink};
    const ALL: &str = "0.0.0.0/0";
    const NET: &str = "10.9.0.0/16";
    let veth = || Row::new(pair(5, "eth0"));
    let here = || Row::new(LinkFact { peer_is_elsewhere: false, ..pair(5, "eth0") });
    let plain = |name| LinkFact { is_pair: false, peer_is_elsewhere: false, ..pair(5, name) };
    let bridge = || Row::new(LinkFact { is_bridge: true, ..plain("br0") });
    let machine = || Row::new(plain("bond0.7"));
    for (row, what, given, expected) in [
        (1, "named", veth().filter(|f| f.devices = named("eth0")), Uplink),
        (
            1,
            "named, and a pod behind it",
            veth().pod("10.1.0.5").filter(|f| f.devices = named("eth0")),
            Uplink,
        ),
        (2, "excluded", veth().filter(|f| f.exclude = named("eth*")), Neither),
        (2, "excluded, gateway", veth().via(ALL).filter(|f| f.exclude = named("eth*")), Neither),
        (2, "excluded, address", veth().has("192.0.2.1/24").filter(|f| f.exclude = named("eth*")), Uplink),
        (2, "not included, gateway", veth().via(ALL).filter(|f| f.include = named("cali*")), Neither),
        (
            3,
            "included, an uplink's looks",
            veth().via(ALL).has("192.0.2.1/24").filter(|f| f.include = named("eth0")),
            Pod,
        ),
        (4, "both ends here", here(), Neither),
        (4, "both ends here, address", here().has("192.0.2.1/24"), Uplink),
        (5, "port of a bridge", veth().via(ALL).has("192.0.2.1/24").master(9), Pod),
        (6, "a pod is known", veth().via(ALL).has("192.0.2.1/24").pod("10.1.0.5"), Pod),
        (7, "the node's uplink in a container", veth().via(ALL).has("172.18.0.2/16"), Uplink),
        (7, "by another gateway's route", veth().via(NET).has("172.18.0.2/16"), Uplink),
        (7, "not named", veth().via(ALL).has("172.18.0.2/16").filter(|f| f.devices = named("x")), Neither),
        (8, "no address", veth(), Pod),
        (8, "gateway, no address: a pod speaks BGP", veth().via(NET), Pod),
        (8, "gateway of the default route, no address", veth().via(ALL), Pod),
        (8, "ptp: the gateway's address", veth().via(NET).has("10.1.0.1/32"), Pod),
        (8, "ptp in IPv6", veth().via("::/0").has("fd00::1/128"), Pod),
        (8, "an address, no gateway", veth().has("10.1.0.1/30"), Pod),
        (9, "bridge of pods, address", bridge().ports(&[7]).has("10.1.0.1/24"), Neither),
        (9, "bridge of pods, a pod is a gateway", bridge().ports(&[7]).has("10.1.0.1/24").via(ALL), Neither),
        (9, "bridge before its first pod", bridge().has("10.1.0.1/24").via(NET), Neither),
        (10, "flat network", bridge().ports(&[6, 7]).has("192.0.2.1/24").via(ALL), Uplink),
        (10, "a pod is a gateway", bridge().ports(&[6, 7]).has("192.0.2.1/24").via(NET), Neither),
        (10, "no address", bridge().ports(&[6, 7]).via(ALL), Neither),
        (11, "bridge of the machine's interfaces", bridge().ports(&[6]).has("192.0.2.1/24"), Uplink),
        (11, "address", machine().has("192.0.2.1/24"), Uplink),
        (11, "cloud: a single address", machine().has("192.0.2.1/32"), Uplink),
        (11, "gateway", machine().via(ALL), Uplink),
        (11, "neither", machine(), Neither),
    ] {
        assert_eq!(kind(&given.picture(), 5), expected, "row {row}: {what}");
        let beside = if given.filter.include.is_empty() { Pod } else { Neither };
        assert_eq!(kind(&given.picture(), 7), beside, "row {row}: {what}: the pod link beside it");
    }
}

#[test]
fn a_link_stays_what_it_was_when_routes_come_and_go() {
    let uplink = || Row::new(pair(5, "eth0")).has("172.18.0.2/16");
    let mut known = Known::default();
    let first = uplink().via("0.0.0.0/0").after(&LocalLinks::default(), &mut known);
    assert_eq!(kind(&first, 5), Kind::Uplink);
    // The default route is gone for a moment.
    let second = uplink().after(&first, &mut known);
    assert_eq!(kind(&second, 5), Kind::Uplink);
    let other_name = Row { links: vec![pair(5, "veth5")], ..uplink() };
    assert_eq!(kind(&other_name.after(&second, &mut Known::default()), 5), Kind::Pod, "another interface");

    let mut pod = Row::new(pair(5, "veth5")).pod("10.1.0.5");
    let first = pod.after(&LocalLinks::default(), &mut known);
    pod = pod.has("10.1.0.1/24").via("0.0.0.0/0");
    // Both its route and its pod are gone.
    pod.routes.remove(0);
    pod.pods.clear();
    let second = pod.after(&first, &mut known);
    assert_eq!((kind(&first, 5), kind(&second, 5)), (Kind::Pod, Kind::Pod));
    assert_eq!(turned(&first, &second), Vec::<String>::new());
}

#[test]
fn a_link_that_changes_its_kind_is_named() {
    let known = &mut Known::default();
    let pod = Row::new(pair(5, "eth1")).after(&LocalLinks::default(), known);
    let uplink = Row::new(pair(5, "eth1")).has("192.0.2.1/24").via("0.0.0.0/0").after(&pod, known);
    let [warning] = turned(&pod, &uplink).try_into().unwrap();
    assert!(
        warning.starts_with("eth1 was a pod's link and is an uplink now") && warning.contains("--devices"),
        "{warning}"
    );
    let [warning] = turned(&uplink, &pod).try_into().unwrap();
    assert!(warning.starts_with("eth1 was an uplink and is a pod's link now"), "{warning}");
    let renamed = Row::new(pair(5, "eth2")).after(&LocalLinks::default(), &mut Known::default());
    assert_eq!(turned(&uplink, &renamed), Vec::<String>::new());
}

#[test]
fn a_direct_route_to_a_pod_link_differs_from_one_to_its_bridge() {
    let links = [pair(5, "veth5"), LinkFact { master: Some(9), ..pair(6, "veth6") }];
    let routes = [route("10.0.0.5/32", 0, Way::Direct(5)), route("10.0.0.6/32", 0, Way::Direct(6))];
    let local = picture(&links, &routes, &[], &LinkFilter::default());
    let found: Vec<_> = local.links.iter().map(|(i, l)| (*i, l.name.as_str(), l.master.is_some())).collect();
    assert_eq!(found, [(5, "veth5", false), (6, "veth6", true)]);
    assert_eq!(local.direct_link("10.0.0.5".parse().unwrap()), Some(5));
    assert_eq!(local.direct_link("10.0.0.6".parse().unwrap()), None);
}
#[test]
fn uplinks_have_a_gateway_or_an_address_of_the_node() {
    let plain = |index, name| LinkFact { is_pair: false, peer_is_elsewhere: false, ..pair(index, name) };
    let links = [
        LinkFact { is_ethernet: false, ..plain(1, "lo") },
        plain(2, "eth0"),
        plain(3, "vxlan0"),
        LinkFact { is_bridge: true, ..plain(4, "cni0") },
        LinkFact { master: Some(4), ..pair(5, "veth5") },
        plain(6, "dummy0"),
        LinkFact { is_ethernet: false, ..plain(7, "wg0") },
        plain(8, "eth1"),
    ];
    let routes = [
        route("0.0.0.0/0", 0, Way::Gateways(vec![2])),
        route("10.244.1.0/24", 0, Way::Gateways(vec![3])),
        route("10.9.0.0/24", 0, Way::Gateways(vec![7])),
    ];
    let address = |index, addr: &str| AddressFact { index, addr: addr.parse().unwrap(), is_of_subnet: true };
    let addresses = [
        address(2, "192.0.2.1"),
        address(2, "192.0.2.9"),
        address(2, "2001:db8::1"),
        address(4, "10.244.0.1"),
        address(8, "198.51.100.1"),
    ];
    let found = |filter: &LinkFilter| -> Vec<(u32, Option<String>, Option<String>)> {
        let local = picture(&links, &routes, &addresses, filter);
        let text =
            |uplink: &LocalUplink| (uplink.v4.map(|a| a.to_string()), uplink.v6.map(|a| a.to_string()));
        local.uplinks.iter().map(|(i, u)| (*i, text(u).0, text(u).1)).collect()
    };
    let some = |text: &str| Some(text.to_owned());
    let expected =
        [(2, some("192.0.2.1"), some("2001:db8::1")), (3, None, None), (8, some("198.51.100.1"), None)];
    assert_eq!(found(&LinkFilter::default()), expected);
    let named = LinkFilter { devices: vec!["eth1".parse().unwrap()], ..LinkFilter::default() };
    assert_eq!(unfit_of(&links, &named), []);
    let wrong = ["eth*", "wg*", "eno1"].map(|pattern| pattern.parse().unwrap()).to_vec();
    let unfit = unfit_of(&links, &LinkFilter { devices: wrong, ..LinkFilter::default() });
    let reasons: Vec<_> =
        unfit.iter().map(|device| (device.pattern.as_str(), device.reason.as_str())).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons[0].0 == "wg*" && reasons[0].1.contains("wg0 carries no Ethernet frames"), "{reasons:?}");
    assert!(reasons[1].0 == "eno1" && reasons[1].1.contains("no interface"), "{reasons:?}");
    assert_eq!(found(&named), [(8, some("198.51.100.1"), None)]);
}

#[test]
fn the_lowest_metric_and_the_longest_match_decide() {
    let links = [pair(5, "a"), pair(6, "b")];
    let routes = [
        route("10.0.0.0/24", 100, Way::Direct(5)),
        route("10.0.0.0/24", 10, Way::Direct(6)),
        route("10.0.0.0/24", 50, Way::Direct(5)),
        route("10.0.0.9/32", 0, Way::Gateways(vec![2])),
        route("10.0.0.8/32", 0, Way::Other),
        route("fd00::1/128", 0, Way::Direct(5)),
    ];
    let local = picture(&links, &routes, &[], &LinkFilter::default());
    for (addr, expected) in [
        ("10.0.0.1", Some(6)),
        // A more specific route that does not lead to the pod: the shorter one must not count.
        ("10.0.0.9", None),
        ("10.0.0.8", None),
        ("10.0.1.1", None),
        ("fd00::1", Some(5)),
        ("fd00::2", None),
    ] {
        assert_eq!(local.direct_link(addr.parse().unwrap()), expected, "{addr}");
    }
}
