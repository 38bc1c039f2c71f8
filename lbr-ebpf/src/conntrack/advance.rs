//! From one state of a flow to the next.

use aya_ebpf::bindings::BPF_NOEXIST;
use lbr_common::conntrack::{Segment, Side, State, has_handshake, is_stream};
use lbr_common::epoch::before_all;
use lbr_common::flow::{Flow, TOUCH_INTERVAL_NS, flow_flags};

use super::{entry, now, owns};
use crate::maps::FLOWS;
use crate::packet::{Packet, Part};
use crate::scratch::Draft;
use crate::step::{self, Step};

/// Moves the flow of the packet at hand as the packet says.
#[inline(always)]
pub(super) fn with_packet(packet: &Packet, draft: &mut Draft, flow: &Flow) -> Step {
    let now = now();
    let segment = packet.segment();
    let next = next(packet, flow, segment, now);
    // Each SYN/ACK may have a sequence number of its own: SYN cookies change.
    let renews_proof = matches!(segment, Segment::SynAck);
    if next as u32 == flow.state && !renews_proof && flow.silence(now) <= TOUCH_INTERVAL_NS {
        return Ok(());
    }
    write(packet, draft, next as u32)
}

/// Notes that the established flow of the packet at hand goes on.
#[inline(always)]
pub(super) fn keep_alive(packet: &Packet, draft: &mut Draft) -> Step {
    write(packet, draft, State::Established as u32)
}

#[inline(always)]
fn next(packet: &Packet, flow: &Flow, segment: Segment, now: u64) -> State {
    let is_one_sided = flow.flags & flow_flags::DSR != 0;
    let is_proven = if has_handshake(packet.tuple.proto) && !is_one_sided {
        packet.part != Part::Later && packet.ack == flow.proof
    } else {
        is_stream(flow.proof, now)
    };
    match flow.state().next(flow.side(), segment, is_proven) {
        // The server's FIN does not pass by here.
        State::FinOriginal if is_one_sided => State::Closed,
        next => next,
    }
}

step::global! {
    /// Writes the next state to both entries of the flow.
    fn write(packet: &Packet, draft: &mut Draft; state: u32) -> Step = write_state as conntrack_advance;
}

#[inline(always)]
fn write_state(packet: &Packet, draft: &mut Draft, state: u32) -> Step {
    let Some(flow) = entry(&packet.tuple) else { return Ok(()) };
    let is_answer = matches!(flow.side(), Side::Reply) && matches!(packet.segment(), Segment::SynAck);
    if is_answer && !State::of(state).is_confirmed() {
        flow.proof = packet.seq.wrapping_add(1);
    }
    flow.state = state;
    flow.last_seen = now();
    // Answers that do not come by here have no entry.
    if flow.flags & flow_flags::DSR == 0 {
        tell_twin(packet, draft, flow);
    }
    Ok(())
}

/// Brings the reverse entry up to date, or puts it back if the kernel evicted it. The look-up also marks it as used.
#[inline(always)]
fn tell_twin(packet: &Packet, draft: &mut Draft, flow: &Flow) {
    let key = &packet.tuple;
    draft.reply_key = flow.twin_key();
    match entry(&draft.reply_key) {
        Some(twin) if owns(key, twin) => {
            twin.last_seen = flow.last_seen;
            twin.state = flow.state;
            twin.proof = flow.proof;
        }
        // The client has begun another flow, or the tuple of the answers was given to one: this flow is over.
        Some(_) => {
            let _ = FLOWS.remove(key);
        }
        None => {
            flow.write_twin(key, &mut draft.reply);
            // What this entry was checked for says nothing of the other direction.
            draft.reply.epoch = before_all(flow.epoch);
            // Fails only when another CPU was faster.
            let _ = FLOWS.insert(&draft.reply_key, &draft.reply, u64::from(BPF_NOEXIST));
        }
    }
}
