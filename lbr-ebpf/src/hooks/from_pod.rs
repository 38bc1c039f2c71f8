//! What a pod sends: requests, and answers of backends on this node.

use lbr_common::flow::BY_ROUTE;
use lbr_common::policy::policy_flags;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Effect, Hook, Verdict};

use crate::conntrack::{self, create};
use crate::forward::exit::Outcome;
use crate::forward::route;
use crate::nat::{self, icmp_error};
use crate::packet::skb::Skb;
use crate::packet::{self, Packet, Part, fragments};
use crate::policy::query::Query;
use crate::policy::{self, source};
use crate::scratch::{Draft, Meta, Scratch};
use crate::service::{self, Origin};
use crate::step::{self, Found, Step};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    let Scratch { packet, inner, meta, query, decision, draft, dsr, way, .. } = work;
    if let Err(verdict) = packet::parse(skb, packet) {
        return Err(unread(packet, meta, query, verdict));
    }
    if packet.is_of_link_scope() && is_neighbor_discovery(packet, meta, query)? {
        return Err(Verdict::NeighborDiscovery);
    }
    if packet.is_icmp_error() {
        if packet.is_redirect() {
            return Err(Verdict::RouterMessage);
        }
        source::check(packet, meta, query)?;
        icmp_error::translate(skb, packet, inner, meta, query, decision, way)?;
        return Ok(Verdict::IcmpError);
    }
    if packet.part == Part::Later
        && let Err(verdict) = fragments::complete(packet)
    {
        return Err(unread(packet, meta, query, verdict));
    }
    let found = if conntrack::find(packet, meta, query, decision, draft, dsr, Hook::FromPod)? {
        Ok(())
    } else {
        begin(packet, meta, query, draft).and_then(|()| conntrack::decide_first(decision, draft))
    };
    let found = found.and_then(|()| nat::is_possible(packet, &decision.to));
    fragments::remember_if_passed(packet, &found)?;
    found?;
    if decision.is_no_nat {
        return Ok(Verdict::Allowed);
    }
    if decision.redirect_to == BY_ROUTE {
        // To a client elsewhere, in the name of the node.
        route::find(skb, packet, meta, way, &decision.to.dst, 0)?;
        nat::rewrite(skb, packet, &decision.to)?;
        route::decrement_ttl(skb, packet).map_err(|_| Verdict::RewriteFailed)?;
        return Ok(Verdict::ToClient);
    }
    nat::rewrite(skb, packet, &decision.to)?;
    Ok(if decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}

/// A packet without a flow.
#[inline(always)]
fn begin(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step {
    if is_for_service(packet, meta, query, draft)? {
        return create::to_service(packet, meta, query, draft);
    }
    match create::plain(packet, meta, query, draft) {
        // No end is a known pod. It is a flow nevertheless: a Service may lead from the same port to the same backend,
        // before or after, and then the answers of both must be distinct.
        Err(Verdict::NotService) if may_meet_service(packet, draft) => {
            create::beside_service(packet, meta, query, draft)
        }
        begun => begun,
    }
}

/// Whether a connection that the packet begins could have the same answers as one to a Service, or the packet's answers
/// would be taken for those of a flow that translates. The late answer of a flow that is over begins none: it would keep the
/// client's port from the Service.
#[inline(always)]
fn may_meet_service(packet: &Packet, draft: &Draft) -> bool {
    let Tuple { dst, proto, .. } = &packet.tuple;
    let is_of_services =
        matches!(*proto, proto::TCP | proto::UDP | proto::SCTP) && !dst.is_link_local() && !dst.is_group();
    let is_late = draft.replaces && conntrack::was_answer(packet);
    (is_of_services && packet.can_begin() && !is_late)
        || (!packet.is_reset() && conntrack::meets_translated(packet))
}

step::global! {
    /// Whether a packet without a flow begins one to a Service, whose frontend is `Draft::frontend` then.
    fn is_for_service(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Found
        = find_frontend as from_pod_frontend;
}

#[inline(always)]
fn find_frontend(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Found {
    source::check(packet, meta, query)?;
    let to = &packet.tuple;
    if matches!(to.proto, proto::IPV4 | proto::IPV6) && service::is_in_cluster(&to.dst) {
        return Err(Verdict::TunnelFromPod);
    }
    match service::frontend(&to.dst, to.dst_port, to.proto, Origin::Pod(&to.src)) {
        Err(Verdict::NotService) if service::is_in_cidr(&to.dst) => Err(Verdict::UnallocatedAddress),
        Err(Verdict::NotService) => Ok(false),
        Ok(frontend) if packet.can_begin() || service::picks_up(packet, &frontend) => {
            draft.frontend = frontend;
            Ok(true)
        }
        Err(verdict) if packet.can_begin() => Err(verdict),
        _ => Err(service::no_connection(packet)),
    }
}

/// Whether it speaks of addresses on its link to hosts on its link, and not as a router does. What is addressed further,
/// or to an address of which nothing is known, is a packet like others: a router would forward it.
#[inline(always)]
fn is_neighbor_discovery(packet: &Packet, meta: &Meta, query: &mut Query) -> Found {
    if packet.is_of_router() {
        return Err(Verdict::RouterMessage);
    }
    match source::check(packet, meta, query) {
        // Its packets are judged when it is known; that the node finds it harms no other.
        Ok(()) | Err(Verdict::PodPending) => {}
        Err(verdict) => return Err(verdict),
    }
    let to = packet.tuple.dst;
    if to.is_link_local() || to.is_group() {
        return Ok(true);
    }
    // Of other addresses, the node's and its pods' are on the link.
    let ifindex = policy::endpoint(&to, meta.generation, &mut query.receiver);
    Ok(ifindex != 0 || query.receiver.flags & policy_flags::NODE != 0)
}

/// A packet that lbr does not parse passes if its source is the pod's and the pod is not isolated for egress. A VLAN tag is
/// dropped: the source check does not reach behind it.
#[inline(always)]
fn unread(packet: &Packet, meta: &Meta, query: &mut Query, verdict: Verdict) -> Verdict {
    if verdict == Verdict::VlanTagged {
        return Verdict::TaggedByPod;
    }
    if verdict == Verdict::NotIp || verdict.effect() != Effect::Pass {
        return verdict;
    }
    if policy::isolates(meta, policy_flags::ISOLATED_OUT) {
        return Verdict::NotJudged;
    }
    match source::check(packet, meta, query) {
        Ok(()) if query.sender.flags & policy_flags::ISOLATED_OUT != 0 => Verdict::NotJudged,
        Ok(()) => verdict,
        Err(spoofed) => spoofed,
    }
}
