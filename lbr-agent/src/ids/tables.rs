//! Maglev tables: their numbers, and their content as long as it is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lbr_common::id::{BackendId, MaglevId};
use lbr_common::maglev::MaglevPart;

use super::pool::Pool;
use crate::desired::Desired;

/// A table is numbered by its backends: other backends make another table, which is written where nothing leads yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tables {
    numbers: Pool<Vec<BackendId>, MaglevId>,
    /// Tables by number, and whether each was asked for since the last `forget_unused`. Filling a table takes a hundred
    /// times as long as all else that a Service needs.
    filled: BTreeMap<MaglevId, (Arc<[MaglevPart]>, bool)>,
}

impl Tables {
    /// The numbers that a former agent left in the maps.
    pub(super) fn restore(desired: &Desired) -> Self {
        let mut backends: BTreeMap<MaglevId, BTreeSet<BackendId>> = BTreeMap::new();
        for (key, part) in &desired.maglev {
            backends.entry(key.table).or_default().extend(part.backends());
        }
        let mut numbers = Pool::default();
        numbers.avoid(backends.keys().copied());
        numbers.avoid(desired.frontends.values().map(|frontend| frontend.maglev));
        for (number, backends) in backends {
            numbers.adopt(backends.into_iter().collect(), number);
        }
        numbers.skip_ahead();
        Self { numbers, filled: BTreeMap::new() }
    }

    /// The table of these backends, in order of their numbers.
    pub(super) fn get(
        &mut self,
        backends: Vec<BackendId>,
        fill: impl FnOnce() -> Vec<MaglevPart>,
    ) -> (MaglevId, Arc<[MaglevPart]>) {
        let number = self.numbers.get(backends);
        let (parts, used) = self.filled.entry(number).or_insert_with(|| (fill().into(), true));
        *used = true;
        (number, Arc::clone(parts))
    }

    pub(super) fn forget_unused(&mut self) {
        self.numbers.forget_unused();
        self.filled.retain(|_, (_, used)| std::mem::take(used));
    }
}
