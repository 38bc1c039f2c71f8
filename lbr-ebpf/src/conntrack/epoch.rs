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
    let [a, b, c, d, e, f] = flow.cells(key).map(|cell| u64::from(cell.number()));
    conntrack_has_changed(a | b << 16 | c << 32, d | e << 16 | f << 32, flow.epoch) != 0
}

/// Whether something has changed in one of six cells, three in each number, after an epoch. A global function (see
/// `step.rs`), since it is called at several places, and gets numbers only.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn conntrack_has_changed(first: u64, second: u64, checked: u32) -> u32 {
    let is_new = |cells: u64| is_before(checked, changed_at(Cell::of(cells as u32 & 0xffff), checked));
    let [a, b] = [first, second].map(|cells| is_new(cells) | is_new(cells >> 16) | is_new(cells >> 32));
    u32::from(a | b)
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
