//! A map whose values have versions: what it should hold, what it holds, and what has to be staged so that all of
//! the difference comes into force at once. Pure: the writing is done by others.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::policy::Versioned;

use super::stored::{Absent, in_force};

/// Desired and actual content of a map with versions.
#[derive(Clone, Debug)]
pub(crate) struct Staged<K, T> {
    desired: BTreeMap<K, T>,
    /// What is to be in force instead, where there is no room; `None`: nothing.
    instead: BTreeMap<K, Option<T>>,
    raw: BTreeMap<K, Versioned<T>>,
    /// All other keys are as they must be, so a change costs what it changes.
    due: Due<K>,
}

/// Keys that may not be as they must be.
#[derive(Clone, Debug)]
enum Due<K> {
    All,
    Keys(BTreeSet<K>),
}

/// What has to be written before the generation is raised.
#[derive(Debug)]
pub(crate) struct Plan<K, T> {
    /// Entries that are not as they must be.
    pub(crate) writes: Vec<(K, Versioned<T>)>,
    /// Keys under which the next generation differs from the present one, also by what is staged already.
    pub(crate) changes: Vec<K>,
}

// The derived one would ask for default keys and values.
impl<K, T> Default for Staged<K, T> {
    fn default() -> Self {
        Self::with(BTreeMap::new())
    }
}

impl<K, T> Staged<K, T> {
    fn with(raw: BTreeMap<K, Versioned<T>>) -> Self {
        Self { desired: BTreeMap::new(), instead: BTreeMap::new(), raw, due: Due::All }
    }
}

impl<K: Copy + Ord, T: Absent<K>> Staged<K, T> {
    /// A map with this content.
    pub(crate) fn new(raw: BTreeMap<K, Versioned<T>>) -> Self {
        Self::with(raw)
    }

    /// From the next generation on the map should hold this.
    pub(crate) fn set_desired(&mut self, desired: BTreeMap<K, T>) {
        if self.desired != desired {
            self.desired = desired;
            self.due = Due::All;
        }
    }

    /// From the next generation on the map should hold this under a key; `None`: nothing.
    ///
    /// What an absent key means must not depend on other keys: [`Self::set_desired`] is for such maps.
    pub(crate) fn set(&mut self, key: K, value: Option<T>) {
        match value {
            Some(value) => drop(self.desired.insert(key, value)),
            None => drop(self.desired.remove(&key)),
        }
        if let Due::Keys(keys) = &mut self.due {
            keys.insert(key);
        }
    }

    /// The keys that may not be as they must be: first those that are desired.
    fn due(&self) -> Vec<K> {
        let mut due = Vec::new();
        match &self.due {
            Due::All => {
                due.extend(self.desired.keys());
                due.extend(self.raw.keys().filter(|key| !self.desired.contains_key(key)));
            }
            Due::Keys(keys) => due.extend(keys),
        }
        due
    }

    /// Takes note of which keys are as they must be, at this generation.
    pub(crate) fn settle(&mut self, generation: u32) {
        let is_settled = |key: &K| {
            let raw = self.raw.get(key).map(|raw| raw.at(generation));
            raw.as_ref() == self.desired.get(key) && !self.instead.contains_key(key)
        };
        self.due = Due::Keys(self.due().into_iter().filter(|key| !is_settled(key)).collect());
    }

    /// Entries that are desired and not there.
    pub(crate) fn new_entries(&self) -> Vec<(K, T)> {
        let new = self.due().into_iter().filter(|key| !self.has(key));
        new.filter_map(|key| Some((key, *self.desired.get(&key)?))).collect()
    }

    /// What the map should hold.
    pub(crate) fn desired(&self) -> &BTreeMap<K, T> {
        &self.desired
    }

    /// What is to be in force instead of what is desired, as long as there is no room for that; `None`: nothing.
    pub(crate) fn set_instead(&mut self, instead: BTreeMap<K, Option<T>>) {
        if !(self.instead.is_empty() && instead.is_empty()) {
            self.instead = instead;
            self.due = Due::All;
        }
    }

    /// All is to stay as it is.
    pub(crate) fn keep(&mut self, generation: u32) {
        let known = self.raw.iter().map(|(key, raw)| (*key, Some(raw.at(generation))));
        let new = self.desired.keys().filter(|key| !self.raw.contains_key(key)).map(|key| (*key, None));
        self.instead = known.chain(new).collect();
        self.due = Due::All;
    }

    /// What is to be in force in the next generation.
    fn next(&self, key: &K) -> Option<T> {
        self.instead.get(key).copied().unwrap_or_else(|| self.desired.get(key).copied())
    }

