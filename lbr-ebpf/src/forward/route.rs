//! Out by the node's routes, past its stack: the stack would not take a packet whose source is the node's own
//! address, and looks at more than has to be looked at.

use lbr_common::addr::Addr;
use lbr_common::link::Uplink;
use lbr_common::tuple::proto;
use lbr_common::verdict::Verdict;

use crate::forward::fib::{Lookup, NextHop};
use crate::maps::UPLINKS;
use crate::packet::Packet;
use crate::packet::bytes::Bytes;
use crate::packet::frame::Frame;
use crate::packet::skb::{HelperFailed, Skb};
use crate::scratch::{Meta, Way};
use crate::step::{self, Step};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Results of `bpf_fib_lookup` (linux/bpf.h).
mod found {
    /// With the link addresses of both ends. At tc they are not used: the kernel fills them in where it sends.
    pub(super) const SUCCESS: i64 = 0;
    /// The next hop's link address is not known yet.
    pub(super) const NO_NEIGHBOR: i64 = 7;
    /// Too long for the next link.
    pub(super) const TOO_LONG: i64 = 8;
}

/// Finds the way to `to` for the packet at hand, as it came, which grows by `added` bytes before it leaves.
#[inline(always)]
pub(crate) fn find(skb: Skb, packet: &Packet, meta: &Meta, way: &mut Way, to: &Addr, added: u32) -> Step {
    way.to = *to;
    way.added = added;
    find_to(skb, packet, meta, way)
}

step::global! {
    /// The same to `Way::to`, with `Way::added`.
    fn find_to(skb: Skb, packet: &Packet, meta: &Meta, way: &mut Way) -> Step = look_up as route_find;
}

#[inline(always)]
fn look_up(skb: Skb, packet: &Packet, meta: &Meta, way: &mut Way) -> Step {
    let to = way.to;
    if packet.hop_limit <= 1 {
        return Err(Verdict::HopLimit);
    }
    let length = length(skb, packet, way).map_err(|HelperFailed| Verdict::Malformed)?;
    ask_for(packet, meta, way, &to, length);
    match skb.fib_lookup(&mut way.lookup) {
        found::SUCCESS | found::NO_NEIGHBOR => Ok(()),
        found::TOO_LONG if packet.may_be_fragmented => Err(Verdict::NeedsFragmentation),
        found::TOO_LONG => Err(Verdict::TooBig),
        _ => Err(Verdict::NoRoute),
    }
}

/// Whether the packet at hand, of which all is known that it takes to send it, leaves for `to` by the interface that it
/// came by. Only there is it sure that the driver sends what XDP hands to it.
#[inline(always)]
pub(crate) fn find_back(frame: Frame, packet: &Packet, meta: &Meta, way: &mut Way, to: &Addr) -> bool {
    let length = packet.end - packet.l3;
    let Ok(length) = u16::try_from(length) else { return false };
    if packet.hop_limit <= 1 {
        return false;
    }
    ask_for(packet, meta, way, to, length);
    frame.fib_lookup(&mut way.lookup) == found::SUCCESS && way.lookup.ifindex == meta.ifindex
}

/// Writes the question for the way to `to` of a packet of this length.
#[inline(always)]
fn ask_for(packet: &Packet, meta: &Meta, way: &mut Way, to: &Addr, length: u16) {
    let is_v4 = packet.is_v4;
    let tuple = &packet.tuple;
    way.lookup = Lookup {
        family: if is_v4 { AF_INET } else { AF_INET6 },
        l4_proto: tuple.proto,
        src_port: tuple.src_port.to_be(),
        dst_port: tuple.dst_port.to_be(),
        length,
        ifindex: meta.ifindex,
        traffic_class: 0,
        src: if is_v4 { [tuple.src.words()[3], 0, 0, 0] } else { tuple.src.words() },
        dst: if is_v4 { [to.words()[3], 0, 0, 0] } else { to.words() },
        _vlan: [0; 2],
        link_addresses: [[0; 3]; 2],
    };
}

