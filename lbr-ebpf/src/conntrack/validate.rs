//! Whether what a flow was begun with is still there, and still allowed.

use lbr_common::flow::{BY_ROUTE, Flow, flow_flags};
use lbr_common::service::backend_flags;
use lbr_common::verdict::Hook;

use super::{entry, redirect_target};
use crate::maps::{self, LINKS};
use crate::packet::Packet;
use crate::policy;
use crate::policy::query::Query;
use crate::scratch::{Dsr, Meta};
use crate::service::{self, Origin};
use crate::step::{self, Found, Step};

step::global! {
    /// Asks of the packet's flow, after the agent says that something has changed, or for a SYN. False if the packet has to
    /// begin a flow anew: a datagram or a SYN whose frontend leads elsewhere now, or whose backend is gone. A TCP connection
    /// that is open keeps its backend whatever becomes of it. A redirect target that is gone is left to the stack, which
    /// knows where the address is now.
    pub(super) fn is_valid(packet: &Packet, meta: &Meta, query: &mut Query, dsr: &Dsr) -> Found
        = validate as conntrack_validate;
}

#[inline(always)]
fn validate(packet: &Packet, meta: &Meta, query: &mut Query, dsr: &Dsr) -> Found {
    // Evicted since it was found: the packet begins a flow again.
    let Some(flow) = entry(&packet.tuple) else { return Ok(false) };
    let opens = packet.is_syn();
    let follows_service = packet.can_begin();
    if follows_service && leads_elsewhere(packet, meta, dsr, flow) {
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
    query.tuple = packet.tuple;
    if opens {
        judge_opening(meta, query, flow)?;
    } else {
        judge_again(meta, query, flow)?;
    }
    audit_once(query, flow);
    flow.redirect_to = if_attached(flow.redirect_to);
    flow.twin_redirect_to = if_attached(flow.twin_redirect_to);
    flow.epoch = meta.epoch;
    Ok(true)
}

/// Whether the destination of the packet is not the Service's any more that its flow was begun for, or has become one's.
#[inline(always)]
fn leads_elsewhere(packet: &Packet, meta: &Meta, dsr: &Dsr, flow: &Flow) -> bool {
    let to = &packet.tuple;
    if flow.flags & flow_flags::HOST != 0 {
        return false;
    }
    if flow.service.is_none() {
        return service::has_place(&to.dst, to.dst_port, to.proto);
    }
    // What another node has sent here was addressed to one of its own frontends.
    if flow.flags & flow_flags::REPLY != 0 || dsr.is_unwrapped {
        return false;
    }
    let origin = if meta.hook == Hook::FromPod { Origin::Pod(&to.src) } else { Origin::External(&to.src) };
    service::owner(&to.dst, to.dst_port, to.proto, origin) != flow.service
}

/// Asks the policies about a SYN, as the beginning of a connection in its own direction, whichever side began the flow that
/// has its tuple. The question is in `Query::tuple`.
#[inline(always)]
fn judge_opening(meta: &Meta, query: &mut Query, flow: &Flow) -> Step {
    if flow.flags & flow_flags::HAIRPIN != 0 {
        return Ok(());
    }
    query.tuple.dst = flow.to.dst;
    query.tuple.dst_port = flow.to.dst_port;
    policy::look_up_ends(meta, query);
    policy::judge(meta, query)
}

/// Asks the policies about the flow whose key is in `Query::tuple`, as they were asked when it began: from the
/// client to the backend, whichever way the packet at hand goes.
#[inline(always)]
pub(super) fn judge_again(meta: &Meta, query: &mut Query, flow: &Flow) -> Step {
    if maps::keeps_established() || flow.flags & flow_flags::HAIRPIN != 0 {
        return Ok(());
    }
    if flow.flags & flow_flags::REPLY != 0 {
        query.tuple = query.tuple.reversed();
        // The answer may be addressed to the node, in whose name the request was sent.
        query.tuple.src = flow.to.dst;
        query.tuple.src_port = flow.to.dst_port;
    } else {
        query.tuple.dst = flow.to.dst;
        query.tuple.dst_port = flow.to.dst_port;
    }
    policy::look_up_ends(meta, query);
    judge_either(meta, query, flow.flags & flow_flags::PICKED_UP != 0)
}

/// A connection that is judged again is reported again only if other audited sets would deny it now. The client's
/// entry remembers them, so only what the client sends is reported.
#[inline(always)]
fn audit_once(query: &mut Query, flow: &mut Flow) {
    let audited = query.audited();
    if flow.flags & flow_flags::REPLY != 0 || flow.audited == audited {
        query.forget_audits();
    } else {
        flow.audited = audited;
    }
}

step::global! {
    /// Asks the policies of both ends, which were looked up before. `either`: which end is the client is unknown, so
    /// either direction may be allowed.
    pub(super) fn judge_either(meta: &Meta, query: &mut Query; either: bool) -> Step
        = judge_directions as policy_judge_either;
}

#[inline(always)]
fn judge_directions(meta: &Meta, query: &mut Query, either: bool) -> Step {
    let judged = policy::judge(meta, query);
    if judged.is_ok() || !either {
        return judged;
    }
    query.swap_ends();
    if policy::judge(meta, query).is_ok() {
        return Ok(());
    }
    // Reported as it was asked first.
    query.swap_ends();
    policy::judge(meta, query)
}

/// The redirect target, or 0 if it is not an interface with lbr's programs any more.
#[inline(always)]
fn if_attached(target: u32) -> u32 {
    if target == BY_ROUTE {
        return target;
    }
    if target != 0 && LINKS.get_ptr(target).is_some() { target } else { 0 }
}
