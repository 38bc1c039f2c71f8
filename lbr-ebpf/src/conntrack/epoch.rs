//! Whether anything has changed that a flow depends on: see `lbr_common::epoch`.
//!
//! The agent writes cells first, and `state.epoch` last. A program reads `state.epoch` first, so a flow that it compares with
//! the cells has no change before it that is not in them.

use lbr_common::epoch::{Cell, is_before};
use lbr_common::flow::Flow;
use lbr_common::tuple::Tuple;

use crate::maps::EPOCHS;

/// Whether nothing has changed that the flow with this key depends on, since it was checked. Notes that, so that the next
/// packet looks at the cells again only if something has changed anywhere since.
#[inline(always)]
pub(super) fn is_current(key: &Tuple, flow: &mut Flow, epoch: u32) -> bool {
    if flow.epoch == epoch {
        return true;
    }
    if has_changed(key, flow) {
        return false;
    }
    flow.epoch = epoch;
    true
}

/// The same, and notes nothing.
#[inline(always)]
pub(super) fn is_stale(key: &Tuple, flow: &Flow, epoch: u32) -> bool {
    flow.epoch != epoch && has_changed(key, flow)
}

#[inline(always)]
fn has_changed(key: &Tuple, flow: &Flow) -> bool {
    let first = conntrack_changed(packed(flow.cells(key)), flow.epoch);
    if first == 0 {
        return false;
    }
    // What shares one cell with something that has changed seldom shares both.
    let both = first & conntrack_changed(packed(flow.cells_too(key)), flow.epoch);
    if both & ANY_LINK != both {
        return true;
    }
    first & ANY_LINK != 0 && conntrack_changed(packed(flow.link_cells()), flow.epoch) & !ANY_LINK != 0
}

/// Three cells as one number.
#[inline(always)]
fn packed(cells: [Cell; 3]) -> u64 {
    let [a, b, c] = cells.map(|cell| u64::from(cell.number()));
    a | b << CELL_BITS | c << (2 * CELL_BITS)
}

const CELL_BITS: u32 = 20;
/// Bit of [`Cell::ANY_LINK`] in the answer of [`conntrack_changed`].
const ANY_LINK: u32 = 8;

/// In which of three cells something has changed after an epoch: a bit for each, and [`ANY_LINK`] for any link. A global
/// function (see `step.rs`), since it is called at several places, and gets numbers only.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn conntrack_changed(cells: u64, checked: u32) -> u32 {
    let is_new = |cell: Cell| u32::from(is_before(checked, changed_at(cell, checked)));
    let at = |n: u32| is_new(Cell::of((cells >> (n * CELL_BITS)) as u32 & ((1 << CELL_BITS) - 1)));
    at(0) | at(1) << 1 | at(2) << 2 | (is_new(Cell::ANY_LINK) * ANY_LINK)
}

/// The epoch of the last change in a cell.
#[inline(always)]
fn changed_at(cell: Cell, checked: u32) -> u32 {
    // No such block: the flow looks again.
    let missing = checked.wrapping_add(1);
    // SAFETY: valid for the run of the program. Volatile, since the agent writes it meanwhile.
    EPOCHS.get_ptr(cell.block()).map_or(missing, |block| unsafe {
        (&raw const (*block).cells).cast::<u32>().add(cell.slot()).read_volatile()
    })
}
