//! Reports beside the counter of a verdict: events, and counts for each policy set.

use aya_ebpf::bindings::BPF_ANY;
use lbr_common::id::PolicySetId;
use lbr_common::policy::{DenialKey, EVENTS_PER_SECOND, Event, direction};
use lbr_common::verdict::{Counter, Verdict};

use crate::conntrack;
use crate::counters;
use crate::maps::{DENIALS, EVENTS};
use crate::scratch::Scratch;
use crate::step::{self, Step};

/// For how long events are counted before the count begins anew.
const WINDOW_NS: u64 = 1_000_000_000;

/// A packet that is dropped for the sake of policy.
#[inline(always)]
pub(crate) fn denied(work: &mut Scratch, verdict: Verdict) {
    let _ = tell_denied(work, verdict as u32);
}

step::global! {
    /// The same, with the verdict as a number.
    fn tell_denied(work: &mut Scratch, verdict: u32) -> Step = tell_of_denied as report_denied;
}

#[inline(always)]
fn tell_of_denied(work: &mut Scratch, verdict: u32) -> Step {
    let verdict = step::verdict(verdict);
    match verdict {
        Verdict::EgressDenied | Verdict::IngressDenied => count(work, 0),
        Verdict::SpoofedSource
        | Verdict::Martian
        | Verdict::RouterMessage
        | Verdict::PodPending
        | Verdict::NotJudged
        | Verdict::TaggedByPod
        | Verdict::TunnelFromPod => {
            work.query.tuple = work.packet.tuple;
            work.query.set = PolicySetId::NONE;
            work.query.direction = 0;
        }
        _ => return Ok(()),
    }
    send(work, verdict);
    Ok(())
}

/// A packet that passes: whether its connection would be denied if the audited policies were enforced. Each
/// connection is reported once (see `validate::audit_once`), a packet without a flow each time.
#[inline(always)]
pub(crate) fn passed(work: &mut Scratch) {
    if work.query.audited_out.is_some() {
        audited(work, work.query.audited_out, Verdict::EgressAudited);
    }
    if work.query.audited_in.is_some() {
        audited(work, work.query.audited_in, Verdict::IngressAudited);
    }
}

#[inline(always)]
fn audited(work: &mut Scratch, set: PolicySetId, verdict: Verdict) {
    let _ = tell_audited(work, set.id, verdict as u32);
}

step::global! {
    /// The same, with set and verdict as numbers.
    fn tell_audited(work: &mut Scratch, set: u32, verdict: u32) -> Step = tell_of_audited as report_audited;
}

#[inline(always)]
fn tell_of_audited(work: &mut Scratch, set: u32, verdict: u32) -> Step {
    let verdict = step::verdict(verdict);
    let is_egress = verdict == Verdict::EgressAudited;
    work.query.set = PolicySetId { id: set };
    work.query.direction = if is_egress { direction::EGRESS } else { direction::INGRESS };
    counters::count(work.hook, verdict, u64::from(work.bytes));
    count(work, 1);
    send(work, verdict);
    Ok(())
}

#[inline(always)]
fn count(work: &Scratch, audited: u16) {
    let key = DenialKey { set: work.query.set, direction: work.query.direction as u16, audited };
    let bytes = u64::from(work.bytes);
    if let Some(counter) = DENIALS.get_ptr_mut(&key) {
        // SAFETY: the value of this CPU, as for `counters`.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    } else {
        let _ = DENIALS.insert(&key, &Counter { packets: 1, bytes }, u64::from(BPF_ANY));
    }
}

#[inline(always)]
fn send(work: &mut Scratch, verdict: Verdict) {
    let now = conntrack::now();
    if now.wrapping_sub(work.limit.since) > WINDOW_NS {
        work.limit.since = now;
        work.limit.sent = 0;
    }
    if work.limit.sent >= EVENTS_PER_SECOND {
        work.limit.suppressed = work.limit.suppressed.saturating_add(1);
        return;
    }
    work.limit.sent += 1;
    let event: &mut Event = &mut work.event;
    event.time = now;
    event.ifindex = work.ifindex;
    event.tuple = work.query.tuple;
    event.set = work.query.set;
    event.suppressed = work.limit.suppressed;
    event.direction = work.query.direction as u16;
    event.verdict = verdict as u8;
    event.hook = work.hook as u8;
    work.limit.suppressed = 0;
    // Full without a reader: `denials` counts nevertheless.
    let _ = EVENTS.output(&work.event, 0);
}
