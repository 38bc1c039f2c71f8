//! The packet as it came, in a packet from this node to the backend: IP in IP (RFC 2003, RFC 2473). For networks that
//! drop or slow down what carries options.
//!
//! What is on the outside tells nothing to the inside: the backend's node takes it off unread but for both addresses. So
//! it must not be marked for congestion (RFC 6040, 4.1: compatibility mode).

use lbr_common::addr::Addr;
use lbr_common::tuple::proto;
use lbr_common::verdict::Verdict;

use super::is_believed;
use crate::forward::route;
use crate::packet::inner;
use crate::packet::ip_header::{self, Header, Start};
use crate::packet::skb::{HelperFailed, Skb};
use crate::packet::{self, Packet, Part};
use crate::scratch::Scratch;
use crate::service;
use crate::step::{self, Step};

/// Bytes that the packet grows by.
#[inline(always)]
pub(super) fn len(packet: &Packet) -> u32 {
    ip_header::len(packet)
}

step::global! {
    /// Puts the packet into one from the node's own address to the backend's.
    pub(super) fn wrap(skb: Skb, work: &mut Scratch) -> Step = put_around as dsr_tunnel_wrap;
}

#[inline(always)]
fn put_around(skb: Skb, work: &mut Scratch) -> Step {
    let from = route::node_address(work).ok_or(Verdict::NoRoute)?;
    try_wrap(skb, &work.packet, from, &work.decision.to.dst).map_err(|HelperFailed| Verdict::RewriteFailed)
}

#[inline(always)]
fn try_wrap(skb: Skb, packet: &Packet, from: &Addr, to: &Addr) -> Result<(), HelperFailed> {
    let inner: [u8; 4] = skb.load(packet.l3)?;
    let [first, class, ..] = inner;
    // Class and flow label of the packet, so that routers treat it as they would, but for its marks of congestion.
    let start = match packet.is_v4 {
        true => Start::v4(class & !0x03),
        false => Start([first, class & !0x30, inner[2], inner[3]]),
    };
    skb.encapsulate(len(packet), packet.is_v4, packet.segments())?;
    let proto = if packet.is_v4 { proto::IPV4 } else { proto::IPV6 };
    let header = Header { start, src: from, dst: to, proto, payload_len: packet.end - packet.l3 };
    header.store(skb, packet.is_v4)?;
    if !packet.is_v4 {
        // Nothing in the packet makes up for what a device has summed up.
        skb.adjust_device_sum(header.sum_v6());
    }
    Ok(())
}

step::global! {
    /// Takes the packet out of one that another node has sent here.
    pub(super) fn unwrap(skb: Skb, work: &mut Scratch) -> Step = take_out as dsr_tunnel_unwrap;
}

#[inline(always)]
fn take_out(skb: Skb, work: &mut Scratch) -> Step {
    let outer = &work.packet;
    let is_whole = outer.part == Part::Whole && outer.is_v4 == (outer.tuple.proto == proto::IPV4);
    if !is_whole || !service::is_node(&outer.tuple.src) {
        return Ok(());
    }
    let (backend, added) = (outer.tuple.dst, outer.l4 - outer.l3);
    if inner::read(skb, outer, outer.l4, &mut work.inner).is_err()
        || !matches!(work.inner.tuple.proto, proto::TCP | proto::UDP)
    {
        return Ok(());
    }
    work.dsr.claim = work.inner.tuple;
    core::mem::swap(&mut work.packet, &mut work.inner);
    work.packet.tuple.dst = backend;
    work.packet.tuple.dst_port = 0;
    if !is_believed(work)? {
        core::mem::swap(&mut work.packet, &mut work.inner);
        return Ok(());
    }
    work.dsr.is_unwrapped = true;
    skb.decapsulate(added).map_err(|HelperFailed| Verdict::RewriteFailed)?;
    packet::parse(skb, &mut work.packet)
}
