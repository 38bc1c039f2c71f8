//! What policies are asked, and what they said.

use lbr_common::flow::audited_sets;
use lbr_common::policy::Policy;
use lbr_common::tuple::Tuple;

/// A question to the policies of both ends of a connection, and their answer: for counters and events.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Query {
    /// From client to backend: source as sent, destination as translated.
    pub(crate) tuple: Tuple,
    /// The policy at its source,
    pub(crate) sender: Policy,
    /// and at its destination.
    pub(crate) receiver: Policy,
    /// The link that the destination is behind; 0: none, or not known.
    pub(crate) receiver_link: u32,
    /// Set that did not allow it; 0: none was asked.
    pub(crate) set: u32,
    /// The direction in which it was not allowed.
    pub(crate) direction: u32,
    /// Audited set of the sender that would not have allowed it; 0: none. Reported if the packet passes.
    pub(crate) audited_out: u32,
    /// The same of the receiver.
    pub(crate) audited_in: u32,
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
        self.audited_out | self.audited_in != 0
    }

    /// Reports none.
    #[inline(always)]
    pub(crate) fn forget_audits(&mut self) {
        self.audited_out = 0;
        self.audited_in = 0;
    }

    /// Asks about the other direction.
    #[inline(always)]
    pub(crate) fn swap_ends(&mut self) {
        self.tuple = self.tuple.reversed();
        core::mem::swap(&mut self.sender, &mut self.receiver);
    }
}
