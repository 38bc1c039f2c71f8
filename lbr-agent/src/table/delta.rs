//! The content of one map, and how the desired content differs from it. Pure: the caller writes, and reports the result.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use super::compact;

/// A map's content and what is desired instead.
///
/// Only differences are kept beside the content, so a change costs what it changes, and a map that is as desired is in
/// memory once. The content changes only after a successful write, so a retry applies the difference again.
#[derive(Clone, Debug)]
pub struct Delta<K, V> {
    actual: BTreeMap<K, V>,
    /// Keys whose desired value (`None`: no entry) differs from the actual one, or whose actual one is doubtful.
    wanted: BTreeMap<K, Option<V>>,
    /// Keys whose last write or removal failed. Part of it may have been done (a link that was entered but not
    /// attached), so they are written or removed once more, whatever is desired by then.
    doubtful: BTreeSet<K>,
}

// The derived one would ask for default keys and values.
impl<K, V> Default for Delta<K, V> {
    fn default() -> Self {
        Self { actual: BTreeMap::new(), wanted: BTreeMap::new(), doubtful: BTreeSet::new() }
    }
}

impl<K: Copy + Ord, V: Copy + PartialEq> Delta<K, V> {
    /// A map with this content. All of it is to be removed until something is desired.
    pub fn new(actual: BTreeMap<K, V>) -> Self {
        let wanted = actual.keys().map(|key| (*key, None)).collect();
        Self { actual, wanted, doubtful: BTreeSet::new() }
    }

    /// As [`Self::new`], for a map whose last writes may be incomplete: every desired entry is written once more.
    pub fn doubtful(actual: BTreeMap<K, V>) -> Self {
        let doubtful = actual.keys().copied().collect();
        Self { doubtful, ..Self::new(actual) }
    }

    /// Sets what the map should hold under this key from now on; `None`: nothing.
    pub fn set(&mut self, key: K, value: Option<V>) {
        if self.actual.get(&key) == value.as_ref() && !self.doubtful.contains(&key) {
            self.wanted.remove(&key);
        } else {
            self.wanted.insert(key, value);
        }
    }

    /// Sets what the map should hold from now on, in all.
    pub fn set_desired(&mut self, desired: BTreeMap<K, V>) {
        let Self { actual, wanted, doubtful } = self;
        wanted.clear();
        // Compares two sorted sequences side by side, without a look-up for each entry.
        let mut there = actual.iter().peekable();
        for (key, value) in desired {
            while let Some((gone, _)) = there.next_if(|(old, _)| **old < key) {
                wanted.insert(*gone, None);
            }
            let is_there = there.next_if(|(old, _)| **old == key).is_some_and(|(_, old)| *old == value);
            if !is_there || doubtful.contains(&key) {
                wanted.insert(key, Some(value));
            }
        }
        wanted.extend(there.map(|(gone, _)| (*gone, None)));
        for key in doubtful.iter() {
            wanted.entry(*key).or_insert(None);
        }
    }

    /// Sets what the map should hold in a range of keys from now on.
    pub fn replace(&mut self, range: impl RangeBounds<K> + Clone, rows: impl IntoIterator<Item = (K, V)>) {
        let mut gone: BTreeSet<K> = self.range(range).map(|(key, _)| key).collect();
        for (key, value) in rows {
            gone.remove(&key);
            self.set(key, Some(value));
        }
        for key in gone {
            self.set(key, None);
        }
    }

    /// The map's content, as far as known.
    pub fn actual(&self) -> &BTreeMap<K, V> {
        &self.actual
    }

    /// How many entries the map has, as far as known.
    pub(crate) fn len(&self) -> usize {
        self.actual.len()
    }

