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
use crate::packet::inner::{self, Inner};
use crate::packet::ip_header::{self, Header, Start};
use crate::packet::skb::{HelperFailed, Skb};
use crate::packet::{Packet, Part};
use crate::policy::query::Query;
use crate::scratch::{Decision, Dsr, Meta, Way};
use crate::service;
use crate::step::{self, Found, Step};

/// Bytes that the packet grows by.
#[inline(always)]
pub(super) fn len(packet: &Packet) -> u32 {
    ip_header::len(packet)
}

step::global! {
    /// Puts the packet into one from the node's own address to the backend's.
    pub(super) fn wrap(skb: Skb, packet: &Packet, decision: &Decision, way: &Way) -> Step
        = put_around as dsr_tunnel_wrap;
}

#[inline(always)]
fn put_around(skb: Skb, packet: &Packet, decision: &Decision, way: &Way) -> Step {
    let from = route::node_address(packet, way).ok_or(Verdict::NoRoute)?;
    try_wrap(skb, packet, from, &decision.to.dst).map_err(|HelperFailed| Verdict::RewriteFailed)
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
    /// Takes the packet out of one that another node has sent here. False: it is no such packet.
    pub(super) fn take_out(
        skb: Skb, packet: &mut Packet, inner: &mut Inner, meta: &Meta, query: &mut Query, dsr: &mut Dsr
    ) -> Found = decapsulate as dsr_tunnel_take_out;
}

#[inline(always)]
fn decapsulate(
    skb: Skb,
    packet: &mut Packet,
    inner: &mut Inner,
    meta: &Meta,
    query: &mut Query,
    dsr: &mut Dsr,
) -> Found {
    let is_whole = packet.part == Part::Whole && packet.is_v4 == (packet.tuple.proto == proto::IPV4);
    if !is_whole || !service::is_node(&packet.tuple.src) {
        return Ok(false);
    }
    let (backend, added) = (packet.tuple.dst, packet.l4 - packet.l3);
    if inner::read(skb, packet, inner, packet.l4).is_err()
        || !matches!(inner.packet.tuple.proto, proto::TCP | proto::UDP)
    {
        return Ok(false);
    }
    dsr.claim = inner.packet.tuple;
    core::mem::swap(packet, &mut inner.packet);
    packet.tuple.dst = backend;
    packet.tuple.dst_port = 0;
    if !is_believed(packet, meta, query, dsr)? {
        core::mem::swap(packet, &mut inner.packet);
        return Ok(false);
    }
    dsr.is_unwrapped = true;
    skb.decapsulate(added).map_err(|HelperFailed| Verdict::RewriteFailed)?;
    Ok(true)
}
