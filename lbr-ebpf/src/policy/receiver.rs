//! Whether a packet's destination address belongs to the pod that it is about to reach.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::Verdict;

use crate::policy;
use crate::scratch::Scratch;
use crate::step::{self, Found};

step::global! {
    /// The packet at hand leaves by this link. Policies are asked by the destination address, so what reaches a pod that
    /// is isolated for ingress must be addressed to it: a frame with its link address and another pod's IP address, a
    /// group, or a flooded frame is not. Where the pod is not isolated, such a packet passes, and true says that it is the
    /// pod's own.
    pub(crate) fn check(work: &mut Scratch) -> Found = belongs_to_link as receiver_check;
}

#[inline(always)]
fn belongs_to_link(work: &mut Scratch) -> Found {
    let owner = policy::endpoint(&work.packet.tuple.dst, work.generation, &mut work.query.receiver);
    work.query.receiver_link = owner;
    let is_at_receiver = owner == work.ifindex;
    if !is_at_receiver && policy::isolates(work, policy_flags::ISOLATED_IN) {
        return Err(Verdict::NotJudged);
    }
    Ok(is_at_receiver)
}
