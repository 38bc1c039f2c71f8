//! Whether a packet's source address belongs to the link that it came from.

use lbr_common::policy::policy_flags;
use lbr_common::verdict::Verdict;

use crate::maps::{self, ENDPOINTS};
use crate::policy;
use crate::scratch::Scratch;
use crate::step::DONE;

/// Whether the source is an address of the node itself. What the node sends does not come by an interface, so a
/// packet that did, and says so, lies.
#[inline(never)]
pub(crate) fn pretends_to_be_node(work: &Scratch) -> bool {
    let owner = ENDPOINTS.get_ptr(&work.packet.tuple.src);
    // SAFETY: valid for the run of the program; the agent replaces entries whole.
    let flags = owner.map_or(0, |owner| unsafe { (*owner).policy.at(maps::generation()).flags });
    flags & policy_flags::NODE != 0 && maps::checks_source()
}

/// Returns [`DONE`], or why a packet from this link may not carry its source address.
///
/// A link without a pod that is known may send from any address that is nobody else's, until its pod is known.
#[inline(never)]
pub(crate) fn check(ifindex: u32, work: &Scratch) -> Verdict {
    const OWNED: u32 = policy_flags::POD | policy_flags::PENDING;
    let (owner, flags) = match ENDPOINTS.get_ptr(&work.packet.tuple.src) {
        // SAFETY: valid for the run of the program; the agent replaces entries whole.
        Some(entry) => unsafe { ((*entry).link, (*entry).policy.at(maps::generation()).flags) },
        None => (0, 0),
    };
    if owner == ifindex && flags & OWNED != 0 {
        return DONE;
    }
    let link = policy::link(ifindex);
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
