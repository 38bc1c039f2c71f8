//! The flow of a packet: found, and checked. See `lbr_common::flow` for what an entry means, `begin` for new ones.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated as helper;
use lbr_common::flow::{BY_ROUTE, Flow, IDLE_NS, TOUCH_INTERVAL_NS, flow_flags};
use lbr_common::maps::config::abilities;
use lbr_common::service::{Backend, backend_flags};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::Verdict;

use crate::maps::{self, FLOWS, LINKS};
use crate::packet::{Packet, tcp_flags};
use crate::scratch::{Decision, Scratch};
use crate::step::{self, DONE, check};
use crate::{policy, service, source};

/// A TCP connection without packets for this long gives way (RFC 5382, REQ-5: not below 2 h 4 min).
pub(crate) const TCP_IDLE_NS: u64 = 7_500 * 1_000_000_000;

/// The flow that the packet at hand belongs to, brought up to date with it: fills the decision. False if it has
/// none or begins anew. `from` is the pod link that it came from; 0: it came by the stack.
#[inline(always)]
pub(crate) fn find(work: &mut Scratch, from: u32) -> Result<bool, Verdict> {
    let Some(entry) = FLOWS.get_ptr_mut(&work.packet.tuple) else { return Ok(false) };
    // SAFETY: entries live until the program ends (the map is freed after an RCU grace period). The kernel
    // may hand an evicted entry to another flow meanwhile: the fields are read once, and what is written
    // (time, flags, epoch) costs that flow at most one look at its backend and its policies.
    let flow = unsafe { &mut *entry };
    let now = now();
    if begins_anew(&work.packet, &work.packet.tuple, flow, now) {
        return Ok(false);
    }
    // First, as what follows takes the packet for one of the flow.
    if from != 0 && flow.from != from {
        check(source::check(work))?;
        flow.from = from;
    }
    if flow.epoch != work.epoch {
        match refresh(work) {
            DONE => {}
            Verdict::NoService => return Ok(false),
            verdict => return Err(verdict),
        }
    }
    keep_alive(&work.packet.tuple, flow, now);
    let packet = &work.packet;
    if packet.tuple.proto == proto::TCP && packet.flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
        flow.flags |= if packet.flags & tcp_flags::RST != 0 { flow_flags::RST } else { flow_flags::FIN };
        // From now on counts when its tuple may be taken.
        flow.last_seen = now;
    }
    decide(&mut work.decision, flow);
    Ok(true)
}

/// Whether the packet at hand, which came by the wire, goes on by a route as those of its flow before it, and nothing is
/// to be decided or remembered of it: then fills the decision. If not, it is for [`find`].
#[inline(always)]
pub(crate) fn carry_on(work: &mut Scratch) -> bool {
    /// With any other flag there is more to do than to translate.
    const ORDINARY: u32 = flow_flags::OWN | flow_flags::MIDFLOW | flow_flags::NOBODY | flow_flags::WIRE;
    let Some(entry) = FLOWS.get_ptr_mut(&work.packet.tuple) else { return false };
    // SAFETY: as in `find`.
    let flow = unsafe { &mut *entry };
    let now = now();
    if flow.link != BY_ROUTE
        || flow.from != 0
        || flow.epoch != work.epoch
        || flow.flags & !ORDINARY != 0
        || begins_anew(&work.packet, &work.packet.tuple, flow, now)
    {
        return false;
    }
    keep_alive(&work.packet.tuple, flow, now);
    decide(&mut work.decision, flow);
    true
}

/// Remembers now and then that the conversation goes on.
#[inline(always)]
fn keep_alive(key: &Tuple, flow: &mut Flow, now: u64) {
    if silence(flow, now) > TOUCH_INTERVAL_NS {
        flow.last_seen = now;
        // Answers that do not come by here have no entry.
        if flow.flags & flow_flags::DIRECT == 0 {
            restore_twin(key, flow);
        }
    }
}

