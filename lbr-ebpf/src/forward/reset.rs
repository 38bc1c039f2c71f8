//! Answers a TCP segment of no connection with a reset (RFC 9293, 3.5.2).
//!
//! An ICMP error would say the same, but Linux drops it while the socket is still inside `connect`
//! (`LockDroppedIcmps`), and an answer from the next hop comes that early: the caller would hear "refused" only
//! after the SYN was sent again, a second later. A reset waits until the socket is free.

use lbr_common::checksum::fold16;
use lbr_common::conntrack::tcp_flags;
use lbr_common::tuple::proto;

use crate::packet::Packet;
use crate::packet::ip_header::{self, Header};
use crate::packet::skb::{HelperFailed, Skb};

/// Data offset of five words, and the flags RST and ACK, or RST alone.
const HEADER_RST_ACK: u16 = 0x5014;
const HEADER_RST: u16 = 0x5004;
/// Bytes of a TCP header without options.
const TCP_LEN: u32 = 20;

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

/// Whether the packet is answered this way: TCP, without options of IP and extension headers. Such packets are rare, so
/// they get no code of their own.
#[inline(always)]
pub(crate) fn fits(packet: &Packet) -> bool {
    packet.tuple.proto == proto::TCP && packet.l4 == packet.l3 + ip_header::len(packet)
}

/// Turns the segment into the answer to it.
#[inline(always)]
pub(crate) fn build(skb: Skb, packet: &Packet) -> Result<(), HelperFailed> {
    // What acknowledges something is answered from there on; else everything is acknowledged.
    let acks = packet.flags & tcp_flags::ACK != 0;
    let seq = if acks { packet.ack } else { 0 }.to_be_bytes();
    let ack = if acks { 0 } else { packet.seq.wrapping_add(1) }.to_be_bytes();
    let mut tcp = Tcp {
        src_port: packet.tuple.dst_port.to_be(),
        dst_port: packet.tuple.src_port.to_be(),
        seq: [u16::from_ne_bytes([seq[0], seq[1]]), u16::from_ne_bytes([seq[2], seq[3]])],
        ack: [u16::from_ne_bytes([ack[0], ack[1]]), u16::from_ne_bytes([ack[2], ack[3]])],
        offset_flags: if acks { HEADER_RST } else { HEADER_RST_ACK }.to_be(),
        window: 0,
        sum: 0,
        urgent: 0,
    };
    let header = Header::answer(packet, proto::TCP, TCP_LEN);
    tcp.sum = checksum(&tcp, header.pseudo_sum(packet.is_v4));
    skb.truncate(packet.l4 + TCP_LEN)?;
    header.store_answer(skb, packet.is_v4, &tcp)
}

/// Of a TCP header without payload.
#[inline(always)]
fn checksum(tcp: &Tcp, pseudo: u64) -> u16 {
    let ports = u64::from(tcp.src_port) + u64::from(tcp.dst_port);
    let seq = u64::from(tcp.seq[0]) + u64::from(tcp.seq[1]);
    let ack = u64::from(tcp.ack[0]) + u64::from(tcp.ack[1]);
    !fold16(pseudo + ports + seq + ack + u64::from(tcp.offset_flags))
}
