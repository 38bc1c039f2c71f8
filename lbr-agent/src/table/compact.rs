//! Maps that were filled in the order of their keys.

use std::collections::{BTreeMap, BTreeSet};

/// Builds the map anew, with full nodes: keys that came in ascending order have left them half empty. Later entries split
/// nodes again, so this is worth its time after many came at once.
pub(crate) fn compact<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    *map = std::mem::take(map).into_iter().collect();
}

/// The same of a set.
pub(crate) fn compact_set<K: Ord>(set: &mut BTreeSet<K>) {
    *set = std::mem::take(set).into_iter().collect();
}
