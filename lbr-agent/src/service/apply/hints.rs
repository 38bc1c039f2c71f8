//! Hints that spare the programs a look-up: which ports of the node may be Services', whether any is for UDP, and which
//! addresses only Services may have.

use std::collections::BTreeSet;

use lbr_common::addr::Addr;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{Frontend, FrontendKey, filter_bit, frontend_flags, port_bit, scope};
use lbr_common::tuple::proto;

use crate::dataplane::Hints;
use crate::table::ServiceMaps;

/// Hints for the present and the desired content of the maps.
pub(super) fn of(maps: &ServiceMaps) -> Hints {
    let there = maps.frontends.actual().iter().map(|(key, frontend)| (*key, *frontend));
    let mut hints = of_frontends(there.chain(maps.frontends.writes()));
    let blocks = maps.service_cidrs.actual().keys().copied();
    for block in blocks.chain(maps.service_cidrs.writes().map(|(block, _)| block)) {
        hints.service_filter |= bits_of(&block);
    }
    hints
}

/// Whether what is to be written or removed can change the hints. Endpoints that come and go cannot.
pub(super) fn may_change(maps: &ServiceMaps) -> bool {
    let actual = maps.frontends.actual();
    let is_other =
        |(key, new): (FrontendKey, Frontend)| actual.get(&key).is_none_or(|old| old.flags != new.flags);
    maps.frontends.writes().any(is_other)
        || maps.frontends.removals().next().is_some()
        || maps.service_cidrs.pending() > 0
}

fn of_frontends(entries: impl Iterator<Item = (FrontendKey, Frontend)> + Clone) -> Hints {
    let mut hints = Hints::default();
    let mut own = BTreeSet::new();
    for (key, frontend) in entries.clone() {
        match frontend.flags & (frontend_flags::WILDCARD | frontend_flags::HOST) {
            // Only the Service's port of such an address, or all of it, is a Service's: no packet has it as its source.
            frontend_flags::WILDCARD => hints.service_filter |= filter_bit(&key.addr),
            0 => {}
            _ if key.scope == scope::ANY => drop(own.insert(key.addr)),
            _ => {}
        }
    }
    // Sockets of the node use loopback addresses without a packet at an uplink.
    let is_own_port = |key: &FrontendKey| key.scope == scope::ANY && key.port != 0 && own.contains(&key.addr);
    let own_ports: BTreeSet<_> = entries.map(|(key, _)| key).filter(is_own_port).collect();
    for key in own_ports {
        hints.own_port_filter |= port_bit(key.port);
        hints.udp_own_ports += u32::from(key.proto == proto::UDP);
    }
    hints
}

/// The bits of all addresses of a block.
fn bits_of(block: &Prefix<Block>) -> u64 {
    /// Addresses that share a bit: an IPv4 /16, in mapped form, and an IPv6 /48.
    const V4: u32 = Block::FAMILY_BITS + 96 + 16;
    const V6: u32 = Block::FAMILY_BITS + 48;
    let first = Addr { bytes: block.data.addr };
    let alike = if first.is_v4() { V4 } else { V6 };
    match alike.saturating_sub(block.len) {
        0 => filter_bit(&first),
        // A few /16s, as in the API server's default range, a /12.
        free @ 1..=6 if first.is_v4() => (0..1u16 << free).fold(0, |filter, n| {
            let [a, b, c, d] = first.v4_octets();
            let [a, b] = (u16::from_be_bytes([a, b]) | n).to_be_bytes();
            filter | filter_bit(&Addr::v4([a, b, c, d]))
        }),
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn block(len: u32, addr: Addr) -> Prefix<Block> {
        let extra = if addr.is_v4() { 96 } else { 0 };
        Prefix { data: Block::of(&addr), len: Block::FAMILY_BITS + extra + len }
    }

    #[test]
    fn every_address_of_a_block_has_its_bit() {
        for (len, first) in
            [(12, [10, 96, 0, 0]), (16, [10, 96, 0, 0]), (24, [10, 96, 7, 0]), (8, [10, 0, 0, 0])]
        {
            let bits = bits_of(&block(len, Addr::v4(first)));
            let start = u32::from_be_bytes(first);
            for n in (0..1u32 << (32 - len)).step_by(251) {
                let addr = Addr::v4((start | n).to_be_bytes());
                assert_ne!(bits & filter_bit(&addr), 0, "{len} {addr}");
            }
        }
        let mut first = [0; 16];
        first[..2].copy_from_slice(&[0xfd, 0]);
        assert_eq!(bits_of(&block(32, Addr::v6(first))), u64::MAX);
        let bits = bits_of(&block(108, Addr::v6(first)));
        first[15] = 9;
        assert_eq!(bits, filter_bit(&Addr::v6(first)));
    }

    #[test]
    fn every_port_at_an_address_of_the_node_counts() {
        const NODE: [u8; 4] = [192, 0, 2, 1];
        let entry = |addr, port, proto, scope, flags| {
            let key = FrontendKey { addr: Addr::v4(addr), port, proto, scope, _pad: 0 };
            (key, Frontend { flags, ..Frontend::default() })
        };
        let open = frontend_flags::WILDCARD | frontend_flags::PASS_UNMATCHED | frontend_flags::HOST;
        let mut table = BTreeMap::from([
            entry([10, 96, 0, 10], 0, 0, scope::ANY, frontend_flags::WILDCARD),
            entry([10, 96, 0, 10], 53, proto::UDP, scope::ANY, 0),
            entry(NODE, 0, 0, scope::ANY, open),
            entry(NODE, 30_080, proto::TCP, scope::ANY, 0),
            entry([127, 0, 0, 1], 0, 0, scope::HOST_LOCAL, open),
            entry([127, 0, 0, 1], 30_080, proto::TCP, scope::HOST_LOCAL, 0),
        ]);
        let hints = of_frontends(table.iter().map(|(key, frontend)| (*key, *frontend)));
        assert_eq!(hints.service_filter, filter_bit(&Addr::v4([10, 96, 0, 10])));
        assert_eq!((hints.own_port_filter, hints.udp_own_ports), (port_bit(30_080), 0));
        // The port of a load balancer at the node's address: it has no entry for sockets.
        let (key, balancer) = entry(NODE, 8_053, proto::UDP, scope::ANY, 0);
        table.insert(key, balancer);
        let hints = of_frontends(table.iter().map(|(key, frontend)| (*key, *frontend)));
        assert_eq!((hints.own_port_filter, hints.udp_own_ports), (port_bit(30_080) | port_bit(8_053), 1));
    }

    #[test]
    fn what_is_still_in_the_map_counts() {
        let addr = Addr::v4([192, 0, 2, 1]);
        let open = frontend_flags::WILDCARD | frontend_flags::PASS_UNMATCHED | frontend_flags::HOST;
        let whole = FrontendKey { addr, ..FrontendKey::default() };
        let port = FrontendKey { port: 30_053, proto: proto::UDP, ..whole };
        let actual = BTreeMap::from([(port, Frontend::default())]);
        let desired = BTreeMap::from([(whole, Frontend { flags: open, ..Frontend::default() })]);
        for tables in [[&actual, &desired], [&desired, &actual]] {
            let hints = of_frontends(tables.into_iter().flatten().map(|(key, frontend)| (*key, *frontend)));
            assert_eq!((hints.own_port_filter, hints.udp_own_ports), (port_bit(30_053), 1));
        }
    }

    #[test]
    fn most_addresses_pass() {
        let bits = bits_of(&block(12, Addr::v4([10, 96, 0, 0])));
        assert_eq!(bits.count_ones(), 16);
    }
}
