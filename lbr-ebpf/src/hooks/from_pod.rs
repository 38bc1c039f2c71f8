//! What a pod sends: requests, and answers of backends on this node.

use lbr_common::flow::BY_ROUTE;
use lbr_common::policy::policy_flags;
use lbr_common::verdict::{Effect, Verdict};

use crate::exit::Outcome;
use crate::packet::{self, Part};
use crate::scratch::Scratch;
use crate::service::{self, From};
use crate::skb::Skb;
use crate::step::check;
use crate::{begin, flow, fragment, icmp_error, nat, policy, route, source};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    packet::parse(skb, &mut work.packet).map_err(|verdict| unread(work, verdict))?;
    if work.packet.is_neighbor_discovery() {
        return Err(if work.packet.is_of_router() {
            Verdict::RouterMessage
        } else {
            Verdict::NeighborDiscovery
        });
    }
    if work.packet.is_icmp_error() {
        if work.packet.is_redirect() {
            return Err(Verdict::RouterMessage);
        }
        check(source::check(work))?;
        check(icmp_error::translate(skb, work))?;
        return Ok(Verdict::IcmpError);
    }
    if work.packet.part == Part::Later {
        check(fragment::complete(&mut work.packet)).map_err(|verdict| unread(work, verdict))?;
    }
    if !flow::find(work, work.ifindex)? {
        begin(work)?;
    }
    if work.packet.part == Part::First {
        check(fragment::remember(&work.packet))?;
    }
    if work.decision.is_plain {
        return Ok(Verdict::Allowed);
    }
    if work.decision.link == BY_ROUTE {
        // To a client elsewhere, in the name of the node.
        let to = work.decision.to.dst;
        check(route::find(skb, work, &to))?;
        nat::rewrite(skb, &work.packet, &work.decision.to)?;
        route::count_hop(skb, &work.packet).map_err(|_| Verdict::RewriteFailed)?;
        return Ok(Verdict::ToClient);
    }
    nat::rewrite(skb, &work.packet, &work.decision.to)?;
    Ok(if work.decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}

/// A packet without a flow.
#[inline(always)]
fn begin(work: &mut Scratch) -> Result<(), Verdict> {
    let from = work.ifindex;
    check(source::check(work))?;
    let to = &work.packet.tuple;
    match service::frontend(&to.dst, to.dst_port, to.proto, From::Pod(&to.src)) {
        Ok(frontend) => {
            work.frontend = frontend;
            check(begin::to_service(work, from))
        }
        Err(Verdict::NoService) if service::is_unallocated(&to.dst) => Err(Verdict::UnallocatedAddress),
        Err(Verdict::NoService) => check(begin::plain(work, from)),
        Err(verdict) => Err(verdict),
    }
}

/// What passes because lbr can not read it must not be a way out for a pod that may not send.
#[inline(always)]
fn unread(work: &Scratch, verdict: Verdict) -> Verdict {
    let passes = matches!(verdict.effect(), Effect::Pass) && verdict != Verdict::NotIp;
    if passes && policy::isolates(work, policy_flags::ISOLATED_OUT) { Verdict::NotJudged } else { verdict }
}
