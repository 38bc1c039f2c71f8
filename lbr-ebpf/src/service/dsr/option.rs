//! The frontend as an option of the packet itself: of an IPv4 header; in a destination options header of IPv6. Both are
//! of the types that RFC 4727 sets aside for experiments, are skipped by hosts that do not know them, and are the first
//! ones of the packet.

use lbr_common::addr::Addr;
use lbr_common::checksum::Diff;
use lbr_common::verdict::Verdict;

use super::is_believed;
use crate::nat;
use crate::packet::skb::{HelperFailed, Segments, Skb};
use crate::packet::{DEST_OPTIONS, HOP_BY_HOP, Packet, Part};
use crate::policy::query::Query;
use crate::scratch::{Dsr, Meta};
use crate::step::{self, Found, Step};

/// Copied into fragments, class 0, number 30.
const V4_KIND: u8 = 0x9e;
/// A host that does not know it skips it; routers do not change it.
const V6_KIND: u8 = 0x1e;
/// Fixed part of an IPv4 header, all that there may be, and where its checksum is in it.
const V4_LEN: u32 = 20;
const V4_MAX: u32 = 60;
const V4_SUM: u32 = 10;
/// Header of IPv6: where its length and next header are.
const V6_LEN: u32 = 40;
const V6_PAYLOAD: u32 = 4;
const V6_NEXT: u32 = 6;

/// Kind, length, port, address.
type V4Option = [u8; 8];

/// The frontend, in a header of IPv6.
#[repr(C)]
#[derive(Clone, Copy)]
struct V6Header {
    next: u8,
    len: u8,
    pad: [u8; 2],
    kind: u8,
    data_len: u8,
    /// As on the wire.
    port: u16,
    addr: [u8; 16],
}

/// `V6Header::len`: units of eight bytes beyond the first.
const V6_HEADER_LEN: u8 = 2;
/// `PadN` of two bytes.
const V6_PAD: [u8; 2] = [1, 0];
const V6_DATA_LEN: u8 = 18;
const V4_ADDED: u32 = size_of::<V4Option>() as u32;
const V6_ADDED: u32 = size_of::<V6Header>() as u32;
const _: () = assert!(V4_ADDED == 8 && V6_ADDED == 24);

/// How much the packet's header grows by when the frontend is put into it, if that fits.
#[inline(always)]
pub(super) fn room(skb: Skb, packet: &Packet) -> Option<u32> {
    let (added, fits) = if packet.is_v4 {
        (V4_ADDED, packet.l4 - packet.l3 + V4_ADDED <= V4_MAX)
    } else {
        // Hop-by-hop options come first (RFC 8200, 4.1).
        let next = skb.load::<u8>(packet.l3 + V6_NEXT);
        (V6_ADDED, next.is_ok_and(|next| next != HOP_BY_HOP))
    };
    if fits { Some(added) } else { None }
}

step::global! {
    /// Puts the frontend into the packet, which was rewritten before.
    pub(super) fn wrap(skb: Skb, packet: &Packet) -> Step = put_in as dsr_option_wrap;
}

#[inline(always)]
fn put_in(skb: Skb, packet: &Packet) -> Step {
    try_wrap(skb, packet).map_err(|HelperFailed| Verdict::RewriteFailed)
}

#[inline(always)]
fn try_wrap(skb: Skb, packet: &Packet) -> Result<(), HelperFailed> {
    let (addr, port) = (&packet.tuple.dst, packet.tuple.dst_port);
    let segments = packet.segments();
    if packet.is_v4 {
        skb.resize_options(V4_ADDED as i32, segments)?;
        let ([a, b, c, d], [high, low]) = (addr.v4_octets(), port.to_be_bytes());
        let option: V4Option = [V4_KIND, V4_ADDED as u8, high, low, a, b, c, d];
        skb.store(packet.l3 + V4_LEN, &option)?;
        return resize_v4(skb, packet.l3, V4_ADDED as i32, &option);
    }
    let next: u8 = skb.load(packet.l3 + V6_NEXT)?;
    skb.resize_options(V6_ADDED as i32, segments)?;
    let (port, addr) = (port.to_be(), addr.bytes);
    let (len, pad, data_len) = (V6_HEADER_LEN, V6_PAD, V6_DATA_LEN);
    let header = V6Header { next, len, pad, kind: V6_KIND, data_len, port, addr };
    skb.store(packet.l3 + V6_LEN, &header)?;
    let diff = resize_v6(skb, packet.l3, V6_ADDED as i32, DEST_OPTIONS)?;
    // Nothing in the packet makes up for what a device has summed up.
    skb.adjust_device_sum(header.put_into(diff).fold32());
    Ok(())
}

impl V6Header {
    /// The change of a sum by these bytes.
    #[inline(always)]
    fn put_into(&self, diff: Diff) -> Diff {
        let words = Addr { bytes: self.addr }.words();
        diff.word(0, u32::from_ne_bytes([self.next, self.len, self.pad[0], self.pad[1]]))
            .half(0, u16::from_ne_bytes([self.kind, self.data_len]))
            .half(0, self.port)
            .word(0, words[0])
            .word(0, words[1])
            .word(0, words[2])
            .word(0, words[3])
    }
}

