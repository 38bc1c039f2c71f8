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
use crate::scratch::Scratch;

/// The pipeline.
#[inline(always)]
pub(crate) fn run(frame: Frame, work: &mut Scratch) -> Outcome {
    if !is_carried_on(frame, work).unwrap_or(false) {
        return Err(Verdict::LeftToTc);
    }
    // From here on the packet is changed: it can no longer go to tc.
    nat::rewrite(frame, &work.packet, &work.decision.to)?;
    let sent = route::decrement_ttl(frame, &work.packet).and_then(|()| route::address_next_hop(frame, work));
    sent.map_err(|HelperFailed| Verdict::RewriteFailed)?;
    Ok(if work.decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}

/// Whether the packet goes on as others of its flow did, and how: fills the decision and the route.
#[inline(always)]
fn is_carried_on(frame: Frame, work: &mut Scratch) -> Result<bool, HelperFailed> {
    // Destination, source, EtherType.
    let ethernet: [u16; 7] = frame.load(0)?;
    Ok(packet::parse_ip(frame, ethernet[6], &mut work.packet).is_ok()
        && is_ordinary(&work.packet)
        && conntrack::carry_on(work)
        && has_whole_sum(frame, &work.packet)?
        && route::find_back(frame, work)
        // A promiscuous interface hears others' frames too.
        && ethernet[..3] == work.way.lookup.link_addresses[0])
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
