//! The IP header of an answer that a program makes: from the destination of the packet at hand to its source.

use lbr_common::checksum::fold16;

use crate::packet::Packet;
use crate::skb::{ETH_LEN, HelperFailed, Skb};

const V4_LEN: u16 = 20;
const V6_LEN: u16 = 40;
const TTL: u8 = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct V4 {
    version_ihl_tos: [u8; 2],
    total_len: u16,
    id_fragment: [u16; 2],
    ttl_proto: [u8; 2],
    sum: u16,
    src: [u16; 2],
    dst: [u16; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct V6 {
    version_flow: [u16; 2],
    payload_len: u16,
    next_hops: [u8; 2],
    src: [u16; 8],
    dst: [u16; 8],
}

/// Length of the header that answers `packet`.
#[inline(always)]
pub(crate) fn len(packet: &Packet) -> u32 {
    u32::from(if packet.is_v4 { V4_LEN } else { V6_LEN })
}

/// Writes the header behind the Ethernet header.
#[inline(always)]
pub(crate) fn store(skb: Skb, packet: &Packet, proto: u8, payload_len: u16) -> Result<(), HelperFailed> {
    let (src, dst) = (&packet.tuple.dst, &packet.tuple.src);
    if packet.is_v4 {
        let mut ip = V4 {
            version_ihl_tos: [0x45, 0],
            total_len: (V4_LEN + payload_len).to_be(),
            id_fragment: [0, 0],
            ttl_proto: [TTL, proto],
            sum: 0,
            src: src.v4_halves(),
            dst: dst.v4_halves(),
        };
        let sum = u64::from(u16::from_ne_bytes(ip.version_ihl_tos))
            + u64::from(ip.total_len)
            + u64::from(u16::from_ne_bytes(ip.ttl_proto));
        ip.sum = !fold16(sum + addresses(packet));
        skb.store(ETH_LEN, &ip)
    } else {
        let ip = V6 {
            version_flow: [0x6000u16.to_be(), 0],
            payload_len: payload_len.to_be(),
            next_hops: [proto, TTL],
            src: src.halves(),
            dst: dst.halves(),
        };
        skb.store(ETH_LEN, &ip)
    }
}

/// Sum of the pseudo header of such an answer (RFC 9293 3.1, RFC 8200 8.1).
#[inline(always)]
pub(crate) fn pseudo_sum(packet: &Packet, proto: u8, payload_len: u16) -> u64 {
    addresses(packet) + u64::from(payload_len.to_be()) + u64::from(u16::from(proto).to_be())
}

/// Sum of both addresses as they are in the header.
#[inline(always)]
fn addresses(packet: &Packet) -> u64 {
    let (src, dst) = (packet.tuple.dst.halves(), packet.tuple.src.halves());
    // An IPv4 address is the last four bytes.
    let mut n = if packet.is_v4 { 6 } else { 0 };
    let mut sum = 0;
    while n < 8 {
        sum += u64::from(src[n]) + u64::from(dst[n]);
        n += 1;
    }
    sum
}
