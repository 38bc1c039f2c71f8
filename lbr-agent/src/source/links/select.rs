//! From the facts of the kernel to [`LocalLinks`]: pure, no socket is opened here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{LinkFilter, LocalLink, LocalLinks, LocalUplink, Pattern, UnfitDevice};

/// What matters of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkFact {
    pub(super) index: u32,
    pub(super) name: String,
    /// A veth or a netkit: what is sent here comes out at the other end.
    pub(super) is_pair: bool,
    /// The other end is in another network namespace.
    pub(super) peer_is_elsewhere: bool,
    /// The bridge (or other master) that it is enslaved to.
    pub(super) master: Option<u32>,
    /// What it carries are Ethernet frames.
    pub(super) is_ethernet: bool,
}

/// A global address of the node, in the order in which the kernel lists them: the primary one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressFact {
    pub(super) index: u32,
    pub(super) addr: IpAddr,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteFact {
    pub(super) destination: IpNet,
    pub(super) metric: u32,
    pub(super) way: Way,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To this interface, on which the destination itself answers.
    Direct(u32),
    /// To gateways on these interfaces.
    Gateways(Vec<u32>),
    /// To several interfaces, or nowhere (blackhole, unreachable).
    Other,
}

/// The uplinks: interfaces with a gateway behind them, and those that carry an address of the node, but neither pods'
/// links nor a bridge that pods are connected to.
fn uplinks_of(
    links: &[LinkFact],
    routes: &[RouteFact],
    addresses: &[AddressFact],
    filter: &LinkFilter,
    pods: &BTreeMap<u32, LocalLink>,
) -> BTreeMap<u32, LocalUplink> {
    let gateways: BTreeSet<u32> = routes.iter().flat_map(|r| r.way.gateways()).copied().collect();
    let bridges: BTreeSet<u32> =
        links.iter().filter(|l| pods.contains_key(&l.index)).filter_map(|l| l.master).collect();
    let mut found = BTreeMap::new();
    for link in links.iter().filter(|l| l.is_ethernet && !pods.contains_key(&l.index)) {
        let own = || addresses.iter().filter(|a| a.index == link.index).map(|a| a.addr);
        let guess =
            gateways.contains(&link.index) || (own().next().is_some() && !bridges.contains(&link.index));
        if filter.is_uplink(&link.name, guess) {
            let v4 = own().find_map(|addr| if let IpAddr::V4(v4) = addr { Some(v4) } else { None });
            let v6 = own().find_map(|addr| if let IpAddr::V6(v6) = addr { Some(v6) } else { None });
            found.insert(link.index, LocalUplink { name: link.name.clone(), v4, v6 });
        }
    }
    found
}

/// An interface that is named and can not be used is told of: nobody would find out why it is not served.
fn unfit_of(links: &[LinkFact], filter: &LinkFilter) -> Vec<UnfitDevice> {
    let reason = |pattern: &Pattern| {
        let mut named = links.iter().filter(|link| pattern.matches(&link.name)).peekable();
        if named.peek().is_none() {
            return Some("no interface of the node has such a name; one that comes later is used".to_owned());
        }
        let other = named.find(|link| !link.is_ethernet)?;
        Some(format!("{} carries no Ethernet frames, and is not used", other.name))
    };
    let unfit =
        |pattern: &Pattern| Some(UnfitDevice { pattern: pattern.to_string(), reason: reason(pattern)? });
    filter.devices.iter().filter_map(unfit).collect()
}

/// The pod links and the uplinks among the interfaces, and the routes.
pub(super) fn select(
    links: &[LinkFact],
    routes: &[RouteFact],
    addresses: &[AddressFact],
    filter: &LinkFilter,
) -> LocalLinks {
    let uplinks: BTreeSet<u32> = routes.iter().flat_map(|r| r.way.gateways()).copied().collect();
    let mut local = LocalLinks::default();
    for link in links.iter().filter(|l| l.is_pair) {
        let guess = link.peer_is_elsewhere && !uplinks.contains(&link.index);
        let is_device = filter.is_uplink(&link.name, false);
        if !is_device && filter.accepts(&link.name, guess) {
            let LinkFact { name, master, peer_is_elsewhere: has_peer, .. } = link.clone();
            local.links.insert(link.index, LocalLink { name, has_master: master.is_some(), has_peer });
        }
    }
    local.uplinks = uplinks_of(links, routes, addresses, filter, &local.links);
    local.unfit = unfit_of(links, filter);
    let mut best: BTreeMap<IpNet, &RouteFact> = BTreeMap::new();
    for route in routes {
        let known = best.entry(route.destination).or_insert(route);
        if route.metric < known.metric {
            *known = route;
        }
    }
    let index = |route: &RouteFact| if let Way::Direct(index) = route.way { index } else { 0 };
    local.routes = best.into_iter().map(|(destination, route)| (destination, index(route))).collect();
    local
}