/// Writes lengths and checksum of an IPv4 header that an option was put into (`change` above 0), or taken from.
#[inline(always)]
fn resize_v4(skb: Skb, l3: u32, change: i32, option: &V4Option) -> Result<(), HelperFailed> {
    let [ihl, tos]: [u8; 2] = skb.load(l3)?;
    let total: u16 = skb.load(l3 + 2)?;
    let sum: u16 = skb.load(l3 + V4_SUM)?;
    let new = [(i32::from(ihl) + change / 4) as u8, tos];
    let new_total = resized(total, change)?;
    let [a, b, c, d, e, f, g, h] = *option;
    let words = [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])];
    let diff =
        Diff::NONE.half(u16::from_ne_bytes([ihl, tos]), u16::from_ne_bytes(new)).half(total, new_total);
    let diff = if change > 0 {
        diff.word(0, words[0]).word(0, words[1])
    } else {
        diff.word(words[0], 0).word(words[1], 0)
    };
    if change < 0 {
        // The kernel has taken the option out of a device's sum; the header's other words have made up for it.
        skb.adjust_device_sum(Diff::NONE.word(0, words[0]).word(0, words[1]).fold32());
    }
    skb.store(l3, &new)?;
    skb.store(l3 + 2, &new_total)?;
    skb.store(l3 + V4_SUM, &diff.apply(sum))
}

/// Writes length and next header of an IPv6 header behind which one was put, or taken away. Returns what that changes
/// in a sum.
#[inline(always)]
fn resize_v6(skb: Skb, l3: u32, change: i32, next: u8) -> Result<Diff, HelperFailed> {
    let len: u16 = skb.load(l3 + V6_PAYLOAD)?;
    let [old_next, hops]: [u8; 2] = skb.load(l3 + V6_NEXT)?;
    let new_len = resized(len, change)?;
    skb.store(l3 + V6_PAYLOAD, &new_len)?;
    skb.store(l3 + V6_NEXT, &next)?;
    let halves = [u16::from_ne_bytes([old_next, hops]), u16::from_ne_bytes([next, hops])];
    Ok(Diff::NONE.half(len, new_len).half(halves[0], halves[1]))
}

/// A length on the wire. Super-packets of more than 64 KiB carry 0.
#[inline(always)]
fn resized(len: u16, change: i32) -> Result<u16, HelperFailed> {
    match len {
        0 => Ok(0),
        _ => u16::try_from(i32::from(u16::from_be(len)) + change).map(u16::to_be).map_err(|_| HelperFailed),
    }
}

step::global! {
    /// Takes the frontend out of a packet that another node has sent on. False: it is no such packet.
    pub(super) fn take_out(skb: Skb, packet: &Packet, meta: &Meta, query: &mut Query, dsr: &mut Dsr) -> Found
        = remove_option as dsr_option_take_out;
}

#[inline(always)]
fn remove_option(skb: Skb, packet: &Packet, meta: &Meta, query: &mut Query, dsr: &mut Dsr) -> Found {
    let l3 = packet.l3;
    let mut option = [0; 8];
    let mut next = 0;
    dsr.claim = packet.tuple;
    let claimed = &mut dsr.claim;
    if packet.is_v4 {
        if packet.l4 - l3 < V4_LEN + V4_ADDED {
            return Ok(false);
        }
        let Ok(read) = skb.load::<V4Option>(l3 + V4_LEN) else { return Ok(false) };
        let [kind, len, high, low, a, b, c, d] = read;
        if kind != V4_KIND || u32::from(len) != V4_ADDED {
            return Ok(false);
        }
        option = read;
        claimed.dst = Addr::v4([a, b, c, d]);
        claimed.dst_port = u16::from_be_bytes([high, low]);
    } else {
        if packet.l4 - l3 < V6_LEN + V6_ADDED || !skb.load(l3 + V6_NEXT).is_ok_and(|n: u8| n == DEST_OPTIONS)
        {
            return Ok(false);
        }
        let Ok(read) = skb.load::<V6Header>(l3 + V6_LEN) else { return Ok(false) };
        let fits = read.len == V6_HEADER_LEN && read.pad == V6_PAD && read.data_len == V6_DATA_LEN;
        let addr = Addr::v6(read.addr);
        if read.kind != V6_KIND || !fits || addr.is_v4() {
            return Ok(false);
        }
        next = read.next;
        claimed.dst = addr;
        claimed.dst_port = u16::from_be(read.port);
    }
    if !is_believed(packet, meta, query, dsr)? {
        return Ok(false);
    }
    dsr.is_unwrapped = true;
    let is_v4 = packet.is_v4;
    let cut = if is_v4 { -(V4_ADDED as i32) } else { -(V6_ADDED as i32) };
    let resized = skb.resize_options(cut, Segments::Kept).and_then(|()| match is_v4 {
        true => resize_v4(skb, l3, cut, &option),
        // The kernel has taken the header out of a device's sum.
        false => resize_v6(skb, l3, cut, next).map(|diff| skb.adjust_device_sum(diff.fold32())),
    });
    match resized {
        Ok(()) => Ok(true),
        Err(HelperFailed) => Err(Verdict::RewriteFailed),
    }
}

step::global! {
    /// Addresses the packet to the frontend again, which is in `Dsr::claim`.
    pub(super) fn address(skb: Skb, packet: &mut Packet, dsr: &Dsr) -> Step
        = address_to_frontend as dsr_option_address;
}

#[inline(always)]
fn address_to_frontend(skb: Skb, packet: &mut Packet, dsr: &Dsr) -> Step {
    let (dst, dst_port) = (dsr.claim.dst, dsr.claim.dst_port);
    let mut to = packet.tuple;
    to.dst = dst;
    to.dst_port = dst_port;
    nat::rewrite(skb, packet, &to)?;
    packet.tuple.dst = dst;
    packet.tuple.dst_port = if packet.part == Part::Later { 0 } else { dst_port };
    if packet.is_v4 {
        let Ok(sum) = skb.load(packet.l3 + V4_SUM) else { return Err(Verdict::RewriteFailed) };
        packet.ip_sum = sum;
    }
    Ok(())
}
