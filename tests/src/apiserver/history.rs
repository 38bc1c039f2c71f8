//! The changes since the server started: the source of watches, and of lists of the past.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kind::Kind;
use super::object::{Key, Object};

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) kind: &'static Kind,
    /// None: it did not exist.
    pub(super) before: Option<Arc<Object>>,
    /// None: it was deleted.
    pub(super) after: Option<Arc<Object>>,
}

/// Changes in order. None is ever dropped: compaction is only a rule for requests. A real server has already sent
/// compacted events to an open watch, and a test must not depend on how fast that was.
#[derive(Debug, Default)]
pub(super) struct History {
    changes: Vec<Change>,
    compacted: u64,
}

impl History {
    /// An empty one that begins at `revision`.
    pub(super) fn from(revision: u64) -> Self {
        Self { changes: Vec::new(), compacted: revision }
    }

    pub(super) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    pub(super) fn compact(&mut self, revision: u64) {
        self.compacted = self.compacted.max(revision);
    }

    /// The oldest version that requests may name.
    pub(super) fn oldest(&self) -> u64 {
        self.compacted
    }

    /// Changes of a kind after `revision`.
    pub(super) fn after(&self, kind: &Kind, revision: u64) -> impl Iterator<Item = &Change> {
        let start = self.changes.partition_point(|change| change.revision <= revision);
        self.changes.iter().skip(start).filter(move |change| change.kind == kind)
    }

    /// The differences at `revision`; None if that version is compacted.
    pub(super) fn undone(&self, kind: &Kind, revision: u64) -> Option<BTreeMap<Key, Option<Arc<Object>>>> {
        let mut undone = BTreeMap::new();
        for change in self.after(kind, revision) {
            if let Some(object) = change.before.as_ref().or(change.after.as_ref()) {
                // The first change after that version has the object as it was.
                undone.entry(object.key.clone()).or_insert_with(|| change.before.clone());
            }
        }
        (revision >= self.compacted).then_some(undone)
    }
}
