//! What reaches a pod by the stack: from the node, from other nodes, and answers of backends that are elsewhere.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::{Effect, Hook, Verdict};

use crate::conntrack::{self, create};
use crate::forward::exit::Outcome;
use crate::nat::{self, icmp_error};
use crate::packet::skb::Skb;
use crate::packet::{self, Part, fragments};
use crate::policy::{self, receiver, source};
use crate::scratch::Scratch;

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    if let Err(verdict) = packet::parse(skb, &mut work.packet) {
        return Err(unread(work, verdict));
    }
    if work.packet.is_of_link_scope() {
        return Err(Verdict::NeighborDiscovery);
    }
    let verdict = if work.packet.is_icmp_error() {
        if work.entered_by != 0 {
            receiver::check(work)?;
        }
        icmp_error::translate(skb, work)?;
        Verdict::IcmpError
    } else {
        if work.packet.part == Part::Later
            && let Err(verdict) = fragments::complete(work)
        {
            return Err(untracked(work, verdict)?);
        }
        let entered = enter(work);
        fragments::remember_if_passed(work, &entered)?;
        let verdict = entered?;
        if verdict == Verdict::ToClient {
            nat::rewrite(skb, &work.packet, &work.decision.to)?;
        }
        verdict
    };
    // The packet is on its way out of the right interface already.
    work.decision.redirect_to = 0;
    Ok(verdict)
}

/// The flow of the packet, found or begun.
#[inline(always)]
fn enter(work: &mut Scratch) -> Outcome {
    if conntrack::find(work, Hook::ToPod)? {
        nat::is_possible(&work.packet, &work.decision.to)?;
        return Ok(if work.decision.is_no_nat { Verdict::Allowed } else { Verdict::ToClient });
    }
    if work.entered_by == 0 {
        return Err(Verdict::Node);
    }
    receiver::check(work)?;
    if conntrack::is_translated(work)? {
        return Ok(Verdict::Allowed);
    }
    source::check_forwarded(work)?;
    create::plain(work)?;
    Ok(Verdict::Allowed)
}

/// A later fragment whose first one did not pass here, or not yet: what it belongs to can not be judged, so it does not
/// reach a pod that is isolated, whose address it has.
#[inline(always)]
fn untracked(work: &mut Scratch, verdict: Verdict) -> Outcome {
    if work.entered_by != 0 {
        receiver::check(work)?;
        if work.query.receiver.flags & policy_flags::ISOLATED_IN != 0 {
            return Err(Verdict::NotJudged);
        }
    }
    Ok(unread(work, verdict))
}

/// A packet that lbr does not parse does not reach a pod that is isolated for ingress, unless the node sent it.
#[inline(always)]
fn unread(work: &Scratch, verdict: Verdict) -> Verdict {
    let passes = verdict.effect() == Effect::Pass && verdict != Verdict::NotIp;
    let is_open = work.entered_by == 0 || !policy::isolates(work, policy_flags::ISOLATED_IN);
    if passes && !is_open { Verdict::NotJudged } else { verdict }
}
