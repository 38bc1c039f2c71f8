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
use crate::packet::{self, Part, fragments};
use crate::policy::{self, source};
use crate::scratch::Scratch;
use crate::service::{self, Origin};
use crate::step::{self, Found, Step};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    if let Err(verdict) = packet::parse(skb, &mut work.packet) {
        return Err(unread(work, verdict));
    }
    if work.packet.is_of_link_scope() && is_neighbor_discovery(work)? {
        return Err(Verdict::NeighborDiscovery);
    }
    if work.packet.is_icmp_error() {
        if work.packet.is_redirect() {
            return Err(Verdict::RouterMessage);
        }
        source::check(work)?;
        icmp_error::translate(skb, work)?;
        return Ok(Verdict::IcmpError);
    }
    if work.packet.part == Part::Later
        && let Err(verdict) = fragments::complete(work)
    {
        return Err(unread(work, verdict));
    }
    let found = if conntrack::find(work, Hook::FromPod)? { Ok(()) } else { begin(work) };
    let found = found.and_then(|()| nat::is_possible(&work.packet, &work.decision.to));
    fragments::remember_if_passed(work, &found)?;
    found?;
    if work.decision.is_no_nat {
        return Ok(Verdict::Allowed);
    }
    if work.decision.redirect_to == BY_ROUTE {
        // To a client elsewhere, in the name of the node.
        let to = work.decision.to.dst;
        route::find(skb, work, &to)?;
        nat::rewrite(skb, &work.packet, &work.decision.to)?;
        route::decrement_ttl(skb, &work.packet).map_err(|_| Verdict::RewriteFailed)?;
        return Ok(Verdict::ToClient);
    }
    nat::rewrite(skb, &work.packet, &work.decision.to)?;
    Ok(if work.decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}

/// A packet without a flow.
#[inline(always)]
fn begin(work: &mut Scratch) -> Step {
    if is_for_service(work)? {
        return create::to_service(work);
    }
    match create::plain(work) {
        // No end is a known pod. It is a flow nevertheless: a Service may lead from the same port to the same backend,
        // before or after, and then the answers of both must be distinct.
        Err(Verdict::NotService) if may_meet_service(work) => create::beside_service(work),
        begun => begun,
    }
}

/// Whether a connection that the packet begins could have the same answers as one to a Service, or the packet's answers
/// would be taken for those of a flow that translates. The late answer of a flow that is over begins none: it would keep the
/// client's port from the Service.
#[inline(always)]
fn may_meet_service(work: &Scratch) -> bool {
    let packet = &work.packet;
    let Tuple { dst, proto, .. } = &packet.tuple;
    let is_of_services =
        matches!(*proto, proto::TCP | proto::UDP | proto::SCTP) && !dst.is_link_local() && !dst.is_group();
    let is_late = work.draft.replaces && conntrack::was_answer(packet);
    (is_of_services && packet.can_begin() && !is_late)
        || (!packet.is_reset() && conntrack::meets_translated(packet))
}

step::global! {
    /// Whether a packet without a flow begins one to a Service, whose frontend is `Draft::frontend` then.
    fn is_for_service(work: &mut Scratch) -> Found = find_frontend as from_pod_frontend;
}

#[inline(always)]
fn find_frontend(work: &mut Scratch) -> Found {
    source::check(work)?;
    let to = &work.packet.tuple;
    if matches!(to.proto, proto::IPV4 | proto::IPV6) && service::is_in_cluster(&to.dst) {
        return Err(Verdict::TunnelFromPod);
    }
    match service::frontend(&to.dst, to.dst_port, to.proto, Origin::Pod(&to.src)) {
        Err(Verdict::NotService) if service::is_in_cidr(&to.dst) => Err(Verdict::UnallocatedAddress),
        Err(Verdict::NotService) => Ok(false),
        Ok(frontend) if work.packet.can_begin() || service::picks_up(&work.packet, &frontend) => {
            work.draft.frontend = frontend;
            Ok(true)
        }
        Err(verdict) if work.packet.can_begin() => Err(verdict),
        _ => Err(service::no_connection(&work.packet)),
    }
}

/// Whether it speaks of addresses on its link to hosts on its link, and not as a router does. What is addressed further,
/// or to an address of which nothing is known, is a packet like others: a router would forward it.
#[inline(always)]
fn is_neighbor_discovery(work: &mut Scratch) -> Found {
    if work.packet.is_of_router() {
        return Err(Verdict::RouterMessage);
    }
    match source::check(work) {
        // Its packets are judged when it is known; that the node finds it harms no other.
        Ok(()) | Err(Verdict::PodPending) => {}
        Err(verdict) => return Err(verdict),
    }
    let to = work.packet.tuple.dst;
    if to.is_link_local() || to.is_group() {
        return Ok(true);
    }
    // Of other addresses, the node's and its pods' are on the link.
    let ifindex = policy::endpoint(&to, work.generation, &mut work.query.receiver);
    Ok(ifindex != 0 || work.query.receiver.flags & policy_flags::NODE != 0)
}

/// A packet that lbr does not parse passes if its source is the pod's and the pod is not isolated for egress. A VLAN tag is
/// dropped: the source check does not reach behind it.
#[inline(always)]
fn unread(work: &mut Scratch, verdict: Verdict) -> Verdict {
    if verdict == Verdict::VlanTagged {
        return Verdict::TaggedByPod;
    }
    if verdict == Verdict::NotIp || verdict.effect() != Effect::Pass {
        return verdict;
    }
    if policy::isolates(work, policy_flags::ISOLATED_OUT) {
        return Verdict::NotJudged;
    }
    match source::check(work) {
        Ok(()) if work.query.sender.flags & policy_flags::ISOLATED_OUT != 0 => Verdict::NotJudged,
        Ok(()) => verdict,
        Err(spoofed) => spoofed,
    }
}
