//! One round of writing, as the parts share it.

use lbr_common::maps;

use super::{Outcome, Problem};
use crate::dataplane::{Concerned, Dataplane};

/// What follows from changes that are in force, until it is done.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    /// The flows that have to look again: their backend or link was removed or changed, or other policies are in force.
    pub(crate) flows: Concerned,
    /// A backend for UDP was removed, and the sockets that are connected to it have not been aborted yet.
    pub(crate) sockets: bool,
}

/// One round: where to write, what may be written, and the result.
pub(crate) struct Pass<'a> {
    pub(crate) dataplane: &'a mut dyn Dataplane,
    /// The sources have listed everything. Until then no part removes what a former agent left in force.
    pub(crate) allow_removals: bool,
    pub(crate) due: &'a mut Due,
    pub(crate) outcome: Outcome,
}

impl Pass<'_> {
    pub(crate) fn raise_epoch(&mut self) {
        if self.due.flows.is_none() {
            return;
        }
        match self.dataplane.raise_epoch(&self.due.flows) {
            Ok(()) => self.due.flows = Concerned::default(),
            Err(error) => {
                self.outcome.problems.push(Problem::new(maps::STATE.name, "epoch".to_owned(), error));
            }
        }
    }
}
