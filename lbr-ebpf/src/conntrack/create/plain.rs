//! Between addresses as they are, without a Service.

use lbr_common::flow::flow_flags;
use lbr_common::policy::policy_flags;
use lbr_common::select;
use lbr_common::verdict::{Hook, Verdict};

use super::super::validate;
use super::store::{NEVER, store};
use super::{Terms, draft_flow, spare_port};
use crate::packet::Packet;
use crate::policy::query::Query;
use crate::scratch::{Draft, Meta};
use crate::step::{self, Step};
use crate::{maps, policy};

/// Attempts to find a free tuple: first the packet's own, then other source ports.
const PLAIN_ATTEMPTS: u32 = 4;

step::global! {
    /// Begins a flow without a Service, if one end is a pod that the agent knows. Else says why not:
    /// [`Verdict::NotService`]: no end is a pod of this node. [`Verdict::Node`]: to the node itself. The sender was looked up
    /// before.
    ///
    /// A TCP segment that opens nothing belongs to a connection that is older than the flow (the agent is new here, or
    /// the kernel evicted the entry): it is picked up if a connection in either direction would be allowed. That counts
    /// for such segments only: a SYN is judged for itself. A RST begins nothing.
    pub(crate) fn plain(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step
        = begin_plain as conntrack_begin_plain;
}

#[inline(always)]
fn begin_plain(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step {
    let flags = judge_plain(packet, meta, query)?;
    let (sender, receiver) = (query.sender.flags, query.receiver.flags);
    // What the node itself sends does not come here, so a sender with its address is what it masquerades.
    if receiver & policy_flags::NODE != 0 || (sender & policy_flags::NODE != 0 && meta.hook != Hook::ToPod) {
        return Err(Verdict::Node);
    }
    if (sender | receiver) & policy_flags::POD == 0 {
        return Err(Verdict::NotService);
    }
    if packet.is_reset() {
        return Err(Verdict::StrayReset);
    }
    store_plain(packet, meta, query, draft, flags)
}

step::global! {
    /// The same for a client that has a flow to the same backend by a Service: whatever the backend is, a
    /// process of the node too, the answers must stay distinct. The packet is no RST, which begins nothing.
    pub(crate) fn beside_service(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step
        = begin_beside_service as conntrack_begin_beside;
}

#[inline(always)]
fn begin_beside_service(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step {
    let flags = judge_plain(packet, meta, query)?;
    let origin = if meta.hook == Hook::FromPod { 0 } else { flow_flags::EXTERNAL };
    store_plain(packet, meta, query, draft, flags | origin)
}

/// Looks up the receiver, judges, and gives the flow's first flags.
#[inline(always)]
fn judge_plain(packet: &Packet, meta: &Meta, query: &mut Query) -> Result<u32, Verdict> {
    query.tuple = packet.tuple;
    // At a pod's link it was compared with the link before.
    if meta.hook != Hook::ToPod {
        policy::look_up_receiver(meta, query);
    }
    let is_midflow = !packet.can_begin();
    validate::judge_either(meta, query, is_midflow)?;
    Ok(if is_midflow { flow_flags::PICKED_UP } else { 0 })
}

/// The tuple stays as it is, unless a flow to a Service with the same backend has the reply tuple: then another source
/// port stands in.
#[inline(always)]
fn store_plain(packet: &Packet, meta: &Meta, query: &Query, draft: &mut Draft, flags: u32) -> Step {
    let mut attempt = 0;
    while attempt < PLAIN_ATTEMPTS {
        draft.flow.to = packet.tuple;
        let mut plain = flow_flags::NO_NAT;
        if attempt > 0 {
            let hash = select::hash(&packet.tuple, maps::hash_seed());
            draft.flow.to.src_port = spare_port(hash, attempt);
            plain = 0;
        }
        draft_flow(packet, meta, query, draft, &Terms::plain(flags | plain));
        if store(packet, meta, draft, 0, NEVER)? {
            return Ok(());
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
}
