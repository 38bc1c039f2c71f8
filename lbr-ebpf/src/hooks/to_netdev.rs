//! What the node itself sends by the wire: answers of its own processes that are backends of a Service. What others
//! send was looked at where it came in.

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
    if skb.entered_by() != 0 {
        return Err(Verdict::NoService);
    }
    packet::parse_of_anybody(skb, &mut work.packet)?;
    if work.packet.is_neighbor_discovery() {
        return Err(Verdict::NeighborDiscovery);
    }
    if work.packet.is_icmp_error() {
        check(icmp_error::translate(skb, work))?;
        work.decision.link = 0;
        return Ok(Verdict::IcmpError);
    }
    if work.packet.part == Part::Later {
        check(fragment::complete(&mut work.packet))?;
    }
    if !flow::find(work, 0)? {
        let to = &work.packet.tuple.dst;
        return Err(if service::is_unallocated(to) { Verdict::UnallocatedAddress } else { Verdict::Node });
    }
    if !work.decision.is_wire || !work.decision.is_reply {
        return Err(Verdict::Node);
    }
    if work.packet.part == Part::First {
        check(fragment::remember(&work.packet))?;
    }
    nat::rewrite(skb, &work.packet, &work.decision.to)?;
    // The packet is on its way out of the right interface already.
    work.decision.link = 0;
    Ok(Verdict::ToClient)
}
