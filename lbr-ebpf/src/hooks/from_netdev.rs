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
use crate::packet::{self, Part, fragments};
use crate::policy::source;
use crate::scratch::Scratch;
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
    packet::parse_at_uplink(skb, &mut work.packet)?;
    if work.packet.is_of_link_scope() {
        return Err(Verdict::NeighborDiscovery);
    }
    if work.packet.is_icmp_error() {
        source::check_external(work)?;
        icmp_error::translate(skb, work)?;
        return Ok(Verdict::IcmpError);
    }
    dsr::unwrap(skb, work)?;
    if work.packet.part == Part::Later
        && let Err(verdict) = fragments::complete(work)
    {
        // It passes, as its first one may have, which was looked at.
        source::check_external(work)?;
        return Err(verdict);
    }
    // A packet of direct server return is never sent to a third node, whatever was so before.
    if conntrack::find(work, Hook::FromNetdev)? && !(work.dsr.is_unwrapped && work.decision.is_dsr) {
        follow(skb, work)?;
    } else {
        begin(skb, work)?;
    }
    nat::is_possible(&work.packet, &work.decision.to)?;
    fragments::remember(work)?;
    if !work.decision.is_dsr_ipip {
        nat::rewrite(skb, &work.packet, &work.decision.to)?;
    }
    if work.decision.redirect_to == BY_ROUTE {
        route::decrement_ttl(skb, &work.packet).map_err(|_| Verdict::RewriteFailed)?;
        if work.decision.is_dsr {
            dsr::wrap(skb, work)?;
        }
    }
    Ok(if work.decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}

step::global! {
    /// A packet of a known flow.
    fn follow(skb: Skb, work: &mut Scratch) -> Step = follow_flow as from_netdev_follow;
}

#[inline(always)]
fn follow_flow(skb: Skb, work: &mut Scratch) -> Step {
    let decision = &work.decision;
    // Without a redirect target `to_pod` translates it.
    if decision.is_no_nat || (!decision.is_external && decision.is_reply && decision.redirect_to == 0) {
        return Err(Verdict::Allowed);
    }
    if decision.redirect_to == BY_ROUTE {
        let to = decision.to.dst;
        if decision.is_dsr && !dsr::makes_room(skb, work, decision.is_dsr_ipip) {
            return Err(Verdict::NoRoomForOption);
        }
        return route::find(skb, work, &to);
    }
    Ok(())
}

/// A packet without a flow.
#[inline(always)]
fn begin(skb: Skb, work: &mut Scratch) -> Step {
    if work.dsr.is_unwrapped && work.dsr.backend.is_none() {
        return Err(Verdict::FragmentUnknown);
    }
    let is_for_service = find_frontend(work)?;
    // A segment that opens nothing makes no entry here but for the next case, and no socket takes it without a connection.
    let may_begin_flow = work.packet.can_begin() || work.dsr.backend.is_some();
    if may_begin_flow {
        source::check_external(work)?;
    }
    if !is_for_service && conntrack::meets_translated(&work.packet) {
        if !may_begin_flow {
            source::check_external(work)?;
        }
        return keep_apart(work);
    }
    if !is_for_service {
        return Err(Verdict::NotService);
    }
    if !may_begin(skb, work) {
        return Err(service::no_connection(&work.packet));
    }
    if service::is_martian(&work.packet.tuple.src) {
        return Err(Verdict::Martian);
    }
    create::from_wire(skb, work)
}

step::global! {
    /// Whether the packet is for a Service, whose frontend is `Draft::frontend` then.
    fn find_frontend(work: &mut Scratch) -> Found = look_up_frontend as from_netdev_frontend;
}

#[inline(always)]
fn look_up_frontend(work: &mut Scratch) -> Found {
    if work.dsr.backend.is_some() {
        work.draft.frontend = Frontend::default();
        return Ok(true);
    }
    let to = &work.packet.tuple;
    match service::frontend(&to.dst, to.dst_port, to.proto, Origin::External(&to.src)) {
        Ok(frontend) => {
            work.draft.frontend = frontend;
            Ok(true)
        }
        Err(Verdict::NotService) if service::is_in_cidr(&to.dst) => Err(Verdict::UnallocatedAddress),
        Err(Verdict::NotService) => Ok(false),
        Err(verdict) if work.packet.can_begin() => {
            source::check_external(work)?;
            Err(verdict)
        }
        Err(_) => Err(service::no_connection(&work.packet)),
    }
}

/// Whether the packet at hand, which has no flow, begins one at its frontend.
#[inline(always)]
fn may_begin(skb: Skb, work: &mut Scratch) -> bool {
    if work.packet.can_begin() {
        return true;
    }
    if work.dsr.backend.is_some() {
        // The node that was asked has the connection.
        return !work.packet.is_reset();
    }
    service::picks_up(&work.packet, &work.draft.frontend)
        && !skb.has_socket(&work.packet)
        && source::check_external(work).is_ok()
}

/// The client already has a flow to this backend by a Service, and now uses the backend's own address from the same port.
/// Both flows would have the same reply tuple, so this one gets another source port.
#[inline(always)]
fn keep_apart(work: &mut Scratch) -> Step {
    if work.packet.is_reset() {
        // It begins nothing, and would look like one of the flow that translates.
        return Err(Verdict::NoConnection);
    }
    create::beside_service(work)?;
    if work.decision.is_no_nat { Err(Verdict::Allowed) } else { Ok(()) }
}
