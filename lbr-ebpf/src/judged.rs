//! What policies are asked about, and what they said.

use lbr_common::flow::audited_sets;
use lbr_common::policy::Policy;
use lbr_common::tuple::Tuple;

/// What was judged, and by which set: for counters and events.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Judged {
    /// Source as sent, destination as translated.
    pub(crate) tuple: Tuple,
    /// What is known of its source,
    pub(crate) sender: Policy,
    /// and of its destination.
    pub(crate) receiver: Policy,
    /// Set that did not allow it; 0: none was asked.
    pub(crate) set: u32,
    /// The direction in which it was not allowed.
    pub(crate) direction: u32,
    /// Audited set of the sender that would not have allowed it; 0: none. Told of if the packet passes.
    pub(crate) audited_out: u32,
    /// The same of the receiver.
    pub(crate) audited_in: u32,
}

impl Judged {
    /// For [`lbr_common::flow::Flow::audited`].
    #[inline(always)]
    pub(crate) fn audited(&self) -> u32 {
        audited_sets(self.audited_out, self.audited_in)
    }

    /// Whether there is something to tell.
    #[inline(always)]
    pub(crate) fn has_audits(&self) -> bool {
        self.audited_out | self.audited_in != 0
    }

    /// Nothing of it is told.
    #[inline(always)]
    pub(crate) fn forget_audits(&mut self) {
        self.audited_out = 0;
        self.audited_in = 0;
    }
}
