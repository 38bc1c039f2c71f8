//! What reaches a pod by the stack: from the node, from other nodes, and answers of backends that are elsewhere.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::{Effect, Hook, Verdict};

use crate::conntrack::{self, create};
use crate::forward::exit::Outcome;
use crate::nat::{self, icmp_error};
use crate::packet::skb::Skb;
use crate::packet::{self, Packet, Part, fragments};
use crate::policy::query::Query;
use crate::policy::{self, receiver, source};
use crate::scratch::{Decision, Draft, Dsr, Meta, Scratch};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    let Scratch { packet, inner, meta, query, decision, draft, dsr, way, .. } = work;
    if let Err(verdict) = packet::parse(skb, packet) {
        return Err(unread(meta, verdict));
    }
    if packet.is_of_link_scope() {
        return Err(Verdict::NeighborDiscovery);
    }
    let verdict = if packet.is_icmp_error() {
        if meta.entered_by != 0 {
            receiver::check(packet, meta, query)?;
        }
        icmp_error::translate(skb, packet, inner, meta, query, decision, way)?;
        Verdict::IcmpError
    } else {
        if packet.part == Part::Later
            && let Err(verdict) = fragments::complete(packet)
        {
            return Err(untracked(packet, meta, query, verdict)?);
        }
        let entered = enter(packet, meta, query, decision, draft, dsr);
        fragments::remember_if_passed(packet, &entered)?;
        let verdict = entered?;
        if verdict == Verdict::ToClient {
            nat::rewrite(skb, packet, &decision.to)?;
        }
        verdict
    };
    // The packet is on its way out of the right interface already.
    decision.redirect_to = 0;
    Ok(verdict)
}

/// The flow of the packet, found or begun.
#[inline(always)]
fn enter(
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    decision: &mut Decision,
    draft: &mut Draft,
    dsr: &Dsr,
) -> Outcome {
    if conntrack::find(packet, meta, query, decision, draft, dsr, Hook::ToPod)? {
        nat::is_possible(packet, &decision.to)?;
        return Ok(if decision.is_no_nat { Verdict::Allowed } else { Verdict::ToClient });
    }
    if meta.entered_by == 0 {
        return Err(Verdict::Node);
    }
    receiver::check(packet, meta, query)?;
    if conntrack::is_translated(packet, meta)? {
        return Ok(Verdict::Allowed);
    }
    source::check_forwarded(packet, meta, query)?;
    create::plain(packet, meta, query, draft)?;
    Ok(Verdict::Allowed)
}

/// A later fragment whose first one did not pass here, or not yet: what it belongs to can not be judged, so it does not
/// reach a pod that is isolated, whose address it has.
#[inline(always)]
fn untracked(packet: &Packet, meta: &Meta, query: &mut Query, verdict: Verdict) -> Outcome {
    if meta.entered_by != 0 {
        receiver::check(packet, meta, query)?;
        if query.receiver.flags & policy_flags::ISOLATED_IN != 0 {
            return Err(Verdict::NotJudged);
        }
    }
    Ok(unread(meta, verdict))
}

/// A packet that lbr does not parse does not reach a pod that is isolated for ingress, unless the node sent it.
#[inline(always)]
fn unread(meta: &Meta, verdict: Verdict) -> Verdict {
    let passes = verdict.effect() == Effect::Pass && verdict != Verdict::NotIp;
    let is_open = meta.entered_by == 0 || !policy::isolates(meta, policy_flags::ISOLATED_IN);
    if passes && !is_open { Verdict::NotJudged } else { verdict }
}
