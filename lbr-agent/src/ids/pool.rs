//! Numbers by content: the same content keeps its number, and a number that is given up is not soon used again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeBounds;

use crate::table::{compact, compact_set};

/// After a restart, counting goes on this far above the highest number found: flows of services and backends that were
/// removed just before may still carry numbers that no map shows.
pub(super) const RESTART_GAP: u32 = 1 << 16;

/// A kind of numbers.
pub(super) trait Id: Copy + Ord + From<u32> + Into<u32> {}

impl<T: Copy + Ord + From<u32> + Into<u32>> Id for T {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Adopted at start, not asked for yet.
    Waiting,
    /// Asked for since the last [`Pool::forget_unused`].
    Now,
    /// Asked for before the last [`Pool::forget_unused`].
    Before,
    /// Not needed any more; given up by [`Pool::release_left`], unless it is asked for until then.
    Left,
}

/// Numbers of the kind `I` from `first` on, and never `u32::MAX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool<K, I> {
    ids: BTreeMap<K, (I, Use)>,
    /// Numbers that may not be given to a new key.
    pub(super) taken: BTreeSet<I>,
    /// Numbers asked for since the last `forget_unused`: each may have one key only.
    asked: BTreeSet<I>,
    /// Keys that were left.
    left: Vec<K>,
    /// The number given out last.
    pub(super) last: u32,
    /// The first number of this pool; those below have another meaning.
    first: u32,
}

// The derived one would ask for a default key.
impl<K, I: Id> Default for Pool<K, I> {
    fn default() -> Self {
        Self::starting_at(1.into())
    }
}

impl<K, I: Id> Pool<K, I> {
    pub(super) fn starting_at(first: I) -> Self {
        let first = first.into();
        let last = first.wrapping_sub(1);
        let (ids, taken, asked, left) = Default::default();
        Self { ids, taken, asked, left, last, first }
    }

    fn is_number(&self, id: I) -> bool {
        let id = id.into();
        id >= self.first && id != u32::MAX
    }
}

impl<K: Ord, I: Id> Pool<K, I> {
    pub(super) fn get(&mut self, key: K) -> I {
        if let Some((id, used)) = self.ids.get_mut(&key)
            && (matches!(used, Use::Now | Use::Left) || self.asked.insert(*id))
        {
            *used = Use::Now;
            return *id;
        }
        let id = self.next();
        self.asked.insert(id);
        self.ids.insert(key, (id, Use::Now));
        id
    }

    fn next(&mut self) -> I {
        loop {
            self.last = self.last.wrapping_add(1);
            let id = self.last.into();
            if self.is_number(id) && self.taken.insert(id) {
                return id;
            }
        }
    }

    pub(super) fn forget_unused(&mut self) {
        let Self { ids, taken, asked, left, .. } = self;
        left.clear();
        ids.retain(|_, (id, used)| match used {
            Use::Now => {
                *used = Use::Before;
                true
            }
            // Another key may have claimed the number meanwhile.
            Use::Waiting => !asked.contains(id),
            Use::Before | Use::Left => {
                taken.remove(id);
                false
            }
        });
        asked.clear();
    }

    /// The number of a key is not needed, as far as known.
    pub(super) fn leave(&mut self, key: K) {
        if let Some((id, used)) = self.ids.get_mut(&key)
            && *used != Use::Waiting
        {
            *used = Use::Left;
            self.asked.insert(*id);
            self.left.push(key);
        }
    }

    /// Gives up the numbers that were left and not asked for since.
    pub(super) fn release_left(&mut self) {
        for key in std::mem::take(&mut self.left) {
            if self.ids.get(&key).is_some_and(|(_, used)| *used == Use::Left) {
                self.release(&key);
            }
        }
    }

    /// Gives up the number of a key, if it was asked for.
    pub(super) fn release(&mut self, key: &K) {
        let Some(&(id, used)) = self.ids.get(key) else { return };
        if used != Use::Waiting {
            self.ids.remove(key);
            self.taken.remove(&id);
            self.asked.remove(&id);
        }
    }

    /// Gives up the numbers of keys in a range that were asked for, but for those to keep. Returns them.
    pub(super) fn release_range(&mut self, range: impl RangeBounds<K>, keep: impl Fn(I) -> bool) -> Vec<I>
    where
        K: Clone,
    {
        let asked = self.ids.range(range).filter(|(_, (id, used))| *used != Use::Waiting && !keep(*id));
        let gone: Vec<(K, I)> = asked.map(|(key, (id, _))| (key.clone(), *id)).collect();
        for (key, _) in &gone {
            self.release(key);
        }
        gone.into_iter().map(|(_, id)| id).collect()
    }

    /// Keeps the same in less memory, after many keys came at once.
    pub(super) fn compact(&mut self) {
        compact(&mut self.ids);
        compact_set(&mut self.taken);
        compact_set(&mut self.asked);
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.ids.keys()
    }

    /// Restores one number. The first key wins if a key has several.
    pub(super) fn adopt(&mut self, key: K, id: I) {
        if self.is_number(id) {
            self.ids.entry(key).or_insert((id, Use::Waiting));
        }
    }

    pub(super) fn avoid(&mut self, ids: impl Iterator<Item = I>) {
        for id in ids {
            if self.is_number(id) {
                self.taken.insert(id);
            }
        }
    }

    pub(super) fn skip_ahead(&mut self) {
        if let Some(&highest) = self.taken.last() {
            self.last = highest.into().wrapping_add(RESTART_GAP);
        }
    }
}

/// A [`Pool`] whose keys are too large for a map: the map has a hash of each instead, by which a new agent finds the
/// number again. A running agent compares the keys themselves, so that an attacker who makes two hashes equal cannot
/// merge two keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HashedPool<K, I> {
    pub(super) pool: Pool<K, I>,
    /// Adopted at start, not asked for yet.
    waiting: BTreeMap<u64, I>,
}

impl<K: Ord, I: Id> HashedPool<K, I> {
    pub(super) fn starting_at(first: I) -> Self {
        Self { pool: Pool::starting_at(first), waiting: BTreeMap::new() }
    }

    pub(super) fn get(&mut self, key: K, hash: u64) -> I {
        if let Some(id) = self.waiting.remove(&hash)
            && !self.pool.ids.contains_key(&key)
        {
            self.pool.ids.insert(key, (id, Use::Now));
            self.pool.asked.insert(id);
            return id;
        }
        self.pool.get(key)
    }

    /// Restores one number. The first one wins if several have this hash.
    pub(super) fn adopt(&mut self, hash: u64, id: I) {
        if self.pool.is_number(id) {
            self.waiting.entry(hash).or_insert(id);
        }
    }
}
