//! What comes by the wire, before it has a packet buffer: packets of flows that lead out again by the interface they
//! came in by. This hook decides nothing. Whatever asks for more than carrying on is left to `from_netdev` as it came.

use lbr_common::checksum;
use lbr_common::tuple::proto;
use lbr_common::verdict::Verdict;

use crate::conntrack;
use crate::forward::exit::Outcome;
use crate::forward::route;
use crate::nat;
use crate::nat::{TCP_SUM, UDP_SUM};
use crate::packet::bytes::Bytes as _;
use crate::packet::frame::Frame;
use crate::packet::skb::HelperFailed;
use crate::packet::{self, Packet, Part};
use crate::scratch::{Decision, Draft, Meta, Scratch, Way};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(frame: Frame, work: &mut Scratch) -> Outcome {
    let Scratch { packet, meta, decision, draft, way, .. } = work;
    if !is_carried_on(frame, packet, meta, decision, draft, way).unwrap_or(false) {
        return Err(Verdict::LeftToTc);
    }
    // From here on the packet is changed: it can no longer go to tc.
    nat::rewrite(frame, packet, &decision.to)?;
    let sent = route::decrement_ttl(frame, packet).and_then(|()| route::address_next_hop(frame, way));
    sent.map_err(|HelperFailed| Verdict::RewriteFailed)?;
    Ok(if decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}

/// Whether the packet goes on as others of its flow did, and how: fills the decision and the route.
#[inline(always)]
fn is_carried_on(
    frame: Frame,
    packet: &mut Packet,
    meta: &Meta,
    decision: &mut Decision,
    draft: &mut Draft,
    way: &mut Way,
) -> Result<bool, HelperFailed> {
    // Destination, source, EtherType.
    let ethernet: [u16; 7] = frame.load(0)?;
    Ok(packet::parse_ip(frame, ethernet[6], packet).is_ok()
        && is_ordinary(packet)
        && conntrack::carry_on(packet, meta, decision, draft)
        && has_whole_sum(frame, packet)?
        && route::find_back(frame, packet, meta, way, &decision.to.dst)
        // A promiscuous interface hears others' frames too.
        && ethernet[..3] == way.lookup.link_addresses[0])
}

/// Whether it neither begins nor ends a connection, and is not a part of a packet. SCTP's checksum may be left to a
/// device without a trace.
#[inline(always)]
fn is_ordinary(packet: &Packet) -> bool {
    packet.part == Part::Whole && !packet.turns() && matches!(packet.tuple.proto, proto::TCP | proto::UDP)
}

/// Whether the transport checksum covers the packet. What was sent on this machine (a veth's other end, another guest)
/// may carry the sum of its pseudo header in its place, for a device to complete, and XDP has no way to ask one. A
/// true checksum is taken for that once in 65,536 times, and left to tc for nothing.
#[inline(always)]
fn has_whole_sum(frame: Frame, packet: &Packet) -> Result<bool, HelperFailed> {
    let sum_at = if packet.tuple.proto == proto::TCP { TCP_SUM } else { UDP_SUM };
    let sum: u16 = frame.load(packet.l4 + sum_at)?;
    Ok(sum != checksum::pseudo_header(&packet.tuple, packet.end - packet.l4))
}
