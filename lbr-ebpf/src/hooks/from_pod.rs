//! What a pod sends: requests to Services, and answers of backends on this node.

use lbr_common::verdict::Verdict;

use crate::exit::Outcome;
use crate::packet::{self, Part};
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::step::check;
use crate::{flow, fragment, icmp_error, nat, service};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    packet::parse(skb, &mut work.packet)?;
    if work.packet.is_icmp_error() {
        check(icmp_error::translate(skb, work))?;
        return Ok(Verdict::IcmpError);
    }
    if work.packet.part == Part::Later {
        check(fragment::complete(&mut work.packet))?;
    }
    if !flow::find(&work.packet, &mut work.decision) {
        let to = &work.packet.tuple;
        let frontend = service::frontend(&to.dst, to.dst_port, to.proto)?;
        check(flow::begin(skb.ifindex(), &frontend, work))?;
    }
    if work.packet.part == Part::First {
        check(fragment::remember(&work.packet))?;
    }
    nat::rewrite(skb, &work.packet, &work.decision.to)?;
    Ok(if work.decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}
