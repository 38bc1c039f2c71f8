//! One round of writing: each step of `order.rs`, with what it asks for before it touches an entry.

mod clients;
mod links;
mod services;

use super::policy::Enforced;
use super::{Delta, Outcome, Problem, Reconciler, room};
use crate::dataplane::{Dataplane, Table};

pub(crate) struct Pass<'a> {
    r: &'a mut Reconciler,
    dataplane: &'a mut dyn Dataplane,
    allow_removals: bool,
    /// Entries without room.
    full: room::Full,
    /// The result of [`Self::write_policy`] in this round.
    enforced: Option<Enforced>,
    pub(crate) outcome: Outcome,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(r: &'a mut Reconciler, allow_removals: bool, dataplane: &'a mut dyn Dataplane) -> Self {
        let mut outcome = Outcome::default();
        let full = room::full(r, dataplane, &mut outcome.problems);
        Self { r, dataplane, allow_removals, full, enforced: None, outcome }
    }

    /// Whether entries of this service may be touched in this round.
    fn open(&self, service: u32, is_new_entry: bool) -> bool {
        let frozen = !self.allow_removals && self.r.inherited.services.contains(&service);
        let lacks_room = is_new_entry && self.full.services.contains(&service);
        !frozen && !lacks_room
    }

    /// Not before the sources have listed everything: with half of the cluster's objects, a policy means something else.
    pub(crate) fn write_policy(&mut self) {
        if self.allow_removals {
            self.enforced = self.r.maps.enforce(&mut *self.dataplane, &mut self.outcome);
        }
    }

    /// If [`Self::write_policy`] brought other policies into force.
    pub(crate) fn raise_epoch_of_policy(&mut self) {
        if self.enforced.as_ref().is_some_and(|enforced| enforced.changed) {
            self.r.epoch_due = true;
            self.raise_epoch();
        }
    }

    /// Removes entries of former policies, which no packet looks up any more.
    pub(crate) fn clean_policy(&mut self) {
        if let Some(enforced) = &self.enforced {
            self.r.maps.clean(self.dataplane.tables(), enforced, &mut self.outcome);
        }
    }

    pub(crate) fn write_rejected(&mut self) {
        let table = self.dataplane.tables().rejected;
        write(&mut self.r.maps.rejected, table, |_, _| true, number, &mut self.outcome);
    }

    pub(crate) fn remove_rejected(&mut self) {
        remove(
            &mut self.r.maps.rejected,
            self.dataplane.tables().rejected,
            |_| true,
            number,
            &mut self.outcome,
        );
    }

    /// Before the entries that they announce are written, and in the round after those were removed.
    pub(crate) fn write_hints(&mut self) {
        let hints = self.r.hints();
        if self.r.hints == Some(hints) {
            return;
        }
        self.r.hints = None;
        match self.dataplane.set_hints(hints) {
            Ok(()) => self.r.hints = Some(hints),
            Err(error) => {
                let problem = Problem { map: lbr_common::maps::STATE.name, key: "hints".to_owned(), error };
                self.outcome.problems.push(problem);
            }
        }
    }

    /// A failure holds nothing up: it is not pending, and is tried again in the next round.
    pub(crate) fn abort_sockets(&mut self) {
        if !self.r.sockets_due {
            return;
        }
        match self.dataplane.abort_sockets(self.r.maps.backends.actual()) {
            Ok(aborted) => {
                self.r.sockets_due = false;
                self.outcome.aborted_sockets = aborted;
            }
            Err(error) => self.outcome.abort_failed = Some(error),
        }
    }

    pub(crate) fn raise_epoch(&mut self) {
        if !self.r.epoch_due {
            return;
        }
        match self.dataplane.raise_epoch() {
            Ok(()) => self.r.epoch_due = false,
            Err(error) => {
                let problem = Problem { map: lbr_common::maps::STATE.name, key: "epoch".to_owned(), error };
                self.outcome.problems.push(problem);
            }
        }
    }
}

pub(crate) fn write<K: Copy + Ord, V: Copy + PartialEq>(
    delta: &mut Delta<K, V>,
    table: &mut dyn Table<K, V>,
    ready: impl Fn(&K, &V) -> bool,
    text: impl Fn(&K) -> String,
    outcome: &mut Outcome,
) {
    let due: Vec<_> = delta.writes().filter(|(key, value)| ready(key, value)).collect();
    for (key, value) in due {
        match table.insert(&key, &value) {
            Ok(()) => {
                delta.wrote(&key);
                outcome.writes += 1;
            }
            Err(error) => {
                delta.failed(&key);
                outcome.problems.push(Problem { map: table.name(), key: text(&key), error });
            }
        }
    }
}

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
                outcome.problems.push(Problem { map: table.name(), key: text(&key), error });
            }
        }
    }
}

pub(crate) fn number(id: &u32) -> String {
    id.to_string()
}
