//! Whether anything has changed that a flow depends on: see `lbr_common::epoch`.
//!
//! The agent writes cells first, and `state.epoch` last. A program reads `state.epoch` first, so a flow that it compares with
//! the cells has no change before it that is not in them.

use lbr_common::epoch::{ANY_LINK, Cell, NEAR, Place, is_before};
use lbr_common::flow::Flow;
use lbr_common::tuple::Tuple;

use crate::maps::{FAR_EPOCHS, NEAR_EPOCHS};

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
    let Some(near) = NEAR_EPOCHS.get_ptr(0) else { return true };
    let is_new = |cell: usize| {
        // SAFETY: the index is within the array, which is valid for the run of the program. Volatile, since the agent writes
        // it meanwhile.
        let changed = unsafe { (&raw const (*near).cells).cast::<u32>().add(cell).read_volatile() };
        u32::from(is_before(flow.epoch, changed))
    };
    let [src, dst, service] = flow.near.map(|cell| is_new(usize::from(cell) % NEAR));
    let (places, links) = (src | dst << 1 | service << 2, is_new(ANY_LINK.into()));
    if places | links == 0 {
        return false;
    }
    // What shares its near cell with something that has changed seldom shares the far one too.
    (places != 0 && places & conntrack_changed(packed(flow.places(key)), flow.epoch) != 0)
        || (links != 0 && conntrack_changed(packed(flow.links()), flow.epoch) != 0)
}

/// The far cells of three places as one number.
#[inline(always)]
fn packed(places: [Place; 3]) -> u64 {
    let [a, b, c] = places.map(|place| u64::from(place.far().number()));
    a | b << CELL_BITS | c << (2 * CELL_BITS)
}

const CELL_BITS: u32 = 20;

/// In which of three far cells something has changed after an epoch: a bit for each. A global function (see `step.rs`),
/// since it is called at several places, and gets numbers only.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn conntrack_changed(cells: u64, checked: u32) -> u32 {
    let is_new = |n: u32| {
        let cell = Cell::of((cells >> (n * CELL_BITS)) as u32 & ((1 << CELL_BITS) - 1));
        u32::from(is_before(checked, changed_at(cell, checked)))
    };
    is_new(0) | is_new(1) << 1 | is_new(2) << 2
}

/// The epoch of the last change in a far cell.
#[inline(always)]
fn changed_at(cell: Cell, checked: u32) -> u32 {
    // No such block: the flow looks again.
    let missing = checked.wrapping_add(1);
    // SAFETY: valid for the run of the program. Volatile, since the agent writes it meanwhile.
    FAR_EPOCHS.get_ptr(cell.block()).map_or(missing, |block| unsafe {
        (&raw const (*block).cells).cast::<u32>().add(cell.slot()).read_volatile()
    })
}