/// How much the next link has to take: the packet behind the link header, or the largest of its segments, with what is
/// added. TCP's segments the kernel makes smaller by that.
#[inline(always)]
fn length(skb: Skb, packet: &Packet, way: &Way) -> Result<u16, HelperFailed> {
    let segment = skb.segment_len();
    if segment == 0 {
        return Ok((packet.end - packet.l3 + way.added).min(u32::from(u16::MAX)) as u16);
    }
    let header = match packet.tuple.proto {
        // The upper half of the byte counts words of four bytes (RFC 9293, 3.1).
        proto::TCP => u32::from(skb.load::<u8>(packet.l4 + 12)? >> 4) * 4,
        _ => 8 + way.added,
    };
    Ok((packet.l4 - packet.l3 + header + segment).min(u32::from(u16::MAX)) as u16)
}

/// The node's address at the end of the way that was found, in the name of which it sends what others began.
#[inline(always)]
pub(crate) fn own_address(packet: &Packet, way: &Way) -> Option<&'static Addr> {
    let uplink = uplink(way)?;
    known(if packet.is_v4 { &uplink.v4 } else { &uplink.v6 })
}

/// The address by which other nodes know this one, of the family of the packet at hand.
#[inline(always)]
pub(crate) fn node_address(packet: &Packet, way: &Way) -> Option<&'static Addr> {
    let uplink = uplink(way)?;
    known(if packet.is_v4 { &uplink.node_v4 } else { &uplink.node_v6 })
}

/// The interface at the end of the way.
#[inline(always)]
fn uplink(way: &Way) -> Option<&'static Uplink> {
    // SAFETY: valid for the run of the program; the agent replaces entries whole.
    UPLINKS.get_ptr(way.lookup.ifindex).map(|uplink| unsafe { &*uplink })
}

#[inline(always)]
fn known(addr: &Addr) -> Option<&Addr> {
    if *addr == Addr::UNSPECIFIED { None } else { Some(addr) }
}

/// The MTU that the packet at hand does not fit: of the link, less what is added.
#[inline(always)]
pub(crate) fn mtu(way: &Way) -> u16 {
    way.lookup.length.saturating_sub(way.added as u16)
}

/// Sends the packet, which was rewritten before, the way that was found. Returns the action.
#[inline(always)]
pub(crate) fn send(skb: Skb, way: &mut Way) -> i32 {
    let Way { lookup, next_hop, .. } = way;
    *next_hop = NextHop { family: u32::from(lookup.family), addr: lookup.dst };
    skb.redirect_neighbor(lookup.ifindex, next_hop)
}

/// Gives the frame the link addresses of the way that was found.
#[inline(always)]
pub(crate) fn address_next_hop(frame: Frame, way: &Way) -> Result<(), HelperFailed> {
    let [own, next] = way.lookup.link_addresses;
    frame.store(0, &[next, own])
}

/// One hop less for the packet to go (RFC 1812, 5.3.1).
#[inline(always)]
pub(crate) fn decrement_ttl(skb: impl Bytes, packet: &Packet) -> Result<(), HelperFailed> {
    let left = packet.hop_limit - 1;
    if packet.is_v4 {
        // The header's checksum covers it: as the upper half of the word that it shares with the protocol.
        let (old, new) = ([packet.hop_limit, packet.tuple.proto], [left, packet.tuple.proto]);
        skb.fix_header_sum(packet.l3 + 10, u16::from_ne_bytes(old), u16::from_ne_bytes(new))?;
        skb.store(packet.l3 + 8, &left)
    } else {
        skb.store(packet.l3 + 7, &left)?;
        // What a device has summed up covers it, and nothing in the packet makes up for it.
        let (old, new) = (u16::from_ne_bytes([0, packet.hop_limit]), u16::from_ne_bytes([0, left]));
        skb.adjust_device_sum(lbr_common::checksum::Diff::NONE.half(old, new).fold32());
        Ok(())
    }
}
