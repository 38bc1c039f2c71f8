//! Rewrites a packet to another tuple, checksums included.

pub(crate) mod icmp_error;
mod sctp;

use lbr_common::addr::Addr;
use lbr_common::checksum::Diff;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::Verdict;

use crate::packet::bytes::Bytes;
use crate::packet::skb::{HelperFailed, Sum};
use crate::packet::{Packet, Part};

/// Offset of the checksum in a TCP header.
pub(crate) const TCP_SUM: u32 = 16;
/// Offset of the checksum in a UDP header.
pub(crate) const UDP_SUM: u32 = 6;
/// Offset of the checksum in an ICMP or ICMPv6 header.
pub(crate) const ICMP_SUM: u32 = 2;

/// IPv4 header from its checksum on.
#[repr(C)]
#[derive(Clone, Copy)]
struct V4Tail {
    sum: u16,
    src: [u16; 2],
    dst: [u16; 2],
}

/// IPv6 addresses, side by side as in the header.
#[repr(C)]
#[derive(Clone, Copy)]
struct V6Tail {
    src: [u32; 4],
    dst: [u32; 4],
}

/// Whether [`rewrite`] can give `packet` these ports. Asked before anything is remembered of a first fragment, so that those
/// that follow it share its fate.
#[inline(always)]
pub(crate) fn is_possible(packet: &Packet, to: &Tuple) -> Result<(), Verdict> {
    if packet.tuple.proto == proto::SCTP && packet.part == Part::First && changes_ports(&packet.tuple, to) {
        return Err(Verdict::SctpFragment);
    }
    Ok(())
}

/// Gives `packet` the addresses and ports of `to`.
#[inline(always)]
pub(crate) fn rewrite(skb: impl Bytes, packet: &Packet, to: &Tuple) -> Result<(), Verdict> {
    try_rewrite(skb, packet, to).map_err(|HelperFailed| Verdict::RewriteFailed)
}

#[inline(always)]
fn try_rewrite(skb: impl Bytes, packet: &Packet, to: &Tuple) -> Result<(), HelperFailed> {
    let from = &packet.tuple;
    let addrs = write_addresses(skb, packet, &to.src, &to.dst)?;
    if packet.part == Part::Later {
        if !packet.is_v4 {
            // No checksum in this packet makes up for the change of its addresses.
            skb.adjust_device_sum(addrs.fold32());
        }
        return Ok(());
    }
    let (sum_at, optional) = match from.proto {
        proto::TCP => (packet.l4 + TCP_SUM, false),
        proto::UDP => (packet.l4 + UDP_SUM, true),
        // Its checksum covers the addresses only with IPv6.
        proto::ICMPV6 => (packet.l4 + ICMP_SUM, false),
        proto::SCTP => return sctp::rewrite_ports(skb, packet, to, addrs),
        _ => return Ok(()),
    };
    let pseudo = if packet.is_v4 { Sum::PseudoV4 } else { Sum::PseudoV6 };
    skb.fix_sum(sum_at, addrs.fold32(), pseudo, optional)?;
    if from.proto != proto::ICMPV6 && changes_ports(from, to) {
        let diff = ports_diff(from, to);
        skb.fix_sum(sum_at, diff.fold32(), Sum::Covered, optional)?;
        skb.store(packet.l4, &[to.src_port.to_be(), to.dst_port.to_be()])?;
    }
    Ok(())
}

#[inline(always)]
fn changes_ports(from: &Tuple, to: &Tuple) -> bool {
    from.src_port != to.src_port || from.dst_port != to.dst_port
}

/// What a change of ports does to a checksum.
#[inline(always)]
pub(crate) fn ports_diff(from: &Tuple, to: &Tuple) -> Diff {
    Diff::NONE
        .half(from.src_port.to_be(), to.src_port.to_be())
        .half(from.dst_port.to_be(), to.dst_port.to_be())
}

/// Writes addresses into the IP header of `packet`, with its header checksum. Returns the change of the addresses.
#[inline(always)]
pub(crate) fn write_addresses(
    skb: impl Bytes,
    packet: &Packet,
    src: &Addr,
    dst: &Addr,
) -> Result<Diff, HelperFailed> {
    let from = &packet.tuple;
    let (new_src, new_dst) = (src.words(), dst.words());
    if packet.is_v4 {
        let diff = Diff::NONE.word(from.src.words()[3], new_src[3]).word(from.dst.words()[3], new_dst[3]);
        let tail =
            V4Tail { sum: diff.apply(packet.ip_sum), src: halves(new_src[3]), dst: halves(new_dst[3]) };
        skb.store(packet.l3 + 10, &tail)?;
        Ok(diff)
    } else {
        skb.store(packet.l3 + 8, &V6Tail { src: new_src, dst: new_dst })?;
        Ok(Diff::NONE.addr(&from.src, src).addr(&from.dst, dst))
    }
}

/// The two halves of a word as they lie in memory.
#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    let b = word.to_ne_bytes();
    [u16::from_ne_bytes([b[0], b[1]]), u16::from_ne_bytes([b[2], b[3]])]
}
