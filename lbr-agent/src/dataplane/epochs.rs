//! The maps `near_epochs` and `far_epochs`: which flows have to look again.

use std::collections::BTreeSet;

use anyhow::Context as _;
use aya::maps::{Array, MapData, MapError};
use lbr_common::epoch::{BLOCKS, Cell, EpochBlock, FULL_TURN, NearEpochs, Place};
use lbr_common::maps::{self, MapSpec};

use super::WriteError;
use super::handles::open;
use super::pins::Pins;

/// The flows that a change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    all: bool,
    places: BTreeSet<Place>,
}

impl Concerned {
    /// Every flow.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, places: BTreeSet::new() }
    }

    /// Adds these.
    pub fn merge(&mut self, others: &Self) {
        self.all |= others.all;
        self.places.extend(&others.places);
    }

    /// Whether it is none.
    pub fn is_none(&self) -> bool {
        !self.all && self.places.is_empty()
    }

    /// Whether it is all flows that depend on this.
    pub fn has(&self, place: Place) -> bool {
        self.all || self.places.contains(&place)
    }

    /// Whether the next change has to raise every cell.
    pub(super) fn is_all_at(&self, epoch: u32) -> bool {
        self.all || epoch.is_multiple_of(FULL_TURN)
    }
}

impl Extend<Place> for Concerned {
    fn extend<T: IntoIterator<Item = Place>>(&mut self, places: T) {
        self.places.extend(places);
    }
}

impl FromIterator<Place> for Concerned {
    fn from_iter<T: IntoIterator<Item = Place>>(places: T) -> Self {
        Self { all: false, places: places.into_iter().collect() }
    }
}

/// The maps.
pub(super) struct Epochs {
    near: Array<MapData, NearEpochs>,
    far: Array<MapData, EpochBlock>,
}

impl Epochs {
    pub(super) fn open(pins: &Pins) -> anyhow::Result<Self> {
        let near = Array::try_from(open(pins, &maps::NEAR_EPOCHS)?);
        let far = Array::try_from(open(pins, &maps::FAR_EPOCHS)?);
        Ok(Self {
            near: near.with_context(|| format!("map {}", maps::NEAR_EPOCHS.name))?,
            far: far.with_context(|| format!("map {}", maps::FAR_EPOCHS.name))?,
        })
    }

    /// Notes the change with this number in the cells that it concerns. The others keep their values.
    pub(super) fn raise(&mut self, flows: &Concerned, epoch: u32) -> Result<(), WriteError> {
        let all = flows.is_all_at(epoch);
        self.raise_far(flows, epoch, all).map_err(|error| failed(&maps::FAR_EPOCHS, error))?;
        self.raise_near(flows, epoch, all).map_err(|error| failed(&maps::NEAR_EPOCHS, error))
    }

    fn raise_near(&mut self, flows: &Concerned, epoch: u32, all: bool) -> Result<(), MapError> {
        if all {
            return self.near.set(0, NearEpochs { cells: [epoch; _] }, 0);
        }
        let mut near = self.near.get(&0, 0)?;
        for place in &flows.places {
            near.cells[usize::from(place.near())] = epoch;
        }
        self.near.set(0, near, 0)
    }

    fn raise_far(&mut self, flows: &Concerned, epoch: u32, all: bool) -> Result<(), MapError> {
        if all {
            let block = EpochBlock { cells: [epoch; _] };
            return (0..BLOCKS).try_for_each(|number| self.far.set(number, block, 0));
        }
        let cells: BTreeSet<Cell> = flows.places.iter().map(|place| place.far()).collect();
        let mut cells = cells.into_iter().peekable();
        while let Some(first) = cells.next() {
            let mut block = self.far.get(&first.block(), 0)?;
            block.cells[first.slot()] = epoch;
            while let Some(cell) = cells.next_if(|cell| cell.block() == first.block()) {
                block.cells[cell.slot()] = epoch;
            }
            self.far.set(first.block(), block, 0)?;
        }
        Ok(())
    }
}

fn failed(map: &MapSpec, error: MapError) -> WriteError {
    WriteError::Io { map: map.name, source: std::io::Error::other(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_raised_now_and_then() {
        let one: Concerned = [Place::link(7)].into_iter().collect();
        assert_eq!([1, FULL_TURN - 1, FULL_TURN, 0].map(|n| one.is_all_at(n)), [false, false, true, true]);
        assert!(Concerned::all().is_all_at(1));
    }
}