/// Whether the packet is the first one of another conversation: a SYN when the last one has ended, anything
/// else when it was silent for long. `key` is the flow's. Who got no answer before a Service had the address, and asks again, is answered.
#[inline(always)]
fn begins_anew(packet: &Packet, key: &Tuple, flow: &Flow, now: u64) -> bool {
    if packet.tuple.proto == proto::TCP {
        packet.is_syn() && (is_over(key, flow) || became_a_service(packet, flow))
    } else {
        silence(flow, now) > IDLE_NS
    }
}

/// Whether a client was sending where no Service was when its flow began, and one is now.
#[inline(always)]
fn became_a_service(packet: &Packet, flow: &Flow) -> bool {
    let to = &packet.tuple;
    flow.flags & (flow_flags::PLAIN | flow_flags::REPLY) == flow_flags::PLAIN
        && service::has_place(&to.dst, to.dst_port, to.proto)
}

/// For how long a flow had no packet, in nanoseconds. Another CPU may have seen one after `now`.
#[inline(always)]
pub(crate) fn silence(flow: &Flow, now: u64) -> u64 {
    (now.wrapping_sub(flow.last_seen) as i64).max(0) as u64
}

#[inline(always)]
pub(crate) fn decide(decision: &mut Decision, flow: &Flow) {
    *decision = Decision {
        to: flow.to,
        link: flow.link,
        from: flow.from,
        service: flow.service,
        is_reply: flow.flags & flow_flags::REPLY != 0,
        is_plain: flow.flags & flow_flags::PLAIN != 0,
        to_nobody: flow.flags & (flow_flags::NOBODY | flow_flags::REPLY) == flow_flags::NOBODY,
        is_wire: flow.flags & flow_flags::WIRE != 0,
        is_direct: flow.flags & flow_flags::DIRECT != 0,
        is_tunneled: flow.flags & flow_flags::TUNNELED != 0,
        is_new: false,
    };
}

step::global! {
    /// Whether a flow has the tuple in `Judged::tuple`, lives, and is still allowed: then fills the decision, leaves the
    /// flow as it is, and returns [`DONE`]. Else [`Verdict::NoService`].
    pub(crate) fn peek(work: &mut Scratch) -> Verdict = peek_living as flow_peek;
}

#[inline(always)]
fn peek_living(work: &mut Scratch) -> Verdict {
    let Some(entry) = FLOWS.get_ptr(&work.judged.tuple) else { return Verdict::NoService };
    // SAFETY: as in `find`.
    let flow = unsafe { &*entry };
    if is_past(&work.judged.tuple, flow, now())
        || (flow.epoch != work.epoch && judge_again(work, flow) != DONE)
    {
        return Verdict::NoService;
    }
    // Told when the flow's own packets ask.
    work.judged.forget_audits();
    decide(&mut work.decision, flow);
    DONE
}

/// Whether nothing that belongs to a flow can still be on its way. A connection that has ended is not past at
/// once: the segment that is too big for the path may be the last one.
#[inline(always)]
fn is_past(key: &Tuple, flow: &Flow, now: u64) -> bool {
    let silence = silence(flow, now);
    silence > IDLE_NS && (flow.to.proto != proto::TCP || silence > TCP_IDLE_NS || is_over(key, flow))
}

/// Whether the packet at hand was translated on its way here, and so judged before, where that was done: then
/// the answers to what it is now have an entry, which translates.
#[inline(never)]
pub(crate) fn is_translated(packet: &Packet) -> bool {
    let key = packet.tuple.reversed();
    let Some(entry) = FLOWS.get_ptr(&key) else { return false };
    // SAFETY: as in `find`.
    let flow = unsafe { &*entry };
    flow.flags & flow_flags::PLAIN == 0 && !begins_anew(packet, &key, flow, now())
}

