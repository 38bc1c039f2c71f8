//! Whether a packet's destination address belongs to the pod that it is about to reach.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::Verdict;

use crate::packet::Packet;
use crate::policy;
use crate::policy::query::Query;
use crate::scratch::Meta;
use crate::step::{self, Found};

step::global! {
    /// The packet at hand leaves by this link. Policies are asked by the destination address, so what reaches a pod that
    /// is isolated for ingress must be addressed to it: a frame with its link address and another pod's IP address, a
    /// group, or a flooded frame is not. Where the pod is not isolated, such a packet passes, and true says that it is the
    /// pod's own.
    pub(crate) fn check(packet: &Packet, meta: &Meta, query: &mut Query) -> Found
        = belongs_to_link as receiver_check;
}

#[inline(always)]
fn belongs_to_link(packet: &Packet, meta: &Meta, query: &mut Query) -> Found {
    let owner = policy::endpoint(&packet.tuple.dst, meta.generation, &mut query.receiver);
    query.receiver_link = owner;
    let is_at_receiver = owner == meta.ifindex;
    if !is_at_receiver && policy::isolates(meta, policy_flags::ISOLATED_IN) {
        return Err(Verdict::NotJudged);
    }
    Ok(is_at_receiver)
}
