//! The map `epochs`: which flows have to look again.

use std::collections::BTreeSet;

use anyhow::Context as _;
use aya::maps::{Array, MapData, MapError};
use lbr_common::epoch::{BLOCKS, Cell, EpochBlock, FULL_TURN};
use lbr_common::maps;

use super::WriteError;
use super::handles::open;
use super::pins::Pins;

/// The flows that a change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    all: bool,
    cells: BTreeSet<Cell>,
}

impl Concerned {
    /// Every flow.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, cells: BTreeSet::new() }
    }

    /// Adds these.
    pub fn merge(&mut self, others: &Self) {
        self.all |= others.all;
        self.cells.extend(&others.cells);
    }

    /// Whether it is none.
    pub fn is_none(&self) -> bool {
        !self.all && self.cells.is_empty()
    }

    /// Whether it is all flows that depend on this.
    pub fn has(&self, cell: Cell) -> bool {
        self.all || self.cells.contains(&cell)
    }

    /// Whether the next change has to raise every cell.
    pub(super) fn is_all_at(&self, epoch: u32) -> bool {
        self.all || epoch.is_multiple_of(FULL_TURN)
    }
}

impl Extend<Cell> for Concerned {
    fn extend<T: IntoIterator<Item = Cell>>(&mut self, cells: T) {
        self.cells.extend(cells);
    }
}

impl FromIterator<Cell> for Concerned {
    fn from_iter<T: IntoIterator<Item = Cell>>(cells: T) -> Self {
        Self { all: false, cells: cells.into_iter().collect() }
    }
}

/// The map.
pub(super) struct Epochs {
    map: Array<MapData, EpochBlock>,
}

impl Epochs {
    pub(super) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let map = open(pins, &maps::EPOCHS)?;
        Ok(Self { map: Array::try_from(map).with_context(|| format!("map {}", maps::EPOCHS.name))? })
    }

    /// Notes the change with this number in the cells that it concerns. The other cells of a block keep their values.
    pub(super) fn raise(&mut self, flows: &Concerned, epoch: u32) -> Result<(), WriteError> {
        if flows.is_all_at(epoch) {
            let block = EpochBlock { cells: [epoch; _] };
            return (0..BLOCKS).try_for_each(|number| self.map.set(number, block, 0)).map_err(failed);
        }
        let of_links = flows.cells.iter().any(|cell| cell.is_of_link()).then_some(Cell::ANY_LINK);
        let all: BTreeSet<Cell> = flows.cells.iter().copied().chain(of_links).collect();
        let mut cells = all.into_iter().peekable();
        while let Some(first) = cells.next() {
            let mut block = self.map.get(&first.block(), 0).map_err(failed)?;
            block.cells[first.slot()] = epoch;
            while let Some(cell) = cells.next_if(|cell| cell.block() == first.block()) {
                block.cells[cell.slot()] = epoch;
            }
            self.map.set(first.block(), block, 0).map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(error: MapError) -> WriteError {
    WriteError::Io { map: maps::EPOCHS.name, source: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_raised_now_and_then() {
        let one: Concerned = [Cell::link(7)].into_iter().collect();
        assert_eq!([1, FULL_TURN - 1, FULL_TURN, 0].map(|n| one.is_all_at(n)), [false, false, true, true]);
        assert!(Concerned::all().is_all_at(1));
    }
}
