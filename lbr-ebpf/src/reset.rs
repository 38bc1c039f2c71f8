//! Answers a SYN over IPv6 with a reset (RFC 9293, 3.5.2).
//!
//! An ICMPv6 error would say the same, but Linux drops it while the socket is still inside `connect`
//! (`LockDroppedIcmps`), and an answer from the next hop comes that early: the caller would hear "refused" only
//! after the SYN was sent again, a second later. A reset waits until the socket is free.

use lbr_common::checksum::fold16;
use lbr_common::tuple::proto;

use crate::packet::Packet;
use crate::skb::{ETH_LEN, HelperFailed, Skb};

const IPV6_LEN: u32 = 40;
/// Data offset of five words, and the flags RST and ACK.
const HEADER_RST_ACK: u16 = 0x5014;

#[repr(C)]
#[derive(Clone, Copy)]
struct Reset {
    payload_len: u16,
    next_hops: [u8; 2],
    src: [u16; 8],
    dst: [u16; 8],
    src_port: u16,
    dst_port: u16,
    seq: [u16; 2],
    ack: [u16; 2],
    offset_flags: u16,
    window: u16,
    sum: u16,
    urgent: u16,
}

/// Bytes of a TCP header without options.
const TCP_LEN: u16 = 20;

/// Whether the packet is answered this way: a SYN, without extension headers, which would be in the way.
#[inline(always)]
pub(crate) fn fits(packet: &Packet) -> bool {
    !packet.is_v4 && packet.is_syn() && packet.l4 == ETH_LEN + IPV6_LEN
}

/// Turns the SYN into the answer to it.
#[inline(always)]
pub(crate) fn build(skb: Skb, packet: &Packet) -> Result<(), HelperFailed> {
    let seq: [u8; 4] = skb.load(packet.l4 + 4)?;
    let ack = u32::from_be_bytes(seq).wrapping_add(1).to_be_bytes();
    let mut reset = Reset {
        payload_len: TCP_LEN.to_be(),
        next_hops: [proto::TCP, 64],
        src: packet.tuple.dst.halves(),
        dst: packet.tuple.src.halves(),
        src_port: packet.tuple.dst_port.to_be(),
        dst_port: packet.tuple.src_port.to_be(),
        seq: [0; 2],
        ack: [u16::from_ne_bytes([ack[0], ack[1]]), u16::from_ne_bytes([ack[2], ack[3]])],
        offset_flags: HEADER_RST_ACK.to_be(),
        window: 0,
        sum: 0,
        urgent: 0,
    };
    reset.sum = checksum(&reset);
    skb.truncate(packet.l4 + u32::from(TCP_LEN))?;
    skb.turn_around()?;
    skb.store(ETH_LEN + 4, &reset)
}

#[inline(always)]
fn checksum(reset: &Reset) -> u16 {
    let mut sum = u64::from(TCP_LEN.to_be()) + u64::from(u16::from(proto::TCP).to_be());
    let mut n = 0;
    while n < 8 {
        sum += u64::from(reset.src[n]) + u64::from(reset.dst[n]);
        n += 1;
    }
    sum += u64::from(reset.src_port) + u64::from(reset.dst_port);
    sum += u64::from(reset.ack[0]) + u64::from(reset.ack[1]) + u64::from(reset.offset_flags);
    !fold16(sum)
}
