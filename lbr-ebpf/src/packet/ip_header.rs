//! IP headers that a program makes: of an answer, from the destination of the packet at hand to its source, and of a
//! packet from node to node.

use lbr_common::addr::Addr;
use lbr_common::checksum::{Diff, fold16};

use crate::packet::Packet;
use crate::packet::skb::{ETH_LEN, Eth, HelperFailed, Skb};

const V4_LEN: u32 = 20;
const V6_LEN: u32 = 40;
const TTL: u8 = 64;
/// Flag of IPv4: routers may not cut the packet, which needs no identification then (RFC 6864, 4.1).
const DONT_FRAGMENT: u16 = 0x4000u16.to_be();

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
    start: [u8; 4],
    payload_len: u16,
    next_hops: [u8; 2],
    src: [u16; 8],
    dst: [u16; 8],
}

/// A frame up to the end of its transport header. Every part is made of bytes and of words of two, and of even length, so
/// there is no padding.
#[repr(C)]
#[derive(Clone, Copy)]
struct Frame<I, T> {
    eth: Eth,
    ip: I,
    l4: T,
}

/// The first bytes of a header: version, type of service or class, flow label.
#[derive(Clone, Copy)]
pub(crate) struct Start(pub(crate) [u8; 4]);

impl Start {
    /// Of an IPv6 header.
    const V6: Self = Self([0x60, 0, 0, 0]);

    /// Of an IPv4 header without options; the length follows.
    #[inline(always)]
    pub(crate) const fn v4(service_type: u8) -> Self {
        Self([0x45, service_type, 0, 0])
    }
}

/// What a header says.
pub(crate) struct Header<'a> {
    pub(crate) start: Start,
    pub(crate) src: &'a Addr,
    pub(crate) dst: &'a Addr,
    /// What follows.
    pub(crate) proto: u8,
    /// Its bytes. More than a length can say is the kernel's to cut, and written as 0.
    pub(crate) payload_len: u32,
}

/// Length of the header that answers `packet`, or is put before it.
#[inline(always)]
pub(crate) fn len(packet: &Packet) -> u32 {
    if packet.is_v4 { V4_LEN } else { V6_LEN }
}

impl<'a> Header<'a> {
    /// Of the answer to a packet.
    #[inline(always)]
    pub(crate) fn answer(packet: &'a Packet, proto: u8, payload_len: u32) -> Self {
        let start = if packet.is_v4 { Start::v4(0) } else { Start::V6 };
        Self { start, src: &packet.tuple.dst, dst: &packet.tuple.src, proto, payload_len }
    }

    /// Writes it behind the Ethernet header.
    #[inline(always)]
    pub(crate) fn store(&self, skb: Skb, is_v4: bool) -> Result<(), HelperFailed> {
        if is_v4 { skb.store(ETH_LEN, &self.v4()) } else { skb.store(ETH_LEN, &self.v6()) }
    }

    /// Writes the frame of an answer up to the end of its transport header, `l4`: link addresses exchanged, then this
    /// header. All at once, since each write is a call of the kernel.
    #[inline(always)]
    pub(crate) fn store_answer<T: Copy>(&self, skb: Skb, is_v4: bool, l4: &T) -> Result<(), HelperFailed> {
        let (eth, l4) = (skb.turned_link_header()?, *l4);
        if is_v4 {
            skb.store(0, &Frame { eth, ip: self.v4(), l4 })
        } else {
            skb.store(0, &Frame { eth, ip: self.v6(), l4 })
        }
    }

    #[inline(always)]
    fn v4(&self) -> V4 {
        let [version_ihl, service_type, ..] = self.start.0;
        let mut ip = V4 {
            version_ihl_tos: [version_ihl, service_type],
            total_len: wire_len(V4_LEN + self.payload_len),
            id_fragment: [0, DONT_FRAGMENT],
            ttl_proto: [TTL, self.proto],
            sum: 0,
            src: self.src.v4_halves(),
            dst: self.dst.v4_halves(),
        };
        let sum = u64::from(u16::from_ne_bytes(ip.version_ihl_tos))
            + u64::from(ip.total_len)
            + u64::from(DONT_FRAGMENT)
            + u64::from(u16::from_ne_bytes(ip.ttl_proto));
        ip.sum = !fold16(sum + self.addresses(true));
        ip
    }

    #[inline(always)]
    fn v6(&self) -> V6 {
        V6 {
            start: self.start.0,
            payload_len: wire_len(self.payload_len),
            next_hops: [self.proto, TTL],
            src: self.src.halves(),
            dst: self.dst.halves(),
        }
    }

    /// Sum of the pseudo header of what follows (RFC 9293 3.1, RFC 8200 8.1).
    #[inline(always)]
    pub(crate) fn pseudo_sum(&self, is_v4: bool) -> u64 {
        let proto = u64::from(u16::from(self.proto).to_be());
        self.addresses(is_v4) + u64::from(wire_len(self.payload_len)) + proto
    }

    /// What an IPv6 header adds to the sum over a packet. An IPv4 header adds nothing: it has a checksum of its own.
    #[inline(always)]
    pub(crate) fn sum_v6(&self) -> u32 {
        let [a, b, c, d] = self.start.0;
        Diff::NONE
            .word(0, u32::from_ne_bytes([a, b, c, d]))
            .half(0, wire_len(self.payload_len))
            .half(0, u16::from_ne_bytes([self.proto, TTL]))
            .addr(&Addr::UNSPECIFIED, self.src)
            .addr(&Addr::UNSPECIFIED, self.dst)
            .fold32()
    }

    /// Sum of both addresses as they are in the header.
    #[inline(always)]
    fn addresses(&self, is_v4: bool) -> u64 {
        let (src, dst) = (self.src.halves(), self.dst.halves());
        // An IPv4 address is the last four bytes.
        let mut n = if is_v4 { 6 } else { 0 };
        let mut sum = 0;
        while n < 8 {
            sum += u64::from(src[n]) + u64::from(dst[n]);
            n += 1;
        }
        sum
    }
}

#[inline(always)]
fn wire_len(len: u32) -> u16 {
    if len > u32::from(u16::MAX) { 0 } else { (len as u16).to_be() }
}
