//! Writes the difference of one map, and records what was written.

use std::fmt::Display;

use super::{Delta, Outcome, Problem};
use crate::dataplane::Table;

/// Writes many entries with less effort than one by one. Returns how many of the first ones it wrote.
pub(crate) fn insert_many<K, V>(table: &mut dyn Table<K, V>, entries: &[(K, V)]) -> usize {
    /// For fewer it does not pay.
    const MANY: usize = 64;
    if entries.len() < MANY { 0 } else { table.insert_many(entries) }
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
    let many = due.len();
    let at_once = insert_many(table, &due);
    for (nth, (key, value)) in due.into_iter().enumerate() {
        match if nth < at_once { Ok(()) } else { table.insert(&key, &value) } {
            Ok(()) => {
                delta.wrote(&key);
                outcome.writes += 1;
            }
            Err(error) => {
                delta.failed(&key);
                outcome.problems.push(Problem::new(table.name(), text(&key), error));
            }
        }
    }
    if many > delta.len() / 2 {
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
