//! Whether a packet's source address belongs to the link that it came from.
//!
//! Who asks also learns what is known of the source: it is `Judged::sender` afterwards.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::Verdict;

use crate::scratch::Scratch;
use crate::step::{self, DONE};
use crate::{maps, policy};

/// Whether the source is an address of the node itself. What the node sends does not come by an interface, so a
/// packet that did, and says so, lies.
#[inline(always)]
pub(crate) fn pretends_to_be_node(work: &mut Scratch) -> bool {
    sender_link(work);
    work.judged.sender.flags & policy_flags::NODE != 0 && maps::checks_source()
}

step::global! {
    /// Returns [`DONE`], or why the packet at hand, which a pod's link sent, may not carry its source address.
    ///
    /// A link without a pod that is known may send from any address that is nobody else's, until its pod is known.
    pub(crate) fn check(work: &mut Scratch) -> Verdict = belongs_to_link as source_check;
}

#[inline(always)]
fn belongs_to_link(work: &mut Scratch) -> Verdict {
    const OWNED: u32 = policy_flags::POD | policy_flags::PENDING;
    let owner = sender_link(work);
    let flags = work.judged.sender.flags;
    if owner == work.ifindex && flags & OWNED != 0 {
        return DONE;
    }
    let link = policy::link(work);
    let is_known = link & policy_flags::POD != 0;
    // Behind a bridge, and not heard of yet: it may be this link's if that has no pod of its own.
    let may_be_ours = owner == 0 && flags & policy_flags::NODE == 0 && !is_known;
    if !maps::checks_source() {
        // No address to judge it by. It must not be a way out for a pod that may not send.
        return if link & policy_flags::ISOLATED_OUT != 0 { Verdict::NotJudged } else { DONE };
    }
    if !may_be_ours {
        Verdict::SpoofedSource
    } else if flags & OWNED == 0 && maps::denies_pending() {
        Verdict::PodPending
    } else {
        DONE
    }
}

#[inline(always)]
fn sender_link(work: &mut Scratch) -> u32 {
    policy::endpoint(&work.packet.tuple.src, work.generation, &mut work.judged.sender)
}
