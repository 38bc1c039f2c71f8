//! What spares the programs a look-up: which ports of the node may be Services', whether any is for UDP, and which
//! addresses may be ones that only Services have.

use lbr_common::addr::Addr;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{Frontend, FrontendKey, filter_bit, frontend_flags, port_bit, scope};
use lbr_common::tuple::proto;

use super::Reconciler;
use crate::dataplane::Hints;

impl Reconciler {
    /// Of what is in the maps, and of what will be.
    pub(super) fn hints(&self) -> Hints {
        let frontends = || self.frontends.actual().iter().chain(self.frontends.desired());
        let node_ports = || frontends().map(|(key, _)| key).filter(|key| is_node_port(key));
        let udp = node_ports().filter(|key| key.proto == proto::UDP).count();
        let addresses = frontends().filter(|(_, frontend)| is_service_only(frontend));
        let of_addresses = addresses.fold(0, |filter, (key, _)| filter | filter_bit(&key.addr));
        let blocks = self.service_cidrs.actual().keys().chain(self.service_cidrs.desired().keys());
        Hints {
            udp_own_ports: u32::try_from(udp).unwrap_or(u32::MAX),
            own_port_filter: node_ports().fold(0, |filter, key| filter | port_bit(key.port)),
            service_filter: blocks.fold(of_addresses, |filter, block| filter | bits_of(block)),
        }
    }
}

/// Every NodePort has an entry for sockets of the node, whatever its addresses. Ports of a load balancer at an address of
/// the node have none, but are at such an address.
fn is_node_port(key: &FrontendKey) -> bool {
    key.scope == scope::HOST_LOCAL && key.port != 0
}

fn is_service_only(frontend: &Frontend) -> bool {
    const KIND: u32 = frontend_flags::WILDCARD | frontend_flags::PASS_UNMATCHED;
    frontend.flags & KIND == frontend_flags::WILDCARD
}

/// The bits of all addresses of a block.
fn bits_of(block: &Prefix<Block>) -> u64 {
    /// What shares a bit: an IPv4 /16, in mapped form, and an IPv6 /48.
    const V4: u32 = Block::FAMILY_BITS + 96 + 16;
    const V6: u32 = Block::FAMILY_BITS + 48;
    let first = Addr { bytes: block.data.addr };
    let alike = if first.is_v4() { V4 } else { V6 };
    match alike.saturating_sub(block.len) {
        0 => filter_bit(&first),
        // A few: such is the range that the API server gives out by default, a /12.
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
    fn most_addresses_pass() {
        let bits = bits_of(&block(12, Addr::v4([10, 96, 0, 0])));
        assert_eq!(bits.count_ones(), 16);
    }
}
