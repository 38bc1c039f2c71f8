//! What comes by the wire, before the node's stack: requests to Services from elsewhere, and answers of backends on
//! other nodes. What is not for a Service is left to the stack, and to the hooks at the pods' links.

use lbr_common::flow::BY_ROUTE;
use lbr_common::service::Frontend;
use lbr_common::verdict::{Hook, Verdict};

use crate::conntrack::{self, create};
use crate::forward::exit::Outcome;
use crate::forward::route;
use crate::nat::{self, icmp_error};
use crate::packet::skb::Skb;
use crate::packet::{self, Packet, Part, fragments};
use crate::policy::query::Query;
use crate::policy::source;
use crate::scratch::{Decision, Draft, Dsr, Meta, Scratch, Way};
use crate::service::{self, Origin, dsr};
use crate::step::{self, Found, Step};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    if !skb.is_for_this_host() {
        return Err(Verdict::OtherHost);
    }
    if packet::lacks_link_header(skb) {
        return Err(Verdict::NoLinkHeader);
    }
    let Scratch { packet, inner, meta, query, decision, draft, dsr, way, .. } = work;
    packet::parse_at_uplink(skb, packet)?;
    if packet.is_of_link_scope() {
        return Err(Verdict::NeighborDiscovery);
    }
    if packet.is_icmp_error() {
        source::check_external(packet, meta, query)?;
        icmp_error::translate(skb, packet, inner, meta, query, decision, way)?;
        return Ok(Verdict::IcmpError);
    }
    dsr::unwrap(skb, packet, inner, meta, query, dsr)?;
    if packet.part == Part::Later
        && let Err(verdict) = fragments::complete(packet)
    {
        // It passes, as its first one may have, which was looked at.
        source::check_external(packet, meta, query)?;
        return Err(verdict);
    }
    let found = conntrack::find(packet, meta, query, decision, draft, dsr, Hook::FromNetdev)?;
    // A packet of direct server return is never sent to a third node, whatever was so before.
    if found && !(dsr.is_unwrapped && decision.is_dsr) {
        follow(skb, packet, meta, decision, way)?;
    } else {
        begin(skb, packet, meta, query, draft, dsr, way)?;
        conntrack::decide_first(decision, draft)?;
        if decision.is_no_nat {
            return Err(Verdict::Allowed);
        }
    }
    nat::is_possible(packet, &decision.to)?;
    fragments::remember(packet)?;
    if !decision.is_dsr_ipip {
        nat::rewrite(skb, packet, &decision.to)?;
    }
    if decision.redirect_to == BY_ROUTE {
        route::decrement_ttl(skb, packet).map_err(|_| Verdict::RewriteFailed)?;
        if decision.is_dsr {
            dsr::wrap(skb, packet, decision, way)?;
        }
    }
    Ok(if decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}

step::global! {
    /// A packet of a known flow.
    fn follow(skb: Skb, packet: &Packet, meta: &Meta, decision: &Decision, way: &mut Way) -> Step
        = follow_flow as from_netdev_follow;
}

#[inline(always)]
fn follow_flow(skb: Skb, packet: &Packet, meta: &Meta, decision: &Decision, way: &mut Way) -> Step {
    // Without a redirect target `to_pod` translates it.
    if decision.is_no_nat || (!decision.is_external && decision.is_reply && decision.redirect_to == 0) {
        return Err(Verdict::Allowed);
    }
    if decision.redirect_to == BY_ROUTE {
        let added = if decision.is_dsr {
            dsr::room(skb, packet, decision.is_dsr_ipip).ok_or(Verdict::NoRoomForOption)?
        } else {
            0
        };
        return route::find(skb, packet, meta, way, &decision.to.dst, added);
    }
    Ok(())
}

/// A packet without a flow.
#[inline(always)]
fn begin(
    skb: Skb,
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    draft: &mut Draft,
    dsr: &Dsr,
    way: &mut Way,
) -> Step {
    if dsr.is_unwrapped && dsr.backend.is_none() {
        return Err(Verdict::FragmentUnknown);
    }
    let is_for_service = find_frontend(packet, meta, query, draft, dsr)?;
    // A segment that opens nothing makes no entry here but for the next case, and no socket takes it without a connection.
    let may_begin_flow = packet.can_begin() || dsr.backend.is_some();
    if may_begin_flow {
        source::check_external(packet, meta, query)?;
    }
    if !is_for_service && conntrack::meets_translated(packet) {
        if !may_begin_flow {
            source::check_external(packet, meta, query)?;
        }
        return keep_apart(packet, meta, query, draft);
    }
    if !is_for_service {
        return Err(Verdict::NotService);
    }
    if !may_begin(skb, packet, meta, query, draft, dsr) {
        return Err(service::no_connection(packet));
    }
    if service::is_martian(&packet.tuple.src) {
        return Err(Verdict::Martian);
    }
    create::from_wire(skb, packet, meta, query, draft, dsr, way)
}

step::global! {
    /// Whether the packet is for a Service, whose frontend is `Draft::frontend` then.
    fn find_frontend(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft, dsr: &Dsr) -> Found
        = look_up_frontend as from_netdev_frontend;
}

#[inline(always)]
fn look_up_frontend(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft, dsr: &Dsr) -> Found {
    if dsr.backend.is_some() {
        draft.frontend = Frontend::default();
        return Ok(true);
    }
    let to = &packet.tuple;
    match service::frontend(&to.dst, to.dst_port, to.proto, Origin::External(&to.src)) {
        Ok(frontend) => {
            draft.frontend = frontend;
            Ok(true)
        }
        Err(Verdict::NotService) if service::is_in_cidr(&to.dst) => Err(Verdict::UnallocatedAddress),
        Err(Verdict::NotService) => Ok(false),
        Err(verdict) if packet.can_begin() => {
            source::check_external(packet, meta, query)?;
            Err(verdict)
        }
        Err(_) => Err(service::no_connection(packet)),
    }
}

/// Whether the packet at hand, which has no flow, begins one at its frontend.
#[inline(always)]
fn may_begin(skb: Skb, packet: &Packet, meta: &Meta, query: &mut Query, draft: &Draft, dsr: &Dsr) -> bool {
    if packet.can_begin() {
        return true;
    }
    if dsr.backend.is_some() {
        // The node that was asked has the connection.
        return !packet.is_reset();
    }
    service::picks_up(packet, &draft.frontend)
        && !skb.has_socket(packet)
        && source::check_external(packet, meta, query).is_ok()
}

/// The client already has a flow to this backend by a Service, and now uses the backend's own address from the same port.
/// Both flows would have the same reply tuple, so this one gets another source port.
#[inline(always)]
fn keep_apart(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step {
    if packet.is_reset() {
        // It begins nothing, and would look like one of the flow that translates.
        return Err(Verdict::NoConnection);
    }
    create::beside_service(packet, meta, query, draft)
}
