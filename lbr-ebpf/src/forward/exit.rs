//! The one place where a verdict becomes an action and a counter.

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use lbr_common::flow::BY_ROUTE;
use lbr_common::id::BackendId;
use lbr_common::verdict::{Effect, Hook, Verdict};

use crate::counters::count;
use crate::forward::refuse;
use crate::forward::route;
use crate::maps;
use crate::packet::bytes::Bytes as _;
use crate::packet::frame::Frame;
use crate::packet::skb::Skb;
use crate::policy::report;
use crate::scratch::{Decision, Scratch, Way};
use crate::service::traffic;

/// On to the next program of this hook, if any, and then to the stack.
pub(crate) const PASS: i32 = TC_ACT_UNSPEC;

/// What a tc pipeline ends with: `Ok` for a packet that was translated as `Scratch::decision` says, else why it
/// was not.
pub(crate) type Outcome = Result<Verdict, Verdict>;

/// Runs a tc pipeline, and turns its end into the action for the kernel.
#[inline(always)]
pub(crate) fn run(skb: Skb, hook: Hook, pipeline: fn(Skb, &mut Scratch) -> Outcome) -> i32 {
    let Some(scratch) = Scratch::get() else { return PASS };
    scratch.meta.epoch = maps::epoch();
    scratch.meta.generation = maps::generation();
    scratch.meta.ifindex = skb.ifindex();
    scratch.meta.bytes = skb.len();
    scratch.meta.hook = hook;
    scratch.meta.entered_by = skb.entered_by();
    scratch.dsr.backend = BackendId::NONE;
    scratch.dsr.is_unwrapped = false;
    scratch.query.forget_audits();
    let (verdict, action) = match pipeline(skb, scratch) {
        Ok(verdict) => {
            let Scratch { meta, decision, way, .. } = scratch;
            if matches!(verdict, Verdict::ToBackend | Verdict::ToClient) {
                traffic::translated(meta, decision);
            }
            (verdict, forward(skb, decision, way))
        }
        Err(verdict) => match verdict.effect() {
            Effect::Pass | Effect::Translate => (verdict, PASS),
            Effect::Drop => {
                let Scratch { packet, meta, query, reports, .. } = scratch;
                report::denied(packet, meta, query, reports, verdict);
                (verdict, TC_ACT_SHOT)
            }
            Effect::Refuse => match refuse::answer(skb, &scratch.packet, &mut scratch.way, verdict) {
                Some(action) => (verdict, action),
                None => (Verdict::Unanswerable, TC_ACT_SHOT),
            },
        },
    };
    if scratch.query.has_audits() && matches!(verdict.effect(), Effect::Pass | Effect::Translate) {
        let Scratch { meta, query, reports, .. } = scratch;
        report::passed(meta, query, reports);
    }
    count(hook, verdict, u64::from(scratch.meta.bytes));
    action
}

#[inline(always)]
fn forward(skb: Skb, decision: &Decision, way: &mut Way) -> i32 {
    match decision.redirect_to {
        0 => PASS,
        BY_ROUTE => route::send(skb, way),
        link => skb.redirect_peer(link),
    }
}

/// The same for XDP, where a packet goes back out, or on to tc as it came, or is dropped if it is neither any more.
#[inline(always)]
pub(crate) fn run_xdp(frame: Frame, pipeline: fn(Frame, &mut Scratch) -> Outcome) -> u32 {
    let Some(scratch) = Scratch::get() else { return XDP_PASS };
    scratch.meta.epoch = maps::epoch();
    scratch.meta.ifindex = frame.ifindex();
    scratch.meta.bytes = frame.len();
    scratch.meta.hook = Hook::Xdp;
    let (verdict, action) = match pipeline(frame, scratch) {
        Ok(verdict) => {
            traffic::translated(&scratch.meta, &scratch.decision);
            (verdict, XDP_TX)
        }
        Err(verdict) if verdict.effect() == Effect::Pass => (verdict, XDP_PASS),
        Err(verdict) => (verdict, XDP_DROP),
    };
    count(Hook::Xdp, verdict, u64::from(scratch.meta.bytes));
    action
}
