//! The desired content of one map, its actual content, and the difference. Pure: the caller writes, and reports the
//! result.

use std::collections::{BTreeMap, BTreeSet};

/// Desired and actual content of a map.
///
/// "Actual" changes only after a successful write, so a retry applies the difference again.
#[derive(Clone, Debug)]
pub struct Delta<K, V> {
    desired: BTreeMap<K, V>,
    actual: BTreeMap<K, V>,
    /// Desired keys whose actual value differs, is absent or doubtful.
    writes: BTreeSet<K>,
    /// Keys that are not desired but (perhaps) present.
    removals: BTreeSet<K>,
    /// Keys whose last write or removal failed. Part of it may have been done (a link that was entered but not
    /// attached), so they are written or removed once more, whatever is desired by then.
    doubtful: BTreeSet<K>,
}

impl<K: Copy + Ord, V: Copy + PartialEq> Delta<K, V> {
    /// A map with this content. All of it is to be removed until something is desired.
    pub fn new(actual: BTreeMap<K, V>) -> Self {
        let mut delta = Self {
            desired: BTreeMap::new(),
            actual,
            writes: BTreeSet::new(),
            removals: BTreeSet::new(),
            doubtful: BTreeSet::new(),
        };
        delta.compare();
        delta
    }

    /// As [`Self::new`], for a map whose last writes may be incomplete: every desired entry is written once more.
    pub fn doubtful(actual: BTreeMap<K, V>) -> Self {
        let doubtful = actual.keys().copied().collect();
        Self { doubtful, ..Self::new(actual) }
    }

    /// Sets what the map should hold from now on.
    pub fn set_desired(&mut self, desired: BTreeMap<K, V>) {
        self.desired = desired;
        self.compare();
    }

    fn compare(&mut self) {
        let Self { desired, actual, writes, removals, doubtful } = self;
        writes.clear();
        removals.clear();
        // Compares two sorted sequences side by side, without a look-up for each entry.
        let mut there = actual.iter().peekable();
        for (key, value) in &*desired {
            while let Some((old, _)) = there.next_if(|(old, _)| *old < key) {
                removals.insert(*old);
            }
            let is_there = there.next_if(|(old, _)| *old == key).is_some_and(|(_, old)| old == value);
            if !is_there || doubtful.contains(key) {
                writes.insert(*key);
            }
        }
        removals.extend(there.map(|(key, _)| *key));
        removals.extend(doubtful.iter().filter(|key| !desired.contains_key(key)));
    }

    /// The map's content, as far as known.
    pub fn actual(&self) -> &BTreeMap<K, V> {
        &self.actual
    }

    /// How many entries the map has, as far as known.
    pub(crate) fn len(&self) -> usize {
        self.actual.len()
    }

    /// The map's desired content.
    pub fn desired(&self) -> &BTreeMap<K, V> {
        &self.desired
    }

    /// Entries that have to be written.
    pub fn writes(&self) -> impl Iterator<Item = (K, V)> {
        self.writes.iter().filter_map(|k| self.desired.get(k).map(|v| (*k, *v)))
    }

    /// Whether this entry has to be written.
    pub fn must_write(&self, key: &K) -> bool {
        self.writes.contains(key)
    }

    /// Entries that have to be removed.
    pub fn removals(&self) -> impl Iterator<Item = K> {
        self.removals.iter().copied()
    }

    /// Records that the desired value of this entry was written.
    pub fn wrote(&mut self, key: &K) {
        if let Some(value) = self.desired.get(key) {
            self.actual.insert(*key, *value);
        }
        self.writes.remove(key);
        self.doubtful.remove(key);
    }

    /// Records that this entry could not be written or removed.
    pub fn failed(&mut self, key: &K) {
        self.doubtful.insert(*key);
    }

    /// Records that this entry was removed.
    pub fn removed(&mut self, key: &K) {
        self.actual.remove(key);
        self.removals.remove(key);
        self.doubtful.remove(key);
    }

    /// How many entries differ.
    pub fn pending(&self) -> usize {
        self.writes.len() + self.removals.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(u32, char)]) -> BTreeMap<u32, char> {
        entries.iter().copied().collect()
    }

    #[test]
    fn difference_shrinks_only_by_success() {
        let mut d = Delta::new(map(&[(1, 'a'), (2, 'b'), (3, 'c')]));
        d.set_desired(map(&[(1, 'a'), (2, 'x'), (4, 'd')]));
        assert_eq!(d.writes().collect::<Vec<_>>(), [(2, 'x'), (4, 'd')]);
        assert_eq!(d.removals().collect::<Vec<_>>(), [3]);
        assert_eq!(d.pending(), 3);

        d.wrote(&2);
        d.failed(&4);
        d.removed(&3);
        assert_eq!(d.writes().collect::<Vec<_>>(), [(4, 'd')]);
        assert_eq!(*d.actual(), map(&[(1, 'a'), (2, 'x')]));
        d.wrote(&4);
        assert_eq!(d.pending(), 0);
        assert_eq!(d.actual(), d.desired());
    }

    #[test]
    fn nothing_is_pending_when_the_old_value_is_wanted_again() {
        let mut d = Delta::new(map(&[(1, 'a')]));
        d.set_desired(map(&[(1, 'b')]));
        assert_eq!(d.pending(), 1);
        d.set_desired(map(&[(1, 'a')]));
        assert_eq!(d.pending(), 0);
    }

    #[test]
    fn a_failed_write_is_removed_when_it_is_not_wanted_any_more() {
        let mut d = Delta::new(map(&[]));
        d.set_desired(map(&[(1, 'a')]));
        d.failed(&1);
        d.set_desired(map(&[]));
        assert_eq!(d.removals().collect::<Vec<_>>(), [1]);
        d.removed(&1);
        d.set_desired(map(&[]));
        assert_eq!(d.pending(), 0);
    }

    #[test]
    fn a_failed_removal_is_written_when_it_is_wanted_again() {
        let mut d = Delta::new(map(&[(1, 'a')]));
        d.failed(&1);
        d.set_desired(map(&[(1, 'a')]));
        assert_eq!(d.writes().collect::<Vec<_>>(), [(1, 'a')]);
    }

    #[test]
    fn what_is_doubtful_is_written_once_more() {
        let mut d = Delta::doubtful(map(&[(1, 'a'), (2, 'b')]));
        d.set_desired(map(&[(1, 'a')]));
        assert_eq!(d.writes().collect::<Vec<_>>(), [(1, 'a')]);
        assert_eq!(d.removals().collect::<Vec<_>>(), [2]);
        d.wrote(&1);
        d.set_desired(map(&[(1, 'a')]));
        assert_eq!(d.writes().count(), 0);
    }

    #[test]
    fn unwanted_content_is_removed() {
        let mut d = Delta::new(map(&[(1, 'a')]));
        assert_eq!(d.pending(), 1);
        d.set_desired(map(&[]));
        assert_eq!(d.removals().collect::<Vec<_>>(), [1]);
    }
}
