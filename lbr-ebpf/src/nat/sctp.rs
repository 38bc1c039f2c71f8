//! The ports of an SCTP packet, and its checksum, which is a CRC of the whole packet.

use lbr_common::checksum::Diff;
use lbr_common::crc32c;
use lbr_common::tuple::Tuple;

use super::{changes_ports, ports_diff};
use crate::packet::Packet;
use crate::packet::bytes::Bytes;
use crate::packet::skb::HelperFailed;

/// Offset of the checksum in the common header.
const SUM: u32 = 8;

/// Gives the packet, which is whole, the ports of `to`. `addrs` is the change of its addresses, which were written before:
/// the checksum does not cover them.
///
/// A checksum of zero is one that the device, or the kernel where the packet leaves the node, fills in later
/// (`CHECKSUM_PARTIAL` with `csum_not_inet`): it stays. Of the packets that have a checksum, one in 2^32 has this one, and
/// its receiver drops it.
#[inline(always)]
pub(super) fn rewrite_ports(
    skb: impl Bytes,
    packet: &Packet,
    to: &Tuple,
    addrs: Diff,
) -> Result<(), HelperFailed> {
    // What a device has summed up covers the packet, and IPv4's header checksum makes up for its addresses.
    let mut diff = if packet.is_v4 { Diff::NONE } else { addrs };
    let from = &packet.tuple;
    if changes_ports(from, to) {
        let old: u32 = skb.load(packet.l4 + SUM)?;
        if old != 0 {
            let change = in_memory(from) ^ in_memory(to);
            let new = (u32::from_le(old) ^ sctp_sum_change(change, packet.end - packet.l4)).to_le();
            skb.store(packet.l4 + SUM, &new)?;
            diff = diff.word(old, new);
        }
        skb.store(packet.l4, &[to.src_port.to_be(), to.dst_port.to_be()])?;
        diff = diff.and(ports_diff(from, to));
    }
    skb.adjust_device_sum(diff.fold32());
    Ok(())
}

/// Ports as the little-endian number that lies in the packet.
#[inline(always)]
fn in_memory(tuple: &Tuple) -> u32 {
    u32::from(tuple.src_port.swap_bytes()) | u32::from(tuple.dst_port.swap_bytes()) << 16
}

/// A function of its own in BPF, since the verifier walks its loop for each place that has it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sctp_sum_change(change: u32, len: u32) -> u32 {
    crc32c::change(change, len)
}
