//! The flow that a packet belongs to.

use lbr_common::conntrack::State;
use lbr_common::flow::{BY_ROUTE, Flow, TOUCH_INTERVAL_NS, flow_flags};
use lbr_common::verdict::Hook;

use super::{advance, decide, entry, epoch, is_expired, now, own_twin, validate};
use crate::maps::LINKS;
use crate::packet::Packet;
use crate::policy::query::Query;
use crate::policy::{receiver, source};
use crate::scratch::{Decision, Draft, Dsr, Meta};
use crate::step::{self, Found, Step};

/// The flow of the packet at hand, brought up to date with it: fills the decision. False if it has none, or begins one
/// anew. `hook` is the one that runs, known when the object is compiled.
#[inline(always)]
pub(crate) fn find(
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    decision: &mut Decision,
    draft: &mut Draft,
    dsr: &Dsr,
    hook: Hook,
) -> Found {
    draft.replaces = false;
    let Some(flow) = entry(&packet.tuple) else { return Ok(false) };
    if matches!(hook, Hook::ToPod) && is_translated_before(flow) {
        return Ok(false);
    }
    let is_ordinary = flow.state == State::Established as u32
        && !packet.turns()
        && flow.silence(now()) <= TOUCH_INTERVAL_NS
        && is_verified(meta, flow, hook)
        && epoch::is_current(&packet.tuple, flow, meta.epoch);
    if is_ordinary {
        decide(decision, flow);
        return Ok(true);
    }
    let found = find_with_care(packet, meta, query, decision, draft, dsr);
    draft.replaces = matches!(found, Ok(false));
    found
}

/// Whether packets of this direction are translated where they enter the node: requests always are, answers where the
/// backend is a pod here. So a packet that looks like one at the link of the pod that it is for is another flow's, whose
/// translation made it so.
#[inline(always)]
fn is_translated_before(flow: &Flow) -> bool {
    if flow.flags & flow_flags::NO_NAT != 0 {
        return false;
    }
    flow.flags & flow_flags::REPLY == 0 || (flow.in_ifindex != 0 && LINKS.get_ptr(flow.in_ifindex).is_some())
}

step::global! {
    /// The same for a flow of which there is more to decide or to remember.
    fn find_with_care(
        packet: &Packet, meta: &Meta, query: &mut Query, decision: &mut Decision, draft: &mut Draft, dsr: &Dsr
    ) -> Found = follow as conntrack_find;
}

#[inline(always)]
fn follow(
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    decision: &mut Decision,
    draft: &mut Draft,
    dsr: &Dsr,
) -> Found {
    let Some(flow) = entry(&packet.tuple) else { return Ok(false) };
    let state = flow.state();
    let opens = packet.is_syn();
    if is_expired(flow, now()) || (opens && (state.is_over() || state == State::PickedUp)) {
        return Ok(false);
    }
    let is_stale = !epoch::is_current(&packet.tuple, flow, meta.epoch);
    verify(packet, meta, query, draft, flow, is_stale)?;
    // A SYN is always judged as the beginning of a connection in its own direction (RFC 9293, 3.10.7.4 leaves it to the
    // receiver what becomes of the one that is there).
    if (is_stale || opens) && !validate::is_valid(packet, meta, query, dsr)? {
        return Ok(false);
    }
    // First, since the entry may be another flow's when it was removed.
    decide(decision, flow);
    advance::with_packet(packet, draft, flow)?;
    Ok(true)
}

/// Whether the ends of the packet were looked at where it is: at an interface that it came in by, its source; at one
/// that it leaves by to a pod, both.
#[inline(always)]
fn is_verified(meta: &Meta, flow: &Flow, hook: Hook) -> bool {
    match hook {
        Hook::FromPod | Hook::FromNetdev | Hook::Xdp => flow.in_ifindex == meta.ifindex,
        Hook::ToPod => flow.out_ifindex == meta.ifindex && source::came_by(meta, flow.in_ifindex),
        Hook::ToNetdev | Hook::Socket => true,
    }
}