step::global! {
    /// Looks whether what the packet's flow was begun with is still there, and still allowed, since the agent says that
    /// something has changed. [`Verdict::NoService`] if the flow has to move to another backend: datagrams, and a SYN
    /// (nothing is established yet). A TCP connection keeps its backend whatever becomes of it. A link that is gone is
    /// left to the stack, which knows where the address is now.
    fn refresh(work: &mut Scratch) -> Verdict = refresh_entry as flow_refresh;
}

#[inline(always)]
fn refresh_entry(work: &mut Scratch) -> Verdict {
    // Evicted since it was found: the packet begins a flow again.
    let Some(entry) = FLOWS.get_ptr_mut(&work.packet.tuple) else { return Verdict::NoService };
    // SAFETY: as in `find`.
    let flow = unsafe { &mut *entry };
    if flow.service != 0 && flow.flags & flow_flags::REPLY == 0 {
        let goes_back = flow.flags & flow_flags::HAIRPIN != 0;
        match service::backend(flow.backend).filter(|b| b.leads_to(&flow.to)) {
            // It has come here since, and is reached in another way.
            Some(backend)
                if flow.flags & flow_flags::DIRECT != 0 && backend.flags & backend_flags::HERE != 0 =>
            {
                return Verdict::NoService;
            }
            Some(backend) if !goes_back => flow.link = way_to(backend, flow.flags),
            None if work.packet.tuple.proto != proto::TCP || work.packet.is_syn() => {
                return Verdict::NoService;
            }
            None if !goes_back && flow.link != BY_ROUTE => flow.link = 0,
            _ => {}
        }
    }
    if work.packet.tuple.proto != proto::TCP && became_a_service(&work.packet, flow) {
        return Verdict::NoService;
    }
    work.judged.tuple = work.packet.tuple;
    let verdict = judge_again(work, flow);
    if verdict != DONE {
        return verdict;
    }
    audit_once(work, flow);
    if flow.flags & (flow_flags::NOBODY | flow_flags::REPLY) == flow_flags::NOBODY {
        work.judged.tuple = work.packet.tuple;
        policy::meet_receiver(work);
        if work.judged.receiver.flags != 0 {
            flow.flags &= !flow_flags::NOBODY;
        }
    }
    flow.link = if_there(flow.link);
    flow.twin_link = if_there(flow.twin_link);
    flow.epoch = work.epoch;
    DONE
}

/// Asks the policies about the flow whose key is in `Judged::tuple`, as they were asked when it began: from the
/// client to the backend, whichever way the packet at hand goes.
#[inline(always)]
fn judge_again(work: &mut Scratch, flow: &Flow) -> Verdict {
    if maps::keeps_established() || flow.flags & flow_flags::HAIRPIN != 0 {
        return DONE;
    }
    if flow.flags & flow_flags::REPLY != 0 {
        work.judged.tuple = work.judged.tuple.reversed();
        // The answer may be addressed to the node, in whose name the request was sent.
        work.judged.tuple.src = flow.to.dst;
        work.judged.tuple.src_port = flow.to.dst_port;
    } else {
        work.judged.tuple.dst = flow.to.dst;
        work.judged.tuple.dst_port = flow.to.dst_port;
    }
    policy::meet_sender(work);
    policy::meet_receiver(work);
    judge_either(work, flow.flags & flow_flags::MIDFLOW != 0)
}

/// A connection that is judged again is told of again only if other audited sets would deny it now. The client's
/// entry remembers them, so only what the client sends tells.
#[inline(always)]
fn audit_once(work: &mut Scratch, flow: &mut Flow) {
    let audited = work.judged.audited();
    if flow.flags & flow_flags::REPLY != 0 || flow.audited == audited {
        work.judged.forget_audits();
    } else {
        flow.audited = audited;
    }
}

step::global! {
    /// Asks the policies of both ends, who were looked up before. `either`: nobody knows which end is the client, so
    /// either direction may be allowed.
    pub(crate) fn judge_either(work: &mut Scratch, either: bool) -> Verdict = judge_directions as policy_judge_either;
}

