//! Whether what a flow was begun with is still there, and still allowed.

use lbr_common::flow::{BY_ROUTE, Flow, flow_flags};
use lbr_common::service::backend_flags;
use lbr_common::verdict::Hook;

use super::{entry, redirect_target};
use crate::maps::{self, LINKS};
use crate::policy;
use crate::scratch::Scratch;
use crate::service::{self, Origin};
use crate::step::{self, Found, Step};

step::global! {
    /// Asks of the packet's flow, after the agent says that something has changed, or for a SYN. False if the packet has to
    /// begin a flow anew: a datagram or a SYN whose frontend leads elsewhere now, or whose backend is gone. A TCP connection
    /// that is open keeps its backend whatever becomes of it. A redirect target that is gone is left to the stack, which
    /// knows where the address is now.
    pub(super) fn is_valid(work: &mut Scratch) -> Found = validate as conntrack_validate;
}

#[inline(always)]
fn validate(work: &mut Scratch) -> Found {
    // Evicted since it was found: the packet begins a flow again.
    let Some(flow) = entry(&work.packet.tuple) else { return Ok(false) };
    let opens = work.packet.is_syn();
    let follows_service = work.packet.can_begin();
    if follows_service && leads_elsewhere(work, flow) {
        return Ok(false);
    }
    if flow.service.is_some() && flow.flags & flow_flags::REPLY == 0 {
        let is_hairpin = flow.flags & flow_flags::HAIRPIN != 0;
        match service::backend(flow.backend).filter(|b| b.leads_to(&flow.to)) {
            // It has come here since, and is reached in another way.
            Some(backend)
                if flow.flags & flow_flags::DSR != 0 && backend.flags & backend_flags::HERE != 0 =>
            {
                return Ok(false);
            }
            Some(backend) if !is_hairpin => flow.redirect_to = redirect_target(backend, flow.flags),
            None if follows_service => return Ok(false),
            None if !is_hairpin && flow.redirect_to != BY_ROUTE => flow.redirect_to = 0,
            _ => {}
        }
    }
    work.query.tuple = work.packet.tuple;
    if opens {
        judge_opening(work, flow)?;
    } else {
        judge_again(work, flow)?;
    }
    audit_once(work, flow);
    flow.redirect_to = if_attached(flow.redirect_to);
    flow.twin_redirect_to = if_attached(flow.twin_redirect_to);
    flow.epoch = work.epoch;
    Ok(true)
}

/// Whether the destination of the packet is not the Service's any more that its flow was begun for, or has become one's.
#[inline(always)]
fn leads_elsewhere(work: &Scratch, flow: &Flow) -> bool {
    let to = &work.packet.tuple;
    if flow.flags & flow_flags::HOST != 0 {
        return false;
    }
    if flow.service.is_none() {
        return service::has_place(&to.dst, to.dst_port, to.proto);
    }
    // What another node has sent here was addressed to one of its own frontends.
    if flow.flags & flow_flags::REPLY != 0 || work.dsr.is_unwrapped {
        return false;
    }
    let origin = if work.hook == Hook::FromPod { Origin::Pod(&to.src) } else { Origin::External(&to.src) };
    service::owner(&to.dst, to.dst_port, to.proto, origin) != flow.service
}

/// Asks the policies about a SYN, as the beginning of a connection in its own direction, whichever side began the flow that
/// has its tuple. The question is in `Query::tuple`.
#[inline(always)]
fn judge_opening(work: &mut Scratch, flow: &Flow) -> Step {
    if flow.flags & flow_flags::HAIRPIN != 0 {
        return Ok(());
    }
    work.query.tuple.dst = flow.to.dst;
    work.query.tuple.dst_port = flow.to.dst_port;
    policy::look_up_ends(work);
    policy::judge(work)
}

/// Asks the policies about the flow whose key is in `Query::tuple`, as they were asked when it began: from the
/// client to the backend, whichever way the packet at hand goes.
#[inline(always)]
pub(super) fn judge_again(work: &mut Scratch, flow: &Flow) -> Step {
    if maps::keeps_established() || flow.flags & flow_flags::HAIRPIN != 0 {
        return Ok(());
    }
    if flow.flags & flow_flags::REPLY != 0 {
        work.query.tuple = work.query.tuple.reversed();
        // The answer may be addressed to the node, in whose name the request was sent.
        work.query.tuple.src = flow.to.dst;
        work.query.tuple.src_port = flow.to.dst_port;
    } else {
        work.query.tuple.dst = flow.to.dst;
        work.query.tuple.dst_port = flow.to.dst_port;
    }
    policy::look_up_ends(work);
    judge_either(work, flow.flags & flow_flags::PICKED_UP != 0)
}

/// A connection that is judged again is reported again only if other audited sets would deny it now. The client's
/// entry remembers them, so only what the client sends is reported.
#[inline(always)]
fn audit_once(work: &mut Scratch, flow: &mut Flow) {
    let audited = work.query.audited();
    if flow.flags & flow_flags::REPLY != 0 || flow.audited == audited {
        work.query.forget_audits();
    } else {
        flow.audited = audited;
    }
}

step::global! {
    /// Asks the policies of both ends, which were looked up before. `either`: which end is the client is unknown, so
    /// either direction may be allowed.
    pub(super) fn judge_either(work: &mut Scratch, either: bool) -> Step = judge_directions as policy_judge_either;
}

#[inline(always)]
fn judge_directions(work: &mut Scratch, either: bool) -> Step {
    let judged = policy::judge(work);
    if judged.is_ok() || !either {
        return judged;
    }
    work.query.swap_ends();
    if policy::judge(work).is_ok() {
        return Ok(());
    }
    // Reported as it was asked first.
    work.query.swap_ends();
    policy::judge(work)
}

/// The redirect target, or 0 if it is not an interface with lbr's programs any more.
#[inline(always)]
fn if_attached(target: u32) -> u32 {
    if target == BY_ROUTE {
        return target;
    }
    if target != 0 && LINKS.get_ptr(target).is_some() { target } else { 0 }
}