    /// What the map should hold under a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        match self.wanted.get(key) {
            Some(value) => value.as_ref(),
            None => self.actual.get(key),
        }
    }

    /// What the map should hold, in order of the keys.
    pub fn desired(&self) -> impl Iterator<Item = (K, V)> {
        self.range(..)
    }

    /// The same in a range of keys.
    pub fn range(&self, range: impl RangeBounds<K> + Clone) -> impl Iterator<Item = (K, V)> {
        let mut settled = self.actual.range(range.clone()).peekable();
        let mut wanted = self.wanted.range(range).peekable();
        std::iter::from_fn(move || {
            loop {
                let next = match (settled.peek(), wanted.peek()) {
                    (Some((there, _)), Some((key, _))) if there < key => {
                        settled.next().map(|(k, v)| (*k, Some(*v)))
                    }
                    (_, Some((key, _))) => {
                        settled.next_if(|(there, _)| there == key);
                        wanted.next().map(|(k, v)| (*k, *v))
                    }
                    (_, None) => settled.next().map(|(k, v)| (*k, Some(*v))),
                };
                if let (key, Some(value)) = next? {
                    return Some((key, value));
                }
            }
        })
    }

    /// How many entries the map should hold.
    pub(crate) fn desired_len(&self) -> usize {
        let less = self.removals().filter(|key| self.actual.contains_key(key));
        self.actual.len() + self.new_keys().count() - less.count()
    }

    /// Entries that have to be written.
    pub fn writes(&self) -> impl Iterator<Item = (K, V)> + Clone {
        self.wanted.iter().filter_map(|(key, value)| Some((*key, (*value)?)))
    }

    /// Keys of entries that are desired and not there.
    pub(crate) fn new_keys(&self) -> impl Iterator<Item = K> {
        self.writes().map(|(key, _)| key).filter(|key| !self.actual.contains_key(key))
    }

    /// Whether this entry has to be written.
    pub fn must_write(&self, key: &K) -> bool {
        self.wanted.get(key).is_some_and(Option::is_some)
    }

    /// Entries that have to be removed.
    pub fn removals(&self) -> impl Iterator<Item = K> {
        self.wanted.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| *key)
    }

    /// Records that the desired value of this entry was written.
    pub fn wrote(&mut self, key: &K) {
        if let Some(Some(value)) = self.wanted.remove(key) {
            self.actual.insert(*key, value);
        }
        self.doubtful.remove(key);
    }

    /// Keeps the same in less memory, after many entries came at once.
    pub(crate) fn compact(&mut self) {
        compact(&mut self.actual);
    }

    /// Records that this entry could not be written or removed.
    pub fn failed(&mut self, key: &K) {
        self.doubtful.insert(*key);
    }

    /// Records that this entry was removed.
    pub fn removed(&mut self, key: &K) {
        self.actual.remove(key);
        self.wanted.remove(key);
        self.doubtful.remove(key);
    }

    /// How many entries differ.
    pub fn pending(&self) -> usize {
        self.wanted.len()
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
        assert_eq!(*d.actual(), d.desired().collect());
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

    #[test]
    fn single_keys_and_ranges_are_as_the_whole() {
        let mut d = Delta::new(map(&[(1, 'a'), (2, 'b'), (5, 'e'), (6, 'f')]));
        d.set_desired(map(&[(1, 'a'), (2, 'b'), (5, 'e'), (6, 'f')]));
        assert_eq!(d.pending(), 0);
        d.replace(2..6, [(3, 'c'), (5, 'x')]);
        assert_eq!(d.desired().collect::<Vec<_>>(), [(1, 'a'), (3, 'c'), (5, 'x'), (6, 'f')]);
        assert_eq!(d.range(2..=5).collect::<Vec<_>>(), [(3, 'c'), (5, 'x')]);
        assert_eq!((d.writes().count(), d.removals().collect::<Vec<_>>(), d.desired_len()), (2, vec![2], 4));
        assert_eq!((d.get(&2), d.get(&5), d.get(&6)), (None, Some(&'x'), Some(&'f')));
        d.set(5, Some('e'));
        d.set(3, None);
        assert_eq!(d.removals().collect::<Vec<_>>(), [2]);
        d.set(2, Some('b'));
        assert_eq!(d.pending(), 0);
    }
}
