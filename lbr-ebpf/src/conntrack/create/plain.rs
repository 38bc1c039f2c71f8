//! Between addresses as they are, without a Service.

use lbr_common::flow::flow_flags;
use lbr_common::policy::policy_flags;
use lbr_common::select;
use lbr_common::verdict::{Hook, Verdict};

use super::super::{decide, validate};
use super::store::{NEVER, store};
use super::{Terms, draft, spare_port};
use crate::scratch::Scratch;
use crate::step::{self, Step};
use crate::{maps, policy};

/// Attempts to find a free tuple: first the packet's own, then other source ports.
const PLAIN_ATTEMPTS: u32 = 4;

step::global! {
    /// Begins a flow without a Service, if one end is a pod that the agent knows: fills the decision. Else says why not:
    /// [`Verdict::NotService`]: no end is a pod of this node. [`Verdict::Node`]: to the node itself. The sender was looked up
    /// before.
    ///
    /// A TCP segment that opens nothing belongs to a connection that is older than the flow (the agent is new here, or
    /// the kernel evicted the entry): it is picked up if a connection in either direction would be allowed. That counts
    /// for such segments only: a SYN is judged for itself. A RST begins nothing.
    pub(crate) fn plain(work: &mut Scratch) -> Step = begin_plain as conntrack_begin_plain;
}

#[inline(always)]
fn begin_plain(work: &mut Scratch) -> Step {
    let flags = judge_plain(work)?;
    let (sender, receiver) = (work.query.sender.flags, work.query.receiver.flags);
    // What the node itself sends does not come here, so a sender with its address is what it masquerades.
    if receiver & policy_flags::NODE != 0 || (sender & policy_flags::NODE != 0 && work.hook != Hook::ToPod) {
        return Err(Verdict::Node);
    }
    if (sender | receiver) & policy_flags::POD == 0 {
        return Err(Verdict::NotService);
    }
    if work.packet.is_reset() {
        return Err(Verdict::StrayReset);
    }
    store_plain(work, flags)
}

step::global! {
    /// The same for a client that has a flow to the same backend by a Service: whatever the backend is, a
    /// process of the node too, the answers must stay distinct. The packet is no RST, which begins nothing.
    pub(crate) fn beside_service(work: &mut Scratch) -> Step = begin_beside_service as conntrack_begin_beside;
}

#[inline(always)]
fn begin_beside_service(work: &mut Scratch) -> Step {
    let flags = judge_plain(work)?;
    let origin = if work.hook == Hook::FromPod { 0 } else { flow_flags::EXTERNAL };
    store_plain(work, flags | origin)
}

/// Looks up the receiver, judges, and gives the flow's first flags.
#[inline(always)]
fn judge_plain(work: &mut Scratch) -> Result<u32, Verdict> {
    work.query.tuple = work.packet.tuple;
    // At a pod's link it was compared with the link before.
    if work.hook != Hook::ToPod {
        policy::look_up_receiver(work);
    }
    let is_midflow = !work.packet.can_begin();
    validate::judge_either(work, is_midflow)?;
    Ok(if is_midflow { flow_flags::PICKED_UP } else { 0 })
}

/// The tuple stays as it is, unless a flow to a Service with the same backend has the reply tuple: then another source
/// port stands in.
#[inline(always)]
fn store_plain(work: &mut Scratch, flags: u32) -> Step {
    let mut attempt = 0;
    while attempt < PLAIN_ATTEMPTS {
        work.draft.flow.to = work.packet.tuple;
        let mut plain = flow_flags::NO_NAT;
        if attempt > 0 {
            let hash = select::hash(&work.packet.tuple, maps::hash_seed());
            work.draft.flow.to.src_port = spare_port(hash, attempt);
            plain = 0;
        }
        draft(work, &Terms::plain(flags | plain));
        if store(work, 0, NEVER)? {
            decide(&mut work.decision, &work.draft.flow);
            return Ok(());
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
}
