//! Stores both entries of a flow, unless another flow has its reply tuple.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use lbr_common::flow::Flow;
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Verdict;

use super::super::{entry, is_expired, own_twin, owns};
use crate::maps::{CLAIMS, FLOWS, UNCONFIRMED};
use crate::packet::Packet;
use crate::scratch::{Draft, Meta};
use crate::step::{self, Found, Step};

/// No unconfirmed flow gives way.
pub(super) const NEVER: u64 = u64::MAX;

step::global! {
    /// Stores both entries of the draft. False: another flow has the tuple of its answers, and does not give way. A flow
    /// that is over gives way when it was silent for `rest` nanoseconds, an unconfirmed one when for `patience`.
    pub(super) fn store(packet: &Packet, meta: &Meta, draft: &mut Draft; rest: u64, patience: u64) -> Found
        = store_both as conntrack_store;
}

#[inline(always)]
fn store_both(packet: &Packet, meta: &Meta, draft: &mut Draft, rest: u64, patience: u64) -> Found {
    let key = &packet.tuple;
    draft.reply_key = draft.flow.twin_key();
    draft.flow.write_twin(key, &mut draft.reply);
    // The answers' entry first: where the packet goes, it is there.
    if FLOWS.insert(&draft.reply_key, &draft.reply, u64::from(BPF_NOEXIST)).is_err() {
        match entry(&draft.reply_key) {
            Some(own) if own.to == draft.reply.to => *own = draft.reply,
            Some(_) => {
                if !take_over(packet, meta, draft, rest, patience)? {
                    return Ok(false);
                }
            }
            // The kernel had no room.
            None => return Err(Verdict::FlowTableFull),
        }
    }
    store_original(packet, draft)
}

/// Stores the entry of the client's packets, which is the only one of a flow whose answers do not come by here.
#[inline(always)]
pub(super) fn store_original(packet: &Packet, draft: &mut Draft) -> Found {
    if draft.replaces {
        remove_answers(packet, draft)?;
    }
    draft.flow.note_places(&packet.tuple);
    if FLOWS.insert(&packet.tuple, &draft.flow, u64::from(BPF_ANY)).is_err() {
        return Err(Verdict::FlowTableFull);
    }
    enroll(packet, draft)?;
    Ok(true)
}

step::global! {
    /// Removes the reverse entry of a flow without a Service that the draft replaces: packets from the address that has
    /// become a Service's would pass by it. The answers of a former backend of a Service may still be on their way.
    fn remove_answers(packet: &Packet, draft: &mut Draft) -> Step
        = remove_old_reply as conntrack_remove_answers;
}

#[inline(always)]
fn remove_old_reply(packet: &Packet, draft: &mut Draft) -> Step {
    let key = &packet.tuple;
    let Some(old) = entry(key) else { return Ok(()) };
    draft.other_key = old.twin_key();
    let is_of_old = old.service.is_none() && draft.other_key != draft.reply_key;
    if is_of_old {
        remove_twin(key, &draft.other_key);
    }
    Ok(())
}

step::global! {
    /// Gives the draft, which is stored, its slot in `unconfirmed`. The flow that had the slot gives way if it is not
    /// confirmed yet: it is the oldest one of this CPU.
    fn enroll(packet: &Packet, draft: &mut Draft) -> Step = take_slot as conntrack_enroll;
}

#[inline(always)]
fn take_slot(packet: &Packet, draft: &mut Draft) -> Step {
    draft.slots_taken = draft.slots_taken.wrapping_add(1);
    let index = draft.flow.slot;
    let Some(slot) = UNCONFIRMED.get_ptr_mut(index) else { return Ok(()) };
    // SAFETY: the slot is this CPU's, on which programs run one at a time.
    let slot = unsafe { &mut *slot };
    draft.other_key = core::mem::replace(slot, packet.tuple);
    if draft.other_key == packet.tuple || draft.other_key.proto == 0 {
        return Ok(());
    }
    let Some(other) = entry(&draft.other_key) else { return Ok(()) };
    if other.slot != index || other.state().is_confirmed() {
        return Ok(());
    }
    draft.twin_key = other.twin_key();
    remove_twin(&draft.other_key, &draft.twin_key);
    let _ = FLOWS.remove(&draft.other_key);
    Ok(())
}

step::global! {
    /// Gives the tuple of the answers from the flow that has it to the draft, if that one gives way. One CPU at a time: the
    /// claim decides, and what is found is looked at again under it.
    fn take_over(packet: &Packet, meta: &Meta, draft: &mut Draft; rest: u64, patience: u64) -> Found
        = claim_and_take as conntrack_take_over;
}

#[inline(always)]
fn claim_and_take(packet: &Packet, meta: &Meta, draft: &mut Draft, rest: u64, patience: u64) -> Found {
    // Claimed only for what can give way, so that a look at a living flow costs no more than a look.
    if !gives_way(draft, rest, patience) {
        return Ok(false);
    }
    if CLAIMS.insert(&draft.reply_key, &meta.ifindex, u64::from(BPF_NOEXIST)).is_err() {
        return Ok(false);
    }
    let mut is_taken = false;
    if gives_way(draft, rest, patience) {
        remove_other(packet, draft);
        is_taken = FLOWS.insert(&draft.reply_key, &draft.reply, u64::from(BPF_NOEXIST)).is_ok();
    }
    let _ = CLAIMS.remove(&draft.reply_key);
    Ok(is_taken)
}

/// Whether the flow that has the tuple of the draft's answers gives way to it. Remembers the one of those that do not, but
/// could, that was silent for longest.
#[inline(always)]
fn gives_way(draft: &mut Draft, rest: u64, patience: u64) -> bool {
    let Some(other) = entry(&draft.reply_key) else { return true };
    let now = draft.reply.last_seen;
    if other.to == draft.reply.to || is_expired(other, now) {
        return true;
    }
    let silence = other.silence(now);
    let state = other.state();
    draft.other_key = other.twin_key();
    let limit = if state.is_over() || !has_original(draft) {
        rest
    } else if state.is_confirmed() {
        return false;
    } else {
        patience
    };
    if silence >= limit {
        return true;
    }
    // The clock goes in ticks, so all of them may have been silent for none.
    if draft.oldest_port == 0 || silence > draft.oldest_silence {
        draft.oldest_silence = silence;
        draft.oldest_port = draft.flow.to.src_port;
    }
    false
}

/// Whether the other flow's client still uses these answers: it may have begun another flow with the same tuple. An
/// entry that the kernel evicted says nothing: the answers bring it back.
#[inline(always)]
fn has_original(draft: &Draft) -> bool {
    entry(&draft.other_key).is_none_or(|original: &mut Flow| owns(&draft.reply_key, original))
}

/// Removes the flow that has the tuple of the draft's answers.
#[inline(always)]
fn remove_other(packet: &Packet, draft: &mut Draft) {
    let Some(other) = entry(&draft.reply_key) else { return };
    draft.other_key = other.twin_key();
    // The packet's own entry is written next.
    if draft.other_key != packet.tuple {
        remove_twin(&draft.reply_key, &draft.other_key);
    }
    let _ = FLOWS.remove(&draft.reply_key);
}

/// Removes the reverse entry of the flow with this key, if it is its own.
#[inline(always)]
fn remove_twin(key: &Tuple, twin_key: &Tuple) {
    if own_twin(key, twin_key).is_some() {
        let _ = FLOWS.remove(twin_key);
    }
}
