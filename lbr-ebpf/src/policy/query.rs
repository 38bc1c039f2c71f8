//! What policies are asked, and what they said.

use lbr_common::flow::audited_sets;
use lbr_common::id::PolicySetId;
use lbr_common::policy::Policy;
use lbr_common::tuple::Tuple;

/// A question to the policies of both ends of a connection, and their answer: for counters and events.
#[repr(C)]
pub(crate) struct Query {
    /// From client to backend: source as sent, destination as translated.
    pub(crate) tuple: Tuple,
    /// The policy at its source,
    pub(crate) sender: Policy,
    /// and at its destination.
    pub(crate) receiver: Policy,
    /// The link that the destination is behind; 0: none, or not known.
    pub(crate) receiver_link: u32,
    /// Set that did not allow it, if one was asked.
    pub(crate) set: PolicySetId,
    /// The direction in which it was not allowed.
    pub(crate) direction: u32,
    /// Audited set of the sender that would not have allowed it, if any. Reported if the packet passes.
    pub(crate) audited_out: PolicySetId,
    /// The same of the receiver.
    pub(crate) audited_in: PolicySetId,
}

impl Query {
    /// For [`lbr_common::flow::Flow::audited`].
    #[inline(always)]
    pub(crate) fn audited(&self) -> u32 {
        audited_sets(self.audited_out, self.audited_in)
    }

    /// Whether there is an audit to report.
    #[inline(always)]
    pub(crate) fn has_audits(&self) -> bool {
        self.audited_out.is_some() || self.audited_in.is_some()
    }

    /// Reports none.
    #[inline(always)]
    pub(crate) fn forget_audits(&mut self) {
        self.audited_out = PolicySetId::NONE;
        self.audited_in = PolicySetId::NONE;
    }

    /// Asks about the other direction.
    #[inline(always)]
    pub(crate) fn swap_ends(&mut self) {
        self.tuple = self.tuple.reversed();
        core::mem::swap(&mut self.sender, &mut self.receiver);
    }
}
