//! Connection tracking: which flow a packet belongs to, in which state that is, and the beginning of new ones.
//!
//! The state machine itself, with every lifetime, is `lbr_common::conntrack`; what an entry means, `lbr_common::flow`.
//!
//! - `lookup.rs` finds the flow of a packet: one look-up and a few comparisons for an established one.
//! - `epoch.rs` asks whether anything has changed that concerns a flow.
//! - `validate.rs` asks whether a flow is still allowed, and still leads to where it led.
//! - `advance.rs` moves it to its next state.
//! - `create/` begins one.

mod advance;
pub(crate) mod create;
mod epoch;
mod lookup;
mod validate;

pub(crate) use self::lookup::{carry_on, find, is_translated, meets_translated, peek, was_answer};

use aya_ebpf::helpers::generated as helper;
use lbr_common::conntrack::lifetime;
use lbr_common::flow::{BY_ROUTE, Flow, TOUCH_INTERVAL_NS, flow_flags};
use lbr_common::id::BackendId;
use lbr_common::maps::config::abilities;
use lbr_common::service::{Backend, backend_flags};
use lbr_common::tuple::Tuple;

use crate::maps::{self, FLOWS};
use crate::scratch::{Decision, Draft};
use crate::step::{self, Step};

/// The entry with this key.
///
/// Entries live until the program ends (a map's memory is freed after an RCU grace period). The kernel may hand an
/// evicted entry to another flow meanwhile: what is written costs that flow at most one look at its backend and its
/// policies, since fields that decide are written by whole entries only.
#[inline(always)]
fn entry(key: &Tuple) -> Option<&'static mut Flow> {
    // SAFETY: see above.
    FLOWS.get_ptr_mut(key).map(|entry| unsafe { &mut *entry })
}

/// Whether a flow is past its lifetime, and so none any more.
#[inline(always)]
fn is_expired(flow: &Flow, now: u64) -> bool {
    let silence = flow.silence(now);
    // No lifetime is shorter.
    silence > TOUCH_INTERVAL_NS && silence > lifetime(flow.state(), flow.to.proto, &maps::timeouts())
}

/// Whether a flow's reverse entry is its own, and not one of a flow that took over its tuple.
#[inline(always)]
fn owns(key: &Tuple, twin: &Flow) -> bool {
    twin.twin_key() == *key
}

/// The reverse entry of the flow with this key, if it is its own.
#[inline(always)]
fn own_twin(key: &Tuple, twin_key: &Tuple) -> Option<&'static mut Flow> {
    entry(twin_key).filter(|twin| owns(key, twin))
}

step::global! {
    /// What becomes of the packet with which the flow of the draft began.
    pub(crate) fn decide_first(decision: &mut Decision, draft: &Draft) -> Step
        = decide_by_draft as conntrack_decide_first;
}

#[inline(always)]
fn decide_by_draft(decision: &mut Decision, draft: &Draft) -> Step {
    decide(decision, &draft.flow);
    decision.is_new = true;
    Ok(())
}

#[inline(always)]
fn decide(decision: &mut Decision, flow: &Flow) {
    *decision = Decision {
        to: flow.to,
        redirect_to: flow.redirect_to,
        service: flow.service,
        is_reply: flow.flags & flow_flags::REPLY != 0,
        is_no_nat: flow.flags & flow_flags::NO_NAT != 0,
        is_external: flow.flags & flow_flags::EXTERNAL != 0,
        is_dsr: flow.flags & flow_flags::DSR != 0,
        is_dsr_ipip: flow.flags & flow_flags::DSR_IPIP != 0,
        is_new: false,
    };
}

/// How a client's packets reach a backend: what came by an uplink for a backend elsewhere leaves by a route.
#[inline(always)]
fn redirect_target(backend: &Backend, flow_flags: u32) -> u32 {
    let is_external = flow_flags & lbr_common::flow::flow_flags::EXTERNAL != 0;
    if is_external && backend.flags & backend_flags::HERE == 0 { BY_ROUTE } else { backend.ifindex }
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

/// The backend that a client's flow to this frontend leads to, if it is reached by a packet with this destination (any
/// port of it, if it has none).
#[inline(always)]
pub(crate) fn backend_of(frontend: &Tuple, to: &Tuple) -> Option<BackendId> {
    const KIND: u32 = flow_flags::EXTERNAL | flow_flags::REPLY | flow_flags::DSR;
    let flow = entry(frontend)?;
    let is_same = flow.to.dst == to.dst && (to.dst_port == 0 || flow.to.dst_port == to.dst_port);
    let is_it = is_same && flow.flags & KIND == flow_flags::EXTERNAL && !is_expired(flow, now());
    if is_it && flow.backend.is_some() { Some(flow.backend) } else { None }
}
