//! From the facts of the kernel to [`LocalLinks`]: pure, no socket is opened here.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{LinkFilter, LocalLink, LocalLinks};

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

/// The pod links among the interfaces, and the routes.
pub(super) fn select(links: &[LinkFact], routes: &[RouteFact], filter: &LinkFilter) -> LocalLinks {
    let uplinks: BTreeSet<u32> = routes.iter().flat_map(|r| r.way.gateways()).copied().collect();
    let mut local = LocalLinks::default();
    for link in links.iter().filter(|l| l.is_pair) {
        let guess = link.peer_is_elsewhere && !uplinks.contains(&link.index);
        if filter.accepts(&link.name, guess) {
            let LinkFact { name, master, peer_is_elsewhere: has_peer, .. } = link.clone();
            local.links.insert(link.index, LocalLink { name, has_master: master.is_some(), has_peer });
        }
    }
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
        LinkFact { index, name: name.to_owned(), is_pair: true, peer_is_elsewhere: true, master: None }
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
        let local = select(&links, &routes, &LinkFilter::default());
        let found: Vec<_> = local.links.iter().map(|(i, l)| (*i, l.name.as_str(), l.has_master)).collect();
        assert_eq!(found, [(5, "veth5", false), (6, "veth6", true)]);
        assert_eq!(local.direct_link("10.0.0.5".parse().unwrap()), Some(5));
        assert_eq!(local.direct_link("10.0.0.6".parse().unwrap()), None);
        let filter =
            LinkFilter { include: vec!["vethh*".parse().unwrap(), "eth0".parse().unwrap()], exclude: vec![] };
        assert_eq!(select(&links, &routes, &filter).links.keys().copied().collect::<Vec<_>>(), [4]);
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
        let local = select(&links, &routes, &LinkFilter::default());
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
