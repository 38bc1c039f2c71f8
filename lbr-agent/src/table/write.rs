//! Writes the difference of one map, and records what was written.

use std::fmt::Display;

use super::{Delta, Outcome, Problem};
use crate::dataplane::{Table, WriteError};

/// Adds or replaces entries in their order, as many as possible at once. The results come one by one, and what follows the
/// last one that is taken may or may not be written.
pub(crate) fn insert<'a, K, V>(
    table: &'a mut dyn Table<K, V>,
    entries: &'a [(K, V)],
) -> impl Iterator<Item = Result<(), WriteError>> + 'a {
    /// For fewer it does not pay.
    const MANY: usize = 64;
    let at_once = if entries.len() < MANY { 0 } else { table.insert_many(entries) };
    let entries = entries.iter().enumerate();
    entries.map(move |(nth, (key, value))| if nth < at_once { Ok(()) } else { table.insert(key, value) })
}

/// Writes what is due and `ready`. `text` names an entry for a person.
pub(crate) fn write<K: Copy + Ord, V: Copy + PartialEq>(
    delta: &mut Delta<K, V>,
    table: &mut dyn Table<K, V>,
    ready: impl Fn(&K, &V) -> bool,
    text: impl Fn(&K) -> String,
    outcome: &mut Outcome,
) {
    let due: Vec<_> = delta.writes().filter(|(key, value)| ready(key, value)).collect();
    let map = table.name();
    for ((key, _), result) in due.iter().zip(insert(table, &due)) {
        match result {
            Ok(()) => {
                delta.wrote(key);
                outcome.writes += 1;
            }
            Err(error) => {
                delta.failed(key);
                outcome.problems.push(Problem::new(map, text(key), error));
            }
        }
    }
    if due.len() > delta.len() / 2 {
        delta.compact();
    }
}

/// Removes what is due and `free`.
pub(crate) fn remove<K: Copy + Ord, V: Copy + PartialEq>(
    delta: &mut Delta<K, V>,
    table: &mut dyn Table<K, V>,
    free: impl Fn(&K) -> bool,
    text: impl Fn(&K) -> String,
    outcome: &mut Outcome,
) {
    let due: Vec<_> = delta.removals().filter(|key| free(key)).collect();
    for key in due {
        match table.remove(&key) {
            Ok(()) => {
                delta.removed(&key);
                outcome.removals += 1;
            }
            Err(error) => {
                delta.failed(&key);
                outcome.problems.push(Problem::new(table.name(), text(&key), error));
            }
        }
    }
}

/// The text of a key that is a number.
pub(crate) fn number<K: Display>(id: &K) -> String {
    id.to_string()
}
