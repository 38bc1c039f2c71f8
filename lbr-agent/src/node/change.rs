//! What a new picture of the node means for what was compiled with the former one.

use std::collections::BTreeSet;

use ipnet::IpNet;
use lbr_common::addr::Addr;

use super::NodeView;
use super::links::LocalLinks;

/// What has to be compiled again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// Nothing.
    Nothing,
    /// What is at these addresses: pods came or went, or are behind other links.
    Addresses(BTreeSet<Addr>),
    /// Everything: the node's own addresses, its uplinks, its settings, or a route to a whole block.
    Everything,
}

impl NodeChange {
    /// The change from one picture to the next.
    pub(crate) fn between(before: &NodeView, after: &NodeView) -> Self {
        match concerns_all(before) == concerns_all(after) {
            true => Self::of_routes(&before.links, &after.links),
            false => Self::Everything,
        }
    }

    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::Everything
    }

    /// Backends are reached by the pods' links in which routes end.
    fn of_routes(before: &LocalLinks, after: &LocalLinks) -> Self {
        let is_same_link = |index: &u32| before.links.get(index) == after.links.get(index);
        let differs = |one: &LocalLinks, other: &LocalLinks| -> Vec<IpNet> {
            let routes = one.routes.iter();
            let others =
                routes.filter(|(net, index)| other.routes.get(net) != Some(index) || !is_same_link(index));
            others.map(|(net, _)| *net).collect()
        };
        let nets = [differs(before, after), differs(after, before)].concat();
        if nets.iter().any(|net| net.prefix_len() < net.max_prefix_len()) {
            return Self::Everything;
        }
        match nets.is_empty() {
            true => Self::Nothing,
            false => Self::Addresses(nets.iter().map(|net| net.addr().into()).collect()),
        }
    }
}

/// What every Service depends on: all but the pods' links and their addresses.
fn concerns_all(node: &NodeView) -> impl PartialEq {
    let NodeView { name, settings, links, refused_ports } = node;
    let LocalLinks { links: _, routes: _, addresses: _, node_addresses, uplinks, unfit } = links;
    (name, settings, refused_ports, node_addresses, uplinks, unfit)
}

#[cfg(test)]
mod tests {
    use super::super::links::LocalLink;
    use super::*;

    fn view(routes: &[(&str, u32)], links: &[(u32, bool)]) -> NodeView {
        let link = |has_peer| LocalLink { name: String::new(), master: None, has_peer };
        let links = LocalLinks {
            links: links.iter().map(|(index, has_peer)| (*index, link(*has_peer))).collect(),
            routes: routes.iter().map(|(net, index)| (net.parse().unwrap(), *index)).collect(),
            ..LocalLinks::default()
        };
        NodeView { links, ..NodeView::default() }
    }

    #[test]
    fn pods_concern_their_addresses_and_blocks_everything() {
        let of = |addresses: &[[u8; 4]]| {
            NodeChange::Addresses(addresses.iter().map(|bytes| Addr::v4(*bytes)).collect())
        };
        let one = || view(&[("10.0.0.1/32", 3)], &[(3, true)]);
        let two = || view(&[("10.0.0.1/32", 3), ("10.0.0.2/32", 4)], &[(3, true), (4, true)]);
        let between = |before, after| NodeChange::between(&before, &after);
        assert_eq!(between(one(), one()), NodeChange::Nothing);
        assert_eq!(between(one(), two()), of(&[[10, 0, 0, 2]]));
        assert_eq!(between(two(), one()), of(&[[10, 0, 0, 2]]));
        assert_eq!(between(one(), view(&[("10.0.0.1/32", 3)], &[(3, false)])), of(&[[10, 0, 0, 1]]));
        let block = view(&[("10.0.0.1/32", 3), ("10.1.0.0/16", 9)], &[(3, true)]);
        assert_eq!(between(one(), block), NodeChange::Everything);
        let mut other = one();
        other.links.node_addresses.insert("192.0.2.1".parse().unwrap());
        assert_eq!(between(one(), other), NodeChange::Everything);
    }
}