impl Way {
    fn gateways(&self) -> &[u32] {
        match self {
            Self::Gateways(indices) => indices,
            Self::Direct(_) | Self::Other => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(index: u32, name: &str) -> LinkFact {
        LinkFact {
            index,
            name: name.to_owned(),
            is_pair: true,
            peer_is_elsewhere: true,
            master: None,
            is_ethernet: true,
        }
    }

    fn route(destination: &str, metric: u32, way: Way) -> RouteFact {
        RouteFact { destination: destination.parse().unwrap(), metric, way }
    }

    #[test]
    fn pod_links_are_veths_with_a_peer_elsewhere_that_are_no_uplinks() {
        let links = [
            LinkFact { is_pair: false, ..pair(2, "eth0") },
            pair(3, "vethuplink"),
            LinkFact { peer_is_elsewhere: false, ..pair(4, "vethhost") },
            pair(5, "veth5"),
            LinkFact { master: Some(9), ..pair(6, "veth6") },
        ];
        let routes = [
            route("0.0.0.0/0", 0, Way::Gateways(vec![3])),
            route("10.0.0.5/32", 0, Way::Direct(5)),
            route("10.0.0.6/32", 0, Way::Direct(6)),
        ];
        let local = select(&links, &routes, &[], &LinkFilter::default());
        let found: Vec<_> = local.links.iter().map(|(i, l)| (*i, l.name.as_str(), l.has_master)).collect();
        assert_eq!(found, [(5, "veth5", false), (6, "veth6", true)]);
        assert_eq!(local.direct_link("10.0.0.5".parse().unwrap()), Some(5));
        assert_eq!(local.direct_link("10.0.0.6".parse().unwrap()), None);
        let filter = LinkFilter {
            include: vec!["vethh*".parse().unwrap(), "eth0".parse().unwrap()],
            ..LinkFilter::default()
        };
        assert_eq!(select(&links, &routes, &[], &filter).links.keys().copied().collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn uplinks_have_a_gateway_or_an_address_of_the_node() {
        let plain = |index, name| LinkFact { is_pair: false, peer_is_elsewhere: false, ..pair(index, name) };
        let links = [
            LinkFact { is_ethernet: false, ..plain(1, "lo") },
            plain(2, "eth0"),
            plain(3, "vxlan0"),
            plain(4, "cni0"),
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
        let address = |index, addr: &str| AddressFact { index, addr: addr.parse().unwrap() };
        let addresses = [
            address(2, "192.0.2.1"),
            address(2, "192.0.2.9"),
            address(2, "2001:db8::1"),
            address(4, "10.244.0.1"),
            address(8, "198.51.100.1"),
        ];
        let found = |filter: &LinkFilter| -> Vec<(u32, Option<String>, Option<String>)> {
            let local = select(&links, &routes, &addresses, filter);
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
        let told: Vec<_> =
            unfit.iter().map(|device| (device.pattern.as_str(), device.reason.as_str())).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].0 == "wg*" && told[0].1.contains("wg0 carries no Ethernet frames"), "{told:?}");
        assert!(told[1].0 == "eno1" && told[1].1.contains("no interface"), "{told:?}");
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
        let local = select(&links, &routes, &[], &LinkFilter::default());
        for (addr, expected) in [
            ("10.0.0.1", Some(6)),
            // More specific, and not to the pod: the shorter route must not be believed.
            ("10.0.0.9", None),
            ("10.0.0.8", None),
            ("10.0.1.1", None),
            ("fd00::1", Some(5)),
            ("fd00::2", None),
        ] {
            assert_eq!(local.direct_link(addr.parse().unwrap()), expected, "{addr}");
        }
    }
}