/// Looks at the ends of the packet, unless that was done before and nothing has changed since. Nothing is written for a
/// packet that does not pass.
#[inline(always)]
fn verify(
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    draft: &mut Draft,
    flow: &mut Flow,
    is_stale: bool,
) -> Step {
    match meta.hook {
        Hook::FromPod if is_stale || flow.in_ifindex != meta.ifindex => {
            source::check(packet, meta, query)?;
            came_from(packet, meta, draft, flow);
        }
        Hook::FromNetdev if is_stale || flow.in_ifindex != meta.ifindex => {
            source::check_external(packet, meta, query)?;
            came_from(packet, meta, draft, flow);
        }
        Hook::ToPod if meta.entered_by != 0 => {
            if !source::came_by(meta, flow.in_ifindex) {
                source::check_forwarded(packet, meta, query)?;
                if !source::is_local(query) {
                    flow.in_ifindex = meta.entered_by;
                }
            }
            if is_stale || flow.out_ifindex != meta.ifindex {
                if receiver::check(packet, meta, query)? {
                    flow.out_ifindex = meta.ifindex;
                } else if flow.out_ifindex == meta.ifindex {
                    flow.out_ifindex = 0;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// Notes where packets of this direction come from, which is where those of the other one go to.
#[inline(always)]
fn came_from(packet: &Packet, meta: &Meta, draft: &mut Draft, flow: &mut Flow) {
    flow.in_ifindex = meta.ifindex;
    draft.reply_key = flow.twin_key();
    if let Some(twin) = own_twin(&packet.tuple, &draft.reply_key) {
        twin.out_ifindex = meta.ifindex;
    }
}

/// Whether the packet at hand, which came by the wire, goes on by a route as those of its flow before it, and nothing is
/// to be decided or remembered of it: then fills the decision. If not, it is for [`find`].
#[inline(always)]
pub(crate) fn carry_on(packet: &Packet, meta: &Meta, decision: &mut Decision, draft: &mut Draft) -> bool {
    /// With any other flag there is more to do than to translate.
    const ORDINARY: u32 = flow_flags::REPLY | flow_flags::PICKED_UP | flow_flags::EXTERNAL;
    let Some(flow) = entry(&packet.tuple) else { return false };
    if flow.redirect_to != BY_ROUTE
        || flow.flags & !ORDINARY != 0
        || flow.state != State::Established as u32
        || !is_verified(meta, flow, Hook::Xdp)
        || !epoch::is_current(&packet.tuple, flow, meta.epoch)
    {
        return false;
    }
    let now = now();
    if flow.silence(now) > TOUCH_INTERVAL_NS {
        // Not left to tc: packets that follow would overtake this one.
        if is_expired(flow, now) || advance::keep_alive(packet, draft).is_err() {
            return false;
        }
    }
    decide(decision, flow);
    true
}

step::global! {
    /// Whether a flow has the tuple in `Query::tuple`, lives, and is still allowed: then fills the decision, and leaves the
    /// flow as it is.
    pub(crate) fn peek(meta: &Meta, query: &mut Query, decision: &mut Decision) -> Found
        = peek_living as conntrack_peek;
}

#[inline(always)]
fn peek_living(meta: &Meta, query: &mut Query, decision: &mut Decision) -> Found {
    let Some(flow) = entry(&query.tuple) else { return Ok(false) };
    if is_expired(flow, now())
        || (epoch::is_stale(&query.tuple, flow, meta.epoch)
            && validate::judge_again(meta, query, flow).is_err())
    {
        return Ok(false);
    }
    // Reported when the flow's own packets ask.
    query.forget_audits();
    decide(decision, flow);
    Ok(true)
}

/// The flow that the answers to the packet at hand belong to, if it translates: what the packet is now, it is by a
/// translation, or it looks like that.
#[inline(always)]
fn translating(packet: &Packet) -> Option<&'static mut Flow> {
    let flow = entry(&packet.tuple.reversed())?;
    let begins_anew = packet.is_syn() && flow.state().is_over();
    let is_it = flow.flags & flow_flags::NO_NAT == 0 && !begins_anew && !is_expired(flow, now());
    if is_it { Some(flow) } else { None }
}

/// Whether the answers to the packet at hand could be taken for those of a flow that translates.
#[inline(always)]
pub(crate) fn meets_translated(packet: &Packet) -> bool {
    translating(packet).is_some()
}

/// Whether the packet at hand would be an answer of a flow that is no more.
#[inline(always)]
pub(crate) fn was_answer(packet: &Packet) -> bool {
    entry(&packet.tuple).is_some_and(|flow| flow.flags & flow_flags::REPLY != 0)
}

step::global! {
    /// Whether the packet at hand was translated on its way here, and so judged before, where that was done: it entered the
    /// node where the flow's packets of this direction do.
    pub(crate) fn is_translated(packet: &Packet, meta: &Meta) -> Found
        = was_translated as conntrack_is_translated;
}

#[inline(always)]
fn was_translated(packet: &Packet, meta: &Meta) -> Found {
    Ok(translating(packet).is_some_and(|flow| source::came_by(meta, flow.out_ifindex)))
}
