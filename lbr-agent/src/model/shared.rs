//! Texts that many objects have, each in memory once: names of nodes and zones.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Texts in use, and some that were.
static TEXTS: Mutex<Texts> = Mutex::new(Texts { all: BTreeSet::new(), next: FIRST });

/// How many there are when it first looks for those that nothing has any more.
const FIRST: usize = 1_024;

struct Texts {
    all: BTreeSet<Arc<str>>,
    /// How many there are when it looks again.
    next: usize,
}

/// The text, shared with all others that are equal.
pub(super) fn shared(text: &str) -> Arc<str> {
    // The set stays valid if a thread panicked while it held the lock.
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = texts.all.get(text) {
        return Arc::clone(known);
    }
    if texts.all.len() >= texts.next {
        texts.all.retain(|text| Arc::strong_count(text) > 1);
        texts.next = FIRST.max(texts.all.len() * 2);
    }
    let new: Arc<str> = text.into();
    texts.all.insert(Arc::clone(&new));
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_are_one_and_unused_ones_go() {
        let kept = shared("kept");
        assert!(Arc::ptr_eq(&kept, &shared("kept")));
        for number in 0..FIRST * 3 {
            shared(&format!("unused-{number}"));
        }
        assert!(TEXTS.lock().unwrap().all.len() <= FIRST * 2 + 1);
        assert!(Arc::ptr_eq(&kept, &shared("kept")));
    }
}
