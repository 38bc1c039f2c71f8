//! Addresses that a pod link of this node reaches directly, computed once for all endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbr_common::addr::Family;

use crate::node::links::LocalLinks;

/// [`LocalLinks::direct_link`] for many addresses: an address that no host route covers is answered without
/// trying each prefix length.
pub(crate) struct DirectLinks<'a> {
    local: &'a LocalLinks,
    /// Prefix lengths of the routes that end in a pod link, for IPv4 and IPv6.
    lengths: [BTreeSet<u8>; 2],
}

impl<'a> DirectLinks<'a> {
    pub(crate) fn new(local: &'a LocalLinks) -> Self {
        let mut lengths = [BTreeSet::new(), BTreeSet::new()];
        for (net, index) in &local.routes {
            if local.links.contains_key(index) {
                lengths[Family::of(net.addr()).index()].insert(net.prefix_len());
            }
        }
        Self { local, lengths }
    }

    /// Interface index of the link, 0 if there is none.
    pub(crate) fn of(&self, addr: IpAddr) -> u32 {
        let covered = self.lengths[Family::of(addr).index()].iter().any(|&length| {
            let net = ipnet::IpNet::new(addr, length).map(|n| n.trunc());
            net.is_ok_and(|n| self.local.routes.contains_key(&n))
        });
        if covered { self.local.direct_link(addr).unwrap_or(0) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use crate::node::links::LocalLink;

    use super::*;

    #[test]
    fn agrees_with_the_plain_lookup() {
        let veth = |has_master: bool| LocalLink {
            name: String::new(),
            master: has_master.then_some(9),
            has_peer: true,
        };
        let route = |net: &str, index: u32| (net.parse().unwrap(), index);
        let local = LocalLinks {
            links: [(3, veth(false)), (4, veth(true)), (5, veth(false))].into(),
            routes: [
                route("10.244.0.2/32", 3),
                route("10.244.0.3/32", 4),
                route("10.244.1.0/24", 5),
                route("10.244.1.9/32", 99),
                route("0.0.0.0/0", 2),
                route("fd00::2/128", 3),
            ]
            .into(),
            ..LocalLinks::default()
        };
        let direct = DirectLinks::new(&local);
        for (addr, link) in [
            ("10.244.0.2", 3),
            ("10.244.0.3", 0),
            ("10.244.0.4", 0),
            ("10.244.1.1", 5),
            ("10.244.1.9", 0),
            ("fd00::2", 3),
            ("fd00::3", 0),
        ] {
            let addr: IpAddr = addr.parse().unwrap();
            assert_eq!(direct.of(addr), link, "{addr}");
            assert_eq!(local.direct_link(addr).unwrap_or(0), link, "{addr}");
        }
    }
}
