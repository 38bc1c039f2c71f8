//! From the facts of the kernel to [`LocalLinks`]. Pure: opens no socket.
//!
//! # Kinds of interfaces
//!
//! The kind depends on what is behind the interface, and on what the node's administrator or its network plugin
//! configured there. A pod is root in its own network namespace: it may speak BGP, answer DHCP and send router
//! advertisements, so a route with a gateway behind an interface makes no pod link an uplink. The first row that fits
//! counts:
//!
//! | row | interface | is |
//! |---|---|---|
//! | 1 | `--devices` names it | an uplink, if it carries Ethernet frames |
//! | 2 | a veth that `--link-exclude` names, or `--link-include` does not | no pod link: rows 7 and 11 without a gateway |
//! | 3 | a veth that `--link-include` names | a pod link |
//! | 4 | a veth with both ends in this namespace | no pod link: row 11 |
//! | 5 | a veth with a master | a pod link: its master would be the uplink |
//! | 6 | a veth behind which a pod of this node is or was known | a pod link, for as long as it exists |
//! | 7 | a veth with a subnet address of the node, and a gateway behind it now or when it became an uplink | an uplink |
//! | 8 | any other veth | a pod link |
//! | 9 | a bridge (or other master) of pod links only, or without ports | neither |
//! | 10 | a bridge of pod links and of other interfaces, with an address of the node and the gateway of a default route | an uplink, else neither |
//! | 11 | anything else with a gateway behind it, or with a global address of the node | an uplink |
//!
//! "Veth" includes netkit. A pod is known behind a link by a host route to an address that the API has for a pod of
//! this node, or by what [`super::addresses`] learned ([`super::known`]).
//!
//! A *subnet address* (row 7) has global scope and a prefix that is shorter than the address. The address that plugins
//! put on the host's end of a pod's veth is a link-local one (Calico, Cilium), none (cloud plugins), or the gateway's
//! as `/32` (ptp, kindnet, GKE). In IPv6 it must be permanent: a pod can give its node other ones by router
//! advertisements. With `--devices`, an interface that rows 7, 10 and 11 call an uplink is neither, unless it is named.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::known::Known;
use super::{LinkFilter, Pattern};
use crate::node::links::{LocalLink, LocalLinks, LocalUplink, UnfitDevice};

/// The properties of an interface that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkFact {
    pub(super) index: u32,
    pub(super) name: String,
    /// A veth or a netkit: packets sent here come out at the other end.
    pub(super) is_pair: bool,
    pub(super) is_bridge: bool,
    /// The other end is in another network namespace.
    pub(super) peer_is_elsewhere: bool,
    /// The bridge (or other master) that it is enslaved to.
    pub(super) master: Option<u32>,
    /// Its packets are Ethernet frames.
    pub(super) is_ethernet: bool,
}

/// A global address of the node, in the order in which the kernel lists them: the primary one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressFact {
    pub(super) index: u32,
    pub(super) addr: IpAddr,
    /// A subnet address, see the module.
    pub(super) is_of_subnet: bool,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteFact {
    pub(super) destination: IpNet,
    pub(super) metric: u32,
    pub(super) way: Way,
}

/// The next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The destination itself answers on this interface.
    Direct(u32),
    /// To gateways on these interfaces.
    Gateways(Vec<u32>),
    /// To several interfaces, or nowhere (blackhole, unreachable).
    Other,
}

/// The kernel's facts, and the state before.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) links: &'a [LinkFact],
    pub(super) routes: &'a [RouteFact],
    pub(super) addresses: &'a [AddressFact],
    pub(super) filter: &'a LinkFilter,
    pub(super) before: &'a LocalLinks,
    /// The links behind which a pod is or was known.
    pub(super) known: &'a Known,
}

