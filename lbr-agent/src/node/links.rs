//! The node's interfaces, routes and addresses, as far as they concern pods and Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses of this node's pods in the API, and the pod of each (`namespace/name`).
pub type PodAddresses = BTreeMap<IpAddr, String>;

/// The host side of a pod's veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalLink {
    /// Interface name.
    pub name: String,
    /// Interface index of the bridge (or other master) that it is a port of: the stack must forward.
    pub master: Option<u32>,
    /// Its other end is in another network namespace, so `bpf_redirect_peer` reaches it. (The helper drops packets that
    /// would stay in this namespace.)
    pub has_peer: bool,
}

/// An interface to hosts outside of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalUplink {
    /// Interface name.
    pub name: String,
    /// The node's primary IPv4 address on it.
    pub v4: Option<Ipv4Addr>,
    /// The node's primary IPv6 address on it.
    pub v6: Option<Ipv6Addr>,
}

/// A `--devices` pattern for which no interface can be an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfitDevice {
    /// As given.
    pub pattern: String,
    /// Why not, for people.
    pub reason: String,
}

/// The pod links of this node and its routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalLinks {
    /// Pod links by interface index.
    pub links: BTreeMap<u32, LocalLink>,
    /// Routes of the main table, to any interface: destination → interface index, or 0 if the route leads through a
    /// gateway or nowhere. Those count too: the longest match decides.
    pub routes: BTreeMap<IpNet, u32>,
    /// Addresses of pods, and the pod link that each is behind: from host routes that end in a pod link, and from the
    /// neighbour and forwarding tables together. A host route counts more.
    pub addresses: BTreeMap<IpAddr, u32>,
    /// The node's own addresses, on any interface, link-local ones included, loopback excluded.
    pub node_addresses: BTreeSet<IpAddr>,
    /// Uplinks by interface index.
    pub uplinks: BTreeMap<u32, LocalUplink>,
    /// The `--devices` patterns that cannot be honoured.
    pub unfit: Vec<UnfitDevice>,
}

impl LocalLinks {
    /// The pod link in which the node's route for this address ends, if there is no master in between:
    /// `bpf_redirect_peer` reaches such an address.
    pub fn direct_link(&self, addr: IpAddr) -> Option<u32> {
        let longest = self.route(addr)?;
        let link = self.links.get(&longest)?;
        (link.has_peer && link.master.is_none()).then_some(longest)
    }

    /// Interface index of the longest match.
    fn route(&self, addr: IpAddr) -> Option<u32> {
        let full = if addr.is_ipv4() { 32 } else { 128 };
        (0..=full).rev().find_map(|len| {
            let net = IpNet::new(addr, len).ok()?.trunc();
            self.routes.get(&net).copied()
        })
    }
}
