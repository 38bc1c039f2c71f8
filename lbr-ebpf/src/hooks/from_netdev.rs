//! What comes by the wire, before the node's stack: requests to Services from elsewhere, and answers of backends on
//! other nodes. What is not for a Service is left to the stack, and to the hooks at the pods' links.

use lbr_common::flow::BY_ROUTE;
use lbr_common::policy::policy_flags;
use lbr_common::service::Frontend;
use lbr_common::verdict::Verdict;

use crate::exit::Outcome;
use crate::packet::{self, Part};
use crate::scratch::Scratch;
use crate::service::{self, From};
use crate::skb::Skb;
use crate::step::{self, check};
use crate::{begin, dsr, flow, fragment, icmp_error, maps, nat, policy, route};

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    packet::parse_of_anybody(skb, &mut work.packet)?;
    if work.packet.is_neighbor_discovery() {
        return Err(Verdict::NeighborDiscovery);
    }
    if work.packet.is_icmp_error() {
        check(icmp_error::translate(skb, work))?;
        return Ok(Verdict::IcmpError);
    }
    check(dsr::unwrap(skb, work))?;
    if work.packet.part == Part::Later {
        check(fragment::complete(&mut work.packet))?;
    }
    // What another node has sent here as the backend's does not go to a third one, whatever was so before.
    if flow::find(work, 0)? && !(work.is_unwrapped && work.decision.is_direct) {
        check(follow(skb, work))?;
    } else {
        begin(skb, work)?;
    }
    if work.packet.part == Part::First {
        check(fragment::remember(&work.packet))?;
    }
    if !work.decision.is_tunneled {
        nat::rewrite(skb, &work.packet, &work.decision.to)?;
    }
    if work.decision.link == BY_ROUTE {
        route::count_hop(skb, &work.packet).map_err(|_| Verdict::RewriteFailed)?;
        if work.decision.is_direct {
            check(dsr::wrap(skb, work))?;
        }
    }
    Ok(if work.decision.is_reply { Verdict::ToClient } else { Verdict::ToBackend })
}

step::global! {
    /// A packet of a known flow.
    fn follow(skb: Skb, work: &mut Scratch) -> Verdict = follow_flow as from_netdev_follow;
}

#[inline(always)]
fn follow_flow(skb: Skb, work: &mut Scratch) -> Verdict {
    let decision = &work.decision;
    if decision.from != 0 && maps::checks_source() {
        // Its packets come from a pod of this node.
        return Verdict::SpoofedSource;
    }
    // Without a link to put it into, the pod's link is where it is looked at.
    if decision.is_plain || (!decision.is_wire && decision.is_reply && decision.link == 0) {
        return Verdict::Allowed;
    }
    if decision.link == BY_ROUTE {
        let to = decision.to.dst;
        if decision.is_direct && !dsr::makes_room(skb, work, decision.is_tunneled) {
            return Verdict::NoRoomForOption;
        }
        return route::find(skb, work, &to);
    }
    Verdict::ToBackend
}

/// A packet without a flow.
#[inline(always)]
fn begin(skb: Skb, work: &mut Scratch) -> Result<(), Verdict> {
    let to = &work.packet.tuple;
    if work.is_unwrapped && work.chosen == 0 {
        return Err(Verdict::FragmentUnknown);
    }
    let frontend = match work.chosen {
        0 => service::frontend(&to.dst, to.dst_port, to.proto, From::Wire(&to.src)),
        _ => Ok(Frontend::default()),
    };
    match frontend {
        Ok(frontend) => {
            if service::is_martian(&to.src) {
                return Err(Verdict::Martian);
            }
            policy::meet_sender_of_packet(work);
            // Who lives here does not come by the wire.
            const LOCAL: u32 = policy_flags::NODE | policy_flags::POD;
            if work.judged.sender.flags & LOCAL != 0 && maps::checks_source() {
                return Err(Verdict::SpoofedSource);
            }
            work.frontend = frontend;
            check(begin::from_wire(skb, work))
        }
        Err(Verdict::NoService) if service::is_unallocated(&to.dst) => Err(Verdict::UnallocatedAddress),
        Err(Verdict::NoService) if flow::is_translated(&work.packet) => keep_apart(work),
        Err(verdict) => Err(verdict),
    }
}

/// A client that reaches a backend by a Service of this node, and now by its own address from the same port: the
/// answers could not be told apart, so another source port stands in.
#[inline(always)]
fn keep_apart(work: &mut Scratch) -> Result<(), Verdict> {
    policy::meet_sender_of_packet(work);
    check(begin::beside_service(work))?;
    if work.decision.is_plain { Err(Verdict::Allowed) } else { Ok(()) }
}
