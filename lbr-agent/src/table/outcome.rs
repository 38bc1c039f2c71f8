//! The result of writing.

use std::fmt;

use crate::dataplane::WriteError;
use crate::model::ObjectRef;

/// The result of one round of writing.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Entries added or replaced.
    pub writes: usize,
    /// Entries removed.
    pub removals: usize,
    /// Entries that still differ, for the next try.
    pub pending: usize,
    /// Nothing was written: the programs are not loaded yet, and some link needs them first.
    pub waits_for_programs: bool,
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
    /// The object that it is about, if it is a single one that is known.
    pub object: Option<ObjectRef>,
    /// The entry, or the part of the object, for a person; empty for the object as a whole.
    pub key: String,
    /// Why.
    pub error: WriteError,
}

impl Problem {
    /// It is about an entry.
    pub(crate) fn new(map: &'static str, key: String, error: WriteError) -> Self {
        Self { map, object: None, key, error }
    }

    /// The object and its part, or the entry: `Service default/web port http`.
    pub fn place(&self) -> String {
        match &self.object {
            None => self.key.clone(),
            Some(object) if self.key.is_empty() => object.to_string(),
            Some(object) => format!("{object} {}", self.key),
        }
    }
}

impl fmt::Display for Problem {
    /// One line for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.error)
    }
}
