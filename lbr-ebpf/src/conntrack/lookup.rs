//! The flow that a packet belongs to.

use lbr_common::conntrack::State;
use lbr_common::flow::{BY_ROUTE, Flow, TOUCH_INTERVAL_NS, flow_flags};
use lbr_common::verdict::Hook;

use super::{advance, decide, entry, is_expired, now, own_twin, validate};
use crate::maps::LINKS;
use crate::packet::Packet;
use crate::policy::{receiver, source};
use crate::scratch::Scratch;
use crate::step::{self, Found, Step};

/// The flow of the packet at hand, brought up to date with it: fills the decision. False if it has none, or begins one
/// anew. `hook` is the one that runs, known when the object is compiled.
#[inline(always)]
pub(crate) fn find(work: &mut Scratch, hook: Hook) -> Found {
    work.draft.replaces = false;
    let Some(flow) = entry(&work.packet.tuple) else { return Ok(false) };
    if matches!(hook, Hook::ToPod) && is_translated_before(flow) {
        return Ok(false);
    }
    let is_ordinary = flow.state == State::Established as u32
        && flow.epoch == work.epoch
        && !work.packet.turns()
        && flow.silence(now()) <= TOUCH_INTERVAL_NS
        && is_verified(work, flow, hook);
    if is_ordinary {
        decide(&mut work.decision, flow);
        return Ok(true);
    }
    let found = find_with_care(work);
    work.draft.replaces = matches!(found, Ok(false));
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
    fn find_with_care(work: &mut Scratch) -> Found = follow as conntrack_find;
}

#[inline(always)]
fn follow(work: &mut Scratch) -> Found {
    let Some(flow) = entry(&work.packet.tuple) else { return Ok(false) };
    let state = flow.state();
    let opens = work.packet.is_syn();
    if is_expired(flow, now()) || (opens && (state.is_over() || state == State::PickedUp)) {
        return Ok(false);
    }
    let is_stale = flow.epoch != work.epoch;
    verify(work, flow, is_stale)?;
    // A SYN is always judged as the beginning of a connection in its own direction (RFC 9293, 3.10.7.4 leaves it to the
    // receiver what becomes of the one that is there).
    if (is_stale || opens) && !validate::is_valid(work)? {
        return Ok(false);
    }
    // First, since the entry may be another flow's when it was removed.
    decide(&mut work.decision, flow);
    advance::with_packet(work, flow)?;
    Ok(true)
}

/// Whether the ends of the packet were looked at where it is: at an interface that it came in by, its source; at one
/// that it leaves by to a pod, both.
#[inline(always)]
fn is_verified(work: &Scratch, flow: &Flow, hook: Hook) -> bool {
    match hook {
        Hook::FromPod | Hook::FromNetdev | Hook::Xdp => flow.in_ifindex == work.ifindex,
        Hook::ToPod => flow.out_ifindex == work.ifindex && source::came_by(work, flow.in_ifindex),
        Hook::ToNetdev | Hook::Socket => true,
    }
}

/// Looks at the ends of the packet, unless that was done before and nothing has changed since. Nothing is written for a
/// packet that does not pass.
#[inline(always)]
fn verify(work: &mut Scratch, flow: &mut Flow, is_stale: bool) -> Step {
    match work.hook {
        Hook::FromPod if is_stale || flow.in_ifindex != work.ifindex => {
            source::check(work)?;
            came_from(work, flow);
        }
        Hook::FromNetdev if is_stale || flow.in_ifindex != work.ifindex => {
            source::check_external(work)?;
            came_from(work, flow);
        }
        Hook::ToPod if work.entered_by != 0 => {
            if !source::came_by(work, flow.in_ifindex) {
                source::check_forwarded(work)?;
                if !source::is_local(work) {
                    flow.in_ifindex = work.entered_by;
                }
            }
            if is_stale || flow.out_ifindex != work.ifindex {
                if receiver::check(work)? {
                    flow.out_ifindex = work.ifindex;
                } else if flow.out_ifindex == work.ifindex {
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
fn came_from(work: &mut Scratch, flow: &mut Flow) {
    flow.in_ifindex = work.ifindex;
    work.draft.reply_key = flow.twin_key();
    if let Some(twin) = own_twin(&work.packet.tuple, &work.draft.reply_key) {
        twin.out_ifindex = work.ifindex;
    }
}

/// Whether the packet at hand, which came by the wire, goes on by a route as those of its flow before it, and nothing is
/// to be decided or remembered of it: then fills the decision. If not, it is for [`find`].
#[inline(always)]
pub(crate) fn carry_on(work: &mut Scratch) -> bool {
    /// With any other flag there is more to do than to translate.
    const ORDINARY: u32 = flow_flags::REPLY | flow_flags::PICKED_UP | flow_flags::EXTERNAL;
    let Some(flow) = entry(&work.packet.tuple) else { return false };
    if flow.redirect_to != BY_ROUTE
        || flow.flags & !ORDINARY != 0
        || flow.state != State::Established as u32
        || flow.epoch != work.epoch
        || !is_verified(work, flow, Hook::Xdp)
    {
        return false;
    }
    let now = now();
    if flow.silence(now) > TOUCH_INTERVAL_NS {
        // Not left to tc: packets that follow would overtake this one.
        if is_expired(flow, now) || advance::keep_alive(work).is_err() {
            return false;
        }
    }
    decide(&mut work.decision, flow);
    true
}

step::global! {
    /// Whether a flow has the tuple in `Query::tuple`, lives, and is still allowed: then fills the decision, and leaves the
    /// flow as it is.
    pub(crate) fn peek(work: &mut Scratch) -> Found = peek_living as conntrack_peek;
}

#[inline(always)]
fn peek_living(work: &mut Scratch) -> Found {
    let Some(flow) = entry(&work.query.tuple) else { return Ok(false) };
    if is_expired(flow, now()) || (flow.epoch != work.epoch && validate::judge_again(work, flow).is_err()) {
        return Ok(false);
    }
    // Reported when the flow's own packets ask.
    work.query.forget_audits();
    decide(&mut work.decision, flow);
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
    pub(crate) fn is_translated(work: &mut Scratch) -> Found = was_translated as conntrack_is_translated;
}

#[inline(always)]
fn was_translated(work: &mut Scratch) -> Found {
    Ok(translating(&work.packet).is_some_and(|flow| source::came_by(work, flow.out_ifindex)))
}
