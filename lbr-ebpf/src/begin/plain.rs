//! Between addresses as they are, without a Service.

use lbr_common::flow::flow_flags;
use lbr_common::policy::policy_flags;
use lbr_common::select;
use lbr_common::tuple::proto;
use lbr_common::verdict::Verdict;

use super::spare_port;
use super::store::{is_stored, store};
use crate::scratch::Scratch;
use crate::step::{self, DONE};
use crate::{flow, maps, policy};

/// Attempts to find a free tuple: first the packet's own, then other source ports.
const PLAIN_ATTEMPTS: u32 = 4;

step::global! {
    /// Begins a flow without a Service, if one end is a pod that the agent knows: fills the decision and returns
    /// [`DONE`]. [`Verdict::NoService`]: nobody asks for it. [`Verdict::Node`]: to the node itself. Else why not.
    /// `source` was asked before, and so the sender is known.
    ///
    /// A TCP packet that opens nothing belongs to a connection that is older than the flow (the agent is new here, or
    /// the kernel evicted the entry): it may go on if a connection in either direction would be allowed.
    pub(crate) fn plain(work: &mut Scratch, from: u32) -> Verdict = begin_plain as flow_begin_plain;
}

#[inline(always)]
fn begin_plain(work: &mut Scratch, from: u32) -> Verdict {
    let verdict = judge_plain(from, work);
    if verdict != DONE {
        return verdict;
    }
    let ends = work.judged.sender.flags | work.judged.receiver.flags;
    if ends & policy_flags::NODE != 0 {
        return Verdict::Node;
    }
    if ends & policy_flags::POD == 0 {
        return Verdict::NoService;
    }
    store_plain(from, work)
}

step::global! {
    /// The same for a client from elsewhere that has a flow to the same backend by a Service: whoever the backend is, a
    /// process of the node too, the answers have to be told apart.
    pub(crate) fn beside_service(work: &mut Scratch) -> Verdict = begin_beside_service as flow_begin_beside;
}

#[inline(always)]
fn begin_beside_service(work: &mut Scratch) -> Verdict {
    let verdict = judge_plain(0, work);
    if verdict != DONE {
        return verdict;
    }
    work.flow.flags |= flow_flags::WIRE;
    store_plain(0, work)
}

/// Looks up the receiver, judges, and gives the flow its first flags.
#[inline(always)]
fn judge_plain(from: u32, work: &mut Scratch) -> Verdict {
    work.judged.tuple = work.packet.tuple;
    policy::meet_receiver(work);
    work.flow.flags = if work.judged.receiver.flags == 0 { flow_flags::NOBODY } else { 0 };
    if from == 0 && work.flow.flags != 0 && policy::isolates(work, policy_flags::ISOLATED_IN) {
        return Verdict::NotJudged;
    }
    let is_midflow = work.packet.tuple.proto == proto::TCP && !work.packet.is_syn();
    if is_midflow {
        work.flow.flags |= flow_flags::MIDFLOW;
    }
    flow::judge_either(work, is_midflow)
}

#[inline(always)]
fn store_plain(from: u32, work: &mut Scratch) -> Verdict {
    match try_plain(from, work) {
        Ok(()) => DONE,
        Err(verdict) => verdict,
    }
}

/// The tuple stays as it is, unless the answers could not be told from those of a flow to a Service that has
/// the same backend: then another source port stands in.
#[inline(always)]
fn try_plain(from: u32, work: &mut Scratch) -> Result<(), Verdict> {
    work.flow.flags |= flow_flags::PLAIN;
    let mut attempt = 0;
    while attempt < PLAIN_ATTEMPTS {
        let flow = &mut work.flow;
        flow.to = work.packet.tuple;
        if attempt > 0 {
            let hash = select::hash(&work.packet.tuple, maps::hash_seed());
            flow.to.src_port = spare_port(hash, attempt);
            flow.flags &= !flow_flags::PLAIN;
        }
        flow.last_seen = flow::now();
        flow.service = 0;
        flow.backend = 0;
        flow.link = 0;
        flow.twin_link = 0;
        flow.epoch = work.epoch;
        flow.audited = work.judged.audited();
        flow.from = from;
        if is_stored(store(work, attempt, 0))? {
            flow::decide(&mut work.decision, &work.flow);
            return Ok(());
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
}
