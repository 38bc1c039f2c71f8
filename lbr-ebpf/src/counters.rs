//! How often each verdict was reached at each hook.

use lbr_common::verdict::{Hook, Verdict, counter_index};

use crate::maps::COUNTERS;

/// One more of `verdict` at `hook`.
#[inline(always)]
pub(crate) fn count(hook: Hook, verdict: Verdict, bytes: u64) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter_index(hook, verdict)) {
        // SAFETY: the entry of this CPU; programs on one CPU do not interrupt each other at the same hook in
        // a way that loses more than a count.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += bytes;
        }
    }
}
