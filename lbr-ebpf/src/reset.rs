//! Answers a SYN with a reset (RFC 9293, 3.5.2).
//!
//! An ICMP error would say the same, but Linux drops it while the socket is still inside `connect`
//! (`LockDroppedIcmps`), and an answer from the next hop comes that early: the caller would hear "refused" only
//! after the SYN was sent again, a second later. A reset waits until the socket is free.

use lbr_common::addr::Addr;
use lbr_common::checksum::fold16;
use lbr_common::tuple::proto;

use crate::packet::Packet;
use crate::skb::{ETH_LEN, HelperFailed, Skb};

const IPV4_LEN: u32 = 20;
const IPV6_LEN: u32 = 40;
/// Data offset of five words, and the flags RST and ACK.
const HEADER_RST_ACK: u16 = 0x5014;
/// Bytes of a TCP header without options.
const TCP_LEN: u16 = 20;
const TTL: u8 = 64;

/// IPv4 header, all of it.
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

/// IPv6 header behind its first word.
#[repr(C)]
#[derive(Clone, Copy)]
struct V6 {
    payload_len: u16,
    next_hops: [u8; 2],
    src: [u16; 8],
    dst: [u16; 8],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    src_port: u16,
    dst_port: u16,
    seq: [u16; 2],
    ack: [u16; 2],
    offset_flags: u16,
    window: u16,
    sum: u16,
    urgent: u16,
}

/// Whether the packet is answered this way: a SYN without options and extension headers. Nobody sends one with
/// them, so they get no code of their own.
#[inline(always)]
pub(crate) fn fits(packet: &Packet) -> bool {
    packet.is_syn() && packet.l4 == packet.l3 + if packet.is_v4 { IPV4_LEN } else { IPV6_LEN }
}

/// Turns the SYN into the answer to it.
#[inline(always)]
pub(crate) fn build(skb: Skb, packet: &Packet) -> Result<(), HelperFailed> {
    let (src, dst) = (&packet.tuple.dst, &packet.tuple.src);
    let seq: [u8; 4] = skb.load(packet.l4 + 4)?;
    let ack = u32::from_be_bytes(seq).wrapping_add(1).to_be_bytes();
    let mut tcp = Tcp {
        src_port: packet.tuple.dst_port.to_be(),
        dst_port: packet.tuple.src_port.to_be(),
        seq: [0; 2],
        ack: [u16::from_ne_bytes([ack[0], ack[1]]), u16::from_ne_bytes([ack[2], ack[3]])],
        offset_flags: HEADER_RST_ACK.to_be(),
        window: 0,
        sum: 0,
        urgent: 0,
    };
    tcp.sum = checksum(&tcp, src, dst, packet.is_v4);
    skb.truncate(packet.l4 + u32::from(TCP_LEN))?;
    skb.turn_around()?;
    if packet.is_v4 {
        skb.store(ETH_LEN, &v4(src, dst))?;
        skb.store(ETH_LEN + IPV4_LEN, &tcp)
    } else {
        let next_hops = [proto::TCP, TTL];
        let ip = V6 { payload_len: TCP_LEN.to_be(), next_hops, src: src.halves(), dst: dst.halves() };
        skb.store(ETH_LEN + 4, &ip)?;
        skb.store(ETH_LEN + IPV6_LEN, &tcp)
    }
}

#[inline(always)]
fn v4(src: &Addr, dst: &Addr) -> V4 {
    let mut ip = V4 {
        version_ihl_tos: [0x45, 0],
        total_len: (IPV4_LEN as u16 + TCP_LEN).to_be(),
        id_fragment: [0, 0],
        ttl_proto: [TTL, proto::TCP],
        sum: 0,
        src: src.v4_halves(),
        dst: dst.v4_halves(),
    };
    let sum = u64::from(u16::from_ne_bytes(ip.version_ihl_tos))
        + u64::from(ip.total_len)
        + u64::from(u16::from_ne_bytes(ip.ttl_proto));
    ip.sum = !fold16(sum + addresses(src, dst, true));
    ip
}

/// Over the pseudo header and a TCP header without payload.
#[inline(always)]
fn checksum(tcp: &Tcp, src: &Addr, dst: &Addr, is_v4: bool) -> u16 {
    let mut sum = u64::from(TCP_LEN.to_be()) + u64::from(u16::from(proto::TCP).to_be());
    sum += addresses(src, dst, is_v4);
    sum += u64::from(tcp.src_port) + u64::from(tcp.dst_port);
    sum += u64::from(tcp.ack[0]) + u64::from(tcp.ack[1]) + u64::from(tcp.offset_flags);
    !fold16(sum)
}

/// Sum of both addresses as they are in the header.
#[inline(always)]
fn addresses(src: &Addr, dst: &Addr, is_v4: bool) -> u64 {
    let (src, dst) = (src.halves(), dst.halves());
    // An IPv4 address is the last four bytes.
    let mut n = if is_v4 { 6 } else { 0 };
    let mut sum = 0;
    while n < 8 {
        sum += u64::from(src[n]) + u64::from(dst[n]);
        n += 1;
    }
    sum
}