    /// Whether the map has an entry for this key.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.raw.contains_key(key)
    }

    /// How many entries the map has.
    pub(crate) fn len(&self) -> usize {
        self.raw.len()
    }

    /// What is in force for a key.
    pub(crate) fn at(&self, key: &K, generation: u32) -> Option<T> {
        self.raw.get(key).map(|raw| raw.at(generation))
    }

    /// What to write so that the next generation is the desired one (or what is to be in its place) and the present
    /// one stays as it is.
    pub(crate) fn plan(&self, generation: u32) -> Plan<K, T> {
        let next = generation.wrapping_add(1);
        let before = |key: &K| self.at(key, generation);
        let after = |key: &K| self.next(key);
        let mut plan = Plan { writes: Vec::new(), changes: Vec::new() };
        let has_say = |key: &&K| self.raw.contains_key(key) || self.next(key).is_some();
        for key in self.due().iter().filter(has_say) {
            let old = before(key).unwrap_or_else(|| T::absent(key, &before));
            let new = after(key).unwrap_or_else(|| T::absent(key, &after));
            let is_there =
                self.raw.get(key).is_some_and(|raw| raw.at(generation) == old && raw.at(next) == new);
            if old != new {
                plan.changes.push(*key);
            }
            if !is_there {
                plan.writes.push((*key, Versioned { old, new, since: next }));
            }
        }
        plan
    }

    /// This entry was written.
    pub(crate) fn wrote(&mut self, key: K, raw: Versioned<T>) {
        self.raw.insert(key, raw);
    }

    /// Entries that say nothing any more, once the new generation is in force.
    pub(crate) fn leftovers(&self) -> Vec<K> {
        self.due().into_iter().filter(|key| self.raw.contains_key(key) && self.next(key).is_none()).collect()
    }

    /// This entry was removed.
    pub(crate) fn removed(&mut self, key: &K) {
        self.raw.remove(key);
    }

    /// How many entries are not yet in force, or not removed.
    pub(crate) fn pending(&self, generation: u32) -> usize {
        let is_settled = |key: &K| self.at(key, generation).as_ref() == self.desired.get(key);
        self.due().iter().filter(|key| !is_settled(key)).count()
    }

    /// What is in force. An entry that says no more than an absent one waits for its removal.
    pub(crate) fn actual(&self, generation: u32) -> BTreeMap<K, T> {
        in_force(self.raw.iter().map(|(key, raw)| (*key, *raw)), generation)
    }
}

#[cfg(test)]
mod tests {
    use lbr_common::id::ClassId;
    use lbr_common::policy::{Block, Prefix};

    use super::*;

    fn map<T: Copy>(entries: &[(u32, T)]) -> BTreeMap<u32, T> {
        entries.iter().copied().collect()
    }

    #[test]
    fn the_present_generation_stays_as_it_is_until_the_next_one_begins() {
        let settled = |value| Versioned { old: value, new: value, since: 3 };
        let mut staged: Staged<u32, u32> =
            Staged::new(map(&[(1, settled(10)), (2, settled(20)), (3, settled(30))]));
        staged.set_desired(map(&[(1, 10), (2, 21), (4, 40)]));
        let plan = staged.plan(7);
        assert_eq!(plan.changes, [2, 4, 3]);
        let change = |old, new| Versioned { old, new, since: 8 };
        assert_eq!(plan.writes, [(2, change(20, 21)), (4, change(0, 40)), (3, change(30, 0))]);
        for (key, raw) in plan.writes {
            staged.wrote(key, raw);
        }
        let seen = |generation| [1, 2, 3, 4].map(|key| staged.at(&key, generation).unwrap());
        assert_eq!(seen(7), [10, 20, 30, 0]);
        assert_eq!(seen(8), [10, 21, 0, 40]);
        assert_eq!(staged.leftovers(), [3]);
        let again = staged.plan(7);
        assert_eq!((again.changes, again.writes.len()), (vec![2, 4, 3], 0), "staged already");
        assert!(staged.plan(8).changes.is_empty());
    }

    #[test]
    fn what_was_staged_and_is_not_wanted_any_more_is_staged_back() {
        let mut staged = Staged::new(map(&[(1, Versioned { old: 10, new: 11, since: 8 })]));
        staged.set_desired(map(&[(1, 10)]));
        let plan = staged.plan(7);
        assert!(plan.changes.is_empty());
        assert_eq!(plan.writes, [(1, Versioned { old: 10, new: 10, since: 8 })]);
    }

    fn block(net: &str) -> Prefix<Block> {
        let net: ipnet::Ipv4Net = net.parse().unwrap();
        let addr = lbr_common::addr::Addr::v4(net.addr().octets());
        let len = Block::FAMILY_BITS + 96 + u32::from(net.prefix_len());
        Prefix { data: Block { family: 4, addr: addr.bytes }, len }
    }

    #[test]
    fn a_block_without_an_entry_has_the_class_of_the_next_larger_one() {
        let class = |id| ClassId { id };
        let of = |id| Versioned { old: class(id), new: class(id), since: 0 };
        let mut staged =
            Staged::new(BTreeMap::from([(block("10.0.0.0/8"), of(2)), (block("10.1.0.0/16"), of(3))]));
        staged
            .set_desired(BTreeMap::from([(block("10.0.0.0/8"), class(2)), (block("10.1.2.0/24"), class(4))]));
        let plan = staged.plan(0);
        let writes: Vec<_> = plan.writes.iter().map(|(key, raw)| (*key, raw.old.id, raw.new.id)).collect();
        assert_eq!(writes, [(block("10.1.2.0/24"), 3, 4), (block("10.1.0.0/16"), 3, 2)]);
    }
}
