//! Reports beside the counter of a verdict: events, and counts for each policy set.

use aya_ebpf::bindings::BPF_ANY;
use lbr_common::id::PolicySetId;
use lbr_common::policy::{DenialKey, EVENTS_PER_SECOND, Event, direction};
use lbr_common::verdict::{Counter, Verdict};

use crate::conntrack;
use crate::counters;
use crate::maps::{DENIALS, EVENTS};
use crate::packet::Packet;
use crate::policy::query::Query;
use crate::scratch::{Meta, Reports};
use crate::step::{self, Step};

/// For how long events are counted before the count begins anew.
const WINDOW_NS: u64 = 1_000_000_000;

/// A packet that is dropped for the sake of policy.
#[inline(always)]
pub(crate) fn denied(
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    reports: &mut Reports,
    verdict: Verdict,
) {
    let _ = tell_denied(packet, meta, query, reports, verdict as u32);
}

step::global! {
    /// The same, with set and verdict as numbers.
    fn tell_denied(packet: &Packet, meta: &Meta, query: &mut Query, reports: &mut Reports; verdict: u32) -> Step
        = tell_of_denied as report_denied;
}

#[inline(always)]
fn tell_of_denied(
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    reports: &mut Reports,
    verdict: u32,
) -> Step {
    let verdict = step::verdict(verdict);
    match verdict {
        Verdict::EgressDenied | Verdict::IngressDenied => count(meta, query, 0),
        Verdict::SpoofedSource
        | Verdict::Martian
        | Verdict::RouterMessage
        | Verdict::PodPending
        | Verdict::NotJudged
        | Verdict::TaggedByPod
        | Verdict::TunnelFromPod => {
            query.tuple = packet.tuple;
            query.set = PolicySetId::NONE;
            query.direction = 0;
        }
        _ => return Ok(()),
    }
    send(meta, query, reports, verdict);
    Ok(())
}

/// A packet that passes: whether its connection would be denied if the audited policies were enforced. Each
/// connection is reported once (see `validate::audit_once`), a packet without a flow each time.
#[inline(always)]
pub(crate) fn passed(meta: &Meta, query: &mut Query, reports: &mut Reports) {
    if query.audited_out.is_some() {
        let set = query.audited_out;
        audited(meta, query, reports, set, Verdict::EgressAudited);
    }
    if query.audited_in.is_some() {
        let set = query.audited_in;
        audited(meta, query, reports, set, Verdict::IngressAudited);
    }
}

#[inline(always)]
fn audited(meta: &Meta, query: &mut Query, reports: &mut Reports, set: PolicySetId, verdict: Verdict) {
    let _ = tell_audited(meta, query, reports, set.id, verdict as u32);
}

step::global! {
    /// The same, with set and verdict as numbers.
    fn tell_audited(meta: &Meta, query: &mut Query, reports: &mut Reports; set: u32, verdict: u32) -> Step
        = tell_of_audited as report_audited;
}

#[inline(always)]
fn tell_of_audited(meta: &Meta, query: &mut Query, reports: &mut Reports, set: u32, verdict: u32) -> Step {
    let verdict = step::verdict(verdict);
    let is_egress = verdict == Verdict::EgressAudited;
    query.set = PolicySetId { id: set };
    query.direction = if is_egress { direction::EGRESS } else { direction::INGRESS };
    counters::count(meta.hook, verdict, u64::from(meta.bytes));
    count(meta, query, 1);
    send(meta, query, reports, verdict);
    Ok(())
}

#[inline(always)]
fn count(meta: &Meta, query: &Query, audited: u16) {
    let key = DenialKey { set: query.set, direction: query.direction as u16, audited };
    let bytes = u64::from(meta.bytes);
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
fn send(meta: &Meta, query: &Query, reports: &mut Reports, verdict: Verdict) {
    let now = conntrack::now();
    if now.wrapping_sub(reports.since) > WINDOW_NS {
        reports.since = now;
        reports.sent = 0;
    }
    if reports.sent >= EVENTS_PER_SECOND {
        reports.suppressed = reports.suppressed.saturating_add(1);
        return;
    }
    reports.sent += 1;
    let event: &mut Event = &mut reports.event;
    event.time = now;
    event.ifindex = meta.ifindex;
    event.tuple = query.tuple;
    event.set = query.set;
    event.suppressed = reports.suppressed;
    event.direction = query.direction as u16;
    event.verdict = verdict as u8;
    event.hook = meta.hook as u8;
    reports.suppressed = 0;
    // Full without a reader: `denials` counts nevertheless.
    let _ = EVENTS.output(&reports.event, 0);
}
