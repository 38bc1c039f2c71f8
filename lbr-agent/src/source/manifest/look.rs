//! When a file may be read. Pure: the caller passes what it sees in the folder from time to time.
//!
//! Editors write a file in several steps: truncate and write, or rename away and create. A change counts when two looks
//! in a row agree on it, so that no intermediate step is taken for the author's intention.

use std::collections::BTreeMap;

/// The properties of a file that are visible without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) inode: u64,
    pub(super) len: u64,
    /// Seconds and nanoseconds of the last change of content.
    pub(super) modified: (i64, i64),
    /// The same for the last change of content or permissions.
    pub(super) changed: (i64, i64),
}

/// The files of a folder by name.
pub(super) type Listing = BTreeMap<String, Signature>;

/// Compares each look with the one before and with what was read.
#[derive(Debug, Default)]
pub(super) struct Looker {
    read: Listing,
    last: Listing,
}

/// The result of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Files to read now.
    pub(super) changed: Vec<String>,
    /// Files to forget now.
    pub(super) gone: Vec<String>,
    /// The folder is changing: look again soon.
    pub(super) unsettled: bool,
}

impl Looker {
    /// The first look, without one before to agree with: everything is to be read.
    pub(super) fn first(&mut self, now: Listing) -> Vec<String> {
        self.read = now.clone();
        self.last = now;
        self.read.keys().cloned().collect()
    }

    /// Another look.
    pub(super) fn look(&mut self, now: Listing) -> Seen {
        let mut seen = Seen::default();
        for (name, signature) in &now {
            if self.read.get(name) == Some(signature) {
                continue;
            }
            if self.last.get(name) == Some(signature) {
                seen.changed.push(name.clone());
                self.read.insert(name.clone(), *signature);
            } else {
                seen.unsettled = true;
            }
        }
        let missing: Vec<String> =
            self.read.keys().filter(|name| !now.contains_key(*name)).cloned().collect();
        for name in missing {
            if self.last.contains_key(&name) {
                seen.unsettled = true;
            } else {
                self.read.remove(&name);
                seen.gone.push(name);
            }
        }
        self.last = now;
        seen
    }

    /// The file could not be read: the next look tries again.
    pub(super) fn retry(&mut self, name: &str) {
        if let Some(signature) = self.read.get_mut(name) {
            // No file has inode 0, so no signature equals this one.
            signature.inode = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[(&str, u64)]) -> Listing {
        let signature = |len| Signature { inode: 1, len, modified: (0, 0), changed: (0, 0) };
        files.iter().map(|(name, len)| ((*name).to_owned(), signature(*len))).collect()
    }

    #[test]
    fn two_looks_must_agree() {
        let mut looker = Looker::default();
        assert_eq!(looker.first(listing(&[("a", 1), ("b", 1)])), ["a", "b"]);
        for (what, files, changed, gone, unsettled) in [
            ("quiet", vec![("a", 1), ("b", 1)], vec![], vec![], false),
            ("truncated", vec![("a", 0), ("b", 1)], vec![], vec![], true),
            ("written", vec![("a", 2), ("b", 1)], vec![], vec![], true),
            ("settled", vec![("a", 2), ("b", 1)], vec!["a"], vec![], false),
            ("renamed away", vec![("b", 1)], vec![], vec![], true),
            ("and back", vec![("a", 2), ("b", 1)], vec![], vec![], false),
            ("a new one", vec![("a", 2), ("b", 1), ("c", 1)], vec![], vec![], true),
            ("settled", vec![("a", 2), ("b", 1), ("c", 1)], vec!["c"], vec![], false),
            ("gone", vec![("a", 2), ("c", 1)], vec![], vec![], true),
            ("gone indeed", vec![("a", 2), ("c", 1)], vec![], vec!["b"], false),
            ("once", vec![("a", 2), ("c", 1)], vec![], vec![], false),
        ] {
            let seen = looker.look(listing(&files));
            let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(seen, Seen { changed: owned(changed), gone: owned(gone), unsettled }, "{what}");
        }
        looker.retry("a");
        assert_eq!(looker.look(listing(&[("a", 2), ("c", 1)])).changed, ["a"]);
    }
}
