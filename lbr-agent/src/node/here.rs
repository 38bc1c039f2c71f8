//! The node, as Services see it: name, zone and addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use lbr_common::addr::{Addr, Family};
use lbr_common::link::Uplink;

use super::NodeView;
use super::direct::DirectLinks;
use super::{NodePortAddress, Settings};
use crate::cluster::ClusterState;
use crate::model::convert::unsafe_address;
use crate::model::{Node, ObjectName};
use crate::node::links::{LocalLinks, LocalUplink};

/// Label with the zone of a node.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// This node.
pub(crate) struct Here<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its zone, if known.
    pub(crate) zone: Option<&'a str>,
    /// See [`Settings`].
    pub(crate) settings: &'a Settings,
    /// See [`NodeView::refused_ports`].
    pub(crate) refused_ports: &'a BTreeMap<u16, String>,
    /// The addresses behind its pod links.
    pub(crate) direct: DirectLinks<'a>,
    links: &'a LocalLinks,
    object: Option<&'a Node>,
    /// See [`own_addresses`].
    own: BTreeSet<IpAddr>,
}

/// Every address of the node itself: from its interfaces, its Node object and the command line.
pub(crate) fn own_addresses(state: &ClusterState, node: &NodeView) -> BTreeSet<IpAddr> {
    let object = state.nodes.get(&ObjectName::cluster(&node.name));
    let reported = object.into_iter().flat_map(|object| &object.addresses);
    let named = node.settings.node_ip.as_ref().filter(|ip| unsafe_address(**ip).is_none());
    let of_uplinks = node.links.uplinks.values().flat_map(addresses);
    node.links.node_addresses.iter().chain(reported).chain(named).copied().chain(of_uplinks).collect()
}

impl<'a> Here<'a> {
    pub(crate) fn new(state: &'a ClusterState, node: &'a NodeView) -> Self {
        let object = state.nodes.get(&ObjectName::cluster(&node.name));
        Self {
            name: &node.name,
            zone: object.and_then(|object| object.labels.get(LABEL_ZONE)).map(String::as_str),
            settings: &node.settings,
            refused_ports: &node.refused_ports,
            direct: DirectLinks::new(&node.links),
            links: &node.links,
            object,
            own: own_addresses(state, node),
        }
    }

    /// Whether a packet to this address ends on this node: in one of its pods, or in the node itself.
    pub(crate) fn has_endpoint(&self, ip: IpAddr, node: &str) -> bool {
        self.is(node) || self.direct.of(ip) != 0 || self.links.node_addresses.contains(&ip)
    }

    /// Whether an endpoint's `nodeName` is this node.
    pub(crate) fn is(&self, node: &str) -> bool {
        !node.is_empty() && node == self.name
    }

    /// Whether this is an address of the node itself.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip)
    }

    /// Whether one of the node's addresses is in one of these blocks.
    pub(crate) fn is_in(&self, blocks: &[IpNet]) -> bool {
        self.own.iter().any(|ip| blocks.iter().any(|block| block.contains(ip)))
    }

    /// Addresses that serve NodePorts.
    pub(crate) fn nodeport_addresses(&self) -> BTreeSet<IpAddr> {
        let mut addresses = BTreeSet::new();
        let wanted = &self.settings.nodeport_addresses;
        if wanted.is_empty() || wanted.contains(&NodePortAddress::Primary) {
            addresses.extend(self.primary_addresses());
        }
        let blocks = wanted.iter().filter_map(|wanted| match wanted {
            NodePortAddress::Primary => None,
            NodePortAddress::Block(block) => Some(block),
        });
        for block in blocks {
            addresses.extend(self.links.node_addresses.iter().filter(|ip| block.contains(*ip)));
        }
        // Skip loopback, multicast, link-local and unspecified addresses.
        addresses.retain(|ip| unsafe_address(*ip).is_none());
        addresses
    }

    /// The first address of each family. Without a Node object: the one of the command line, else those of the uplinks.
    fn primary_addresses(&self) -> Vec<IpAddr> {
        if self.object.is_some() {
            return Family::ALL.into_iter().filter_map(|family| self.primary(family)).collect();
        }
        let named = Family::ALL.into_iter().filter_map(|family| self.named(family));
        let of_uplinks = self.links.uplinks.values().flat_map(addresses);
        named.chain(of_uplinks.filter(|ip| self.named(Family::of(*ip)).is_none())).collect()
    }

    /// The uplinks. One without an address of a family has the node's primary address.
    pub(crate) fn uplinks(&self) -> BTreeMap<u32, Uplink> {
        let node = |family| {
            self.primary(family).or_else(|| self.of_uplink(family)).map_or(Addr::UNSPECIFIED, Addr::from)
        };
        let [node_v4, node_v6] = Family::ALL.map(node);
        let uplink = |link: &LocalUplink| Uplink {
            v4: link.v4.map_or(node_v4, |ip| IpAddr::from(ip).into()),
            v6: link.v6.map_or(node_v6, |ip| IpAddr::from(ip).into()),
            node_v4,
            node_v6,
        };
        self.links.uplinks.iter().map(|(&index, link)| (index, uplink(link))).collect()
    }

    fn of_uplink(&self, family: Family) -> Option<IpAddr> {
        self.links.uplinks.values().flat_map(addresses).find(|ip| Family::of(*ip) == family)
    }

    /// The node's first address, by the command line or the Node object.
    fn primary(&self, family: Family) -> Option<IpAddr> {
        let reported = self.object.into_iter().flat_map(|object| &object.addresses);
        self.named(family).or_else(|| reported.copied().find(|ip| Family::of(*ip) == family))
    }

    fn named(&self, family: Family) -> Option<IpAddr> {
        self.settings.node_ip.filter(|ip| Family::of(*ip) == family && unsafe_address(*ip).is_none())
    }
}

/// The node's addresses on an uplink.
fn addresses(link: &LocalUplink) -> impl Iterator<Item = IpAddr> + use<> {
    link.v4.map(IpAddr::from).into_iter().chain(link.v6.map(IpAddr::from))
}