#[inline(always)]
fn judge_directions(work: &mut Scratch, either: bool) -> Verdict {
    let verdict = policy::judge(work);
    if verdict == DONE || !either {
        return verdict;
    }
    turn_around(work);
    if policy::judge(work) == DONE {
        return DONE;
    }
    // Told as it was asked first.
    turn_around(work);
    policy::judge(work)
}

#[inline(always)]
fn turn_around(work: &mut Scratch) {
    work.judged.tuple = work.judged.tuple.reversed();
    core::mem::swap(&mut work.judged.sender, &mut work.judged.receiver);
}

/// How what a client sends reaches a backend: what came by the wire and goes on by it leaves by a route.
#[inline(always)]
pub(crate) fn way_to(backend: &Backend, flow_flags: u32) -> u32 {
    let is_wire = flow_flags & lbr_common::flow::flow_flags::WIRE != 0;
    if is_wire && backend.flags & backend_flags::HERE == 0 { BY_ROUTE } else { backend.link }
}

/// The link, or 0 if it is none (any more) that lbr puts packets into.
#[inline(always)]
fn if_there(link: u32) -> u32 {
    if link == BY_ROUTE {
        return link;
    }
    if link != 0 && LINKS.get_ptr(link).is_some() { link } else { 0 }
}

/// Whether the TCP connection of an entry and its key has ended: reset, or closed by both sides. One that is half closed
/// still delivers.
#[inline(always)]
pub(crate) fn is_over(key: &Tuple, flow: &Flow) -> bool {
    over_for(key, flow, 0) != ALIVE
}

/// See [`over_for`].
pub(crate) const ALIVE: i64 = -1;

/// For how many nanoseconds a TCP connection has been over, or [`ALIVE`].
#[inline(never)]
pub(crate) fn over_for(key: &Tuple, flow: &Flow, now: u64) -> i64 {
    if flow.to.proto != proto::TCP {
        return ALIVE;
    }
    let (mut flags, mut both, mut time) = (flow.flags, flow.flags, silence(flow, now));
    // Only the client is heard of a direct flow. Where the other direction was evicted, this one's word has to do.
    if flow.flags & flow_flags::DIRECT == 0
        && let Some(twin) = FLOWS.get_ptr(flow.twin_key())
    {
        // SAFETY: as in `find`.
        let twin = unsafe { &*twin };
        if twin.twin_key() != *key {
            // Another flow's: it was over when that one took the tuple.
            return time as i64;
        }
        flags |= twin.flags;
        both &= twin.flags;
        time = time.min(silence(twin, now));
    }
    if flags & flow_flags::RST != 0 || both & flow_flags::FIN != 0 { time as i64 } else { ALIVE }
}

/// Tells the entry of the other direction that the conversation goes on, or puts it back if the kernel evicted
/// it. The look-up also marks it as used.
#[inline(never)]
fn restore_twin(key: &Tuple, flow: &Flow) {
    let twin_key = flow.twin_key();
    if let Some(twin) = FLOWS.get_ptr_mut(twin_key) {
        // SAFETY: as in `find`. Another flow's entry would live a little longer than it has to.
        unsafe { (*twin).last_seen = flow.last_seen };
    } else {
        // Fails only when another CPU was faster.
        let _ = FLOWS.insert(twin_key, flow.twin(key), u64::from(BPF_NOEXIST));
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, exact to a timer tick: enough for ages in seconds, at a third of the
/// price. Before Linux 5.11 it is exact.
#[inline(always)]
pub(crate) fn now() -> u64 {
    if maps::has(abilities::COARSE_CLOCK) {
        // SAFETY: a helper without arguments.
        unsafe { helper::bpf_ktime_get_coarse_ns() }
    } else {
        // SAFETY: as above.
        unsafe { helper::bpf_ktime_get_ns() }
    }
}
