//! What reaches a pod by the stack: from the node, from other nodes, and answers of backends that are elsewhere.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::{Effect, Verdict};

use crate::exit::Outcome;
use crate::packet::{self, Part};
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::step::check;
use crate::{begin, flow, fragment, icmp_error, nat, policy, source};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    let from_node = skb.entered_by() == 0;
    packet::parse(skb, &mut work.packet).map_err(|verdict| unread(work, from_node, verdict))?;
    if work.packet.is_neighbor_discovery() {
        return Err(Verdict::NeighborDiscovery);
    }
    let verdict = if work.packet.is_icmp_error() {
        check(icmp_error::translate(skb, work))?;
        Verdict::IcmpError
    } else {
        if work.packet.part == Part::Later {
            let known = check(fragment::complete(&mut work.packet));
            known.map_err(|verdict| unread(work, from_node, verdict))?;
        }
        let verdict = enter(work, from_node)?;
        if work.packet.part == Part::First {
            check(fragment::remember(&work.packet))?;
        }
        if verdict == Verdict::ToClient {
            nat::rewrite(skb, &work.packet, &work.decision.to)?;
        }
        verdict
    };
    // The packet is on its way out of the right interface already.
    work.decision.link = 0;
    Ok(verdict)
}

/// The flow of the packet, found or begun.
#[inline(always)]
fn enter(work: &mut Scratch, from_node: bool) -> Outcome {
    if flow::find(work, 0)? {
        return match work.decision {
            // A pod of this node sends to many, and was asked. No policy of this one speaks of such an address.
            ref found if found.to_nobody && policy::isolates(work, policy_flags::ISOLATED_IN) => {
                Err(Verdict::NotJudged)
            }
            ref found if found.is_plain => Ok(Verdict::Allowed),
            ref found if found.is_reply => Ok(Verdict::ToClient),
            _ => Err(Verdict::NoService),
        };
    }
    if from_node {
        return Err(Verdict::Node);
    }
    if flow::is_translated(&work.packet) {
        return Ok(Verdict::Allowed);
    }
    if source::pretends_to_be_node(work) {
        return Err(Verdict::SpoofedSource);
    }
    check(begin::plain(work, 0))?;
    Ok(Verdict::Allowed)
}

/// What passes because lbr can not read it must not reach a pod that may not receive, unless the node sent it.
#[inline(always)]
fn unread(work: &Scratch, from_node: bool, verdict: Verdict) -> Verdict {
    let passes = matches!(verdict.effect(), Effect::Pass) && verdict != Verdict::NotIp;
    let is_open = from_node || !policy::isolates(work, policy_flags::ISOLATED_IN);
    if passes && !is_open { Verdict::NotJudged } else { verdict }
}
