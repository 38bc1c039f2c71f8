//! The result of writing.

use crate::dataplane::WriteError;

/// The result of one round of writing.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Entries added or replaced.
    pub writes: usize,
    /// Entries removed.
    pub removals: usize,
    /// Entries that still differ, for the next try.
    pub pending: usize,
    /// Writes that failed, and entries that do not fit. An entry that only waits for another one is not listed.
    pub problems: Vec<Problem>,
    /// Connected UDP sockets that lost their backend, and were aborted.
    pub aborted_sockets: usize,
    /// Why there may be more of them. It is tried again in the next round.
    pub abort_failed: Option<std::io::Error>,
}

impl Outcome {
    /// Whether the maps hold what they should.
    pub fn is_converged(&self) -> bool {
        self.pending == 0
    }
}

/// A write that failed or was not tried.
#[derive(Debug)]
pub struct Problem {
    /// Name of the map.
    pub map: &'static str,
    /// The entry, or the Service, for a person.
    pub key: String,
    /// Why.
    pub error: WriteError,
}
