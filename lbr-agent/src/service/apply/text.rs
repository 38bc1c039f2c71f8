//! Entries as a person reads them.

use std::net::IpAddr;

use lbr_common::addr::Addr;
use lbr_common::maglev::MaglevKey;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{FrontendKey, SlotKey, SourceRange};
use lbr_common::user::{proto_name, socket_text};

pub(super) fn range_text(range: &Prefix<SourceRange>) -> String {
    let clients = cidr_text(range.data.client, range.len.saturating_sub(SourceRange::FIXED_BITS));
    format!("service {} clients {clients}", range.data.service)
}

pub(super) fn peer_text(block: &Prefix<Block>) -> String {
    format!("peers {}", block_text(block))
}

pub(super) fn block_text(block: &Prefix<Block>) -> String {
    cidr_text(block.data.addr, block.len.saturating_sub(Block::FAMILY_BITS))
}

/// `bits` are of the mapped address.
fn cidr_text(addr: [u8; 16], bits: u32) -> String {
    let addr = IpAddr::from(Addr::v6(addr)).to_canonical();
    let bits = if addr.is_ipv4() { bits.saturating_sub(96) } else { bits };
    format!("{addr}/{bits}")
}

pub(super) fn part_text(key: &MaglevKey) -> String {
    format!("table {} part {}", key.table, key.part)
}

pub(super) fn slot_text(key: &SlotKey) -> String {
    format!("service {} slot {}", key.service, key.slot)
}

pub(super) fn frontend_text(key: &FrontendKey) -> String {
    match key.port {
        0 => key.addr.to_string(),
        port => format!("{}/{}", socket_text(key.addr, port), proto_name(key.proto)),
    }
}