impl View<'_> {
    fn of<'a>(&'a self, link: &LinkFact) -> impl Iterator<Item = &'a AddressFact> + use<'a> {
        let index = link.index;
        self.addresses.iter().filter(move |address| address.index == index)
    }

    /// Rows 2 to 8.
    fn is_pod_link(&self, link: &LinkFact, gateways: &BTreeSet<u32>) -> bool {
        if !link.is_pair || self.filter.is_uplink(&link.name, false) {
            return false;
        }
        let is_nodes = || {
            link.master.is_none()
                && !self.known.has_pod(link.index, &link.name)
                && self.of(link).any(|address| address.is_of_subnet)
                && (gateways.contains(&link.index) || self.was_uplink(link))
        };
        self.filter.accepts(&link.name, link.peer_is_elsewhere && !is_nodes())
    }

    fn was_uplink(&self, link: &LinkFact) -> bool {
        self.before.uplinks.get(&link.index).is_some_and(|uplink| uplink.name == link.name)
    }

    /// Rows 7 to 11, for an interface that is no pod link.
    fn looks_like_uplink(&self, link: &LinkFact, pods: &BTreeMap<u32, LocalLink>, behind: &Gateways) -> bool {
        if link.is_pair && link.peer_is_elsewhere {
            return self.of(link).any(|address| address.is_of_subnet);
        }
        let has_address = self.of(link).next().is_some();
        let ports = || self.links.iter().filter(|port| port.master == Some(link.index));
        let has_pods = ports().any(|port| pods.contains_key(&port.index));
        let has_others = ports().any(|port| !pods.contains_key(&port.index));
        match (has_pods, has_others) {
            (true, true) => has_address && behind.default.contains(&link.index),
            (true, false) => false,
            (false, false) if link.is_bridge => false,
            (false, _) => has_address || behind.any.contains(&link.index),
        }
    }

    fn uplinks(&self, pods: &BTreeMap<u32, LocalLink>, behind: &Gateways) -> BTreeMap<u32, LocalUplink> {
        let mut found = BTreeMap::new();
        for link in self.links.iter().filter(|l| l.is_ethernet && !pods.contains_key(&l.index)) {
            if self.filter.is_uplink(&link.name, self.looks_like_uplink(link, pods, behind)) {
                let own = || self.of(link).map(|a| a.addr);
                let v4 = own().find_map(|addr| if let IpAddr::V4(v4) = addr { Some(v4) } else { None });
                let v6 = own().find_map(|addr| if let IpAddr::V6(v6) = addr { Some(v6) } else { None });
                found.insert(link.index, LocalUplink { name: link.name.clone(), v4, v6 });
            }
        }
        found
    }
}

/// The interfaces with a gateway behind them.
struct Gateways {
    any: BTreeSet<u32>,
    /// Those of default routes.
    default: BTreeSet<u32>,
}

impl Gateways {
    fn of(routes: &[RouteFact]) -> Self {
        let of = |wanted: fn(&RouteFact) -> bool| {
            let routes = routes.iter().filter(|route| wanted(route));
            routes.flat_map(|route| route.way.gateways()).copied().collect()
        };
        Self { any: of(|_| true), default: of(|route| route.destination.prefix_len() == 0) }
    }
}

/// Reports patterns whose interface cannot be used, since nothing else would show why it is not served.
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
pub(super) fn select(view: &View<'_>) -> LocalLinks {
    let gateways = Gateways::of(view.routes);
    let mut local = LocalLinks::default();
    for link in view.links.iter().filter(|link| view.is_pod_link(link, &gateways.any)) {
        local.links.insert(link.index, link.into());
    }
    local.uplinks = view.uplinks(&local.links, &gateways);
    local.unfit = unfit_of(view.links, view.filter);
    let mut best: BTreeMap<IpNet, &RouteFact> = BTreeMap::new();
    for route in view.routes {
        let known = best.entry(route.destination).or_insert(route);
        if route.metric < known.metric {
            *known = route;
        }
    }
    let index = |route: &RouteFact| if let Way::Direct(index) = route.way { index } else { 0 };
    local.routes = best.into_iter().map(|(destination, route)| (destination, index(route))).collect();
    local
}

/// Warnings for interfaces that changed from a pod link to an uplink, or the other way round.
pub(super) fn turned(before: &LocalLinks, now: &LocalLinks) -> Vec<String> {
    let (pod, uplink) = ("a pod's link", "an uplink");
    let text = |name: &str, old: &str, new: &str| {
        format!(
            "{name} was {old} and is {new} now: if it is the node's way out, name the uplinks with --devices; if a pod \
             is behind it, with --link-include or without an address of the node's subnet it stays a pod's link"
        )
    };
    let same = |index: &u32, name: &str| now.uplinks.get(index).is_some_and(|uplink| uplink.name == name);
    let left = before.links.iter().filter(|(index, link)| same(index, &link.name));
    let left = left.map(|(_, link)| text(&link.name, pod, uplink));
    let same = |index: &u32, name: &str| now.links.get(index).is_some_and(|link| link.name == name);
    let joined = before.uplinks.iter().filter(|(index, link)| same(index, &link.name));
    left.chain(joined.map(|(_, link)| text(&link.name, uplink, pod))).collect()
}

impl From<&LinkFact> for LocalLink {
    fn from(fact: &LinkFact) -> Self {
        let LinkFact { name, master, peer_is_elsewhere, .. } = fact;
        Self { name: name.clone(), master: *master, has_peer: *peer_is_elsewhere }
    }
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
mod tests;
