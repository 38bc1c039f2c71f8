//! What reaches a pod by the stack: answers of backends that are elsewhere. Nothing begins here.

use lbr_common::verdict::Verdict;

use crate::exit::Outcome;
use crate::packet::{self, Part};
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::step::check;
use crate::{flow, fragment, icmp_error, nat};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    packet::parse(skb, &mut work.packet)?;
    let verdict = if work.packet.is_icmp_error() {
        check(icmp_error::translate(skb, work))?;
        Verdict::IcmpError
    } else {
        if work.packet.part == Part::Later {
            check(fragment::complete(&mut work.packet))?;
        }
        if !flow::find(&work.packet, &mut work.decision) || !work.decision.is_reply {
            return Err(Verdict::NoService);
        }
        if work.packet.part == Part::First {
            check(fragment::remember(&work.packet))?;
        }
        nat::rewrite(skb, &work.packet, &work.decision.to)?;
        Verdict::ToClient
    };
    // The packet is on its way out of the right interface already.
    work.decision.link = 0;
    Ok(verdict)
}
