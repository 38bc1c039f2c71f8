//! Writes the maps of Services: each step, with what it asks for before it touches an entry. `order.rs` calls them.

mod clients;
mod concern;
mod frontends;
mod hints;
mod room;
mod text;

use std::collections::BTreeSet;

use lbr_common::id::ServiceId;
use lbr_common::maps;
use lbr_common::service::FrontendKey;

use crate::dataplane::{Dataplane, Hints, WriteError};
use crate::table::{Pass, Problem, ServiceMaps};

/// The maps of Services.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) maps: ServiceMaps,
    in_force: InForce,
    /// The hints that were written last.
    hints: Option<Hints>,
    /// The hints may say more than they must.
    hints_due: bool,
    inherited: Inherited,
}

/// The frontends in the map, by service: what a removal asks.
#[derive(Debug, Default)]
struct InForce(BTreeSet<(ServiceId, FrontendKey)>);

impl InForce {
    fn of(&self, service: ServiceId) -> impl Iterator<Item = &FrontendKey> {
        let all = self.0.range((service, FrontendKey::default())..);
        all.take_while(move |(id, _)| *id == service).map(|(_, key)| key)
    }
}

/// Entries that a former agent left in force. The agent does not touch them while the sources have not listed everything: a
/// Service whose slices are not all known yet would lose live endpoints.
#[derive(Debug)]
struct Inherited {
    frontends: BTreeSet<FrontendKey>,
    services: BTreeSet<ServiceId>,
}

impl Services {
    pub(crate) fn load(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
        let maps = ServiceMaps::load(dataplane.tables())?;
        let frontends = maps.frontends.actual();
        let inherited = Inherited {
            frontends: frontends.keys().copied().collect(),
            services: frontends.values().map(|f| f.service).filter(|id| id.is_some()).collect(),
        };
        let in_force = InForce(frontends.iter().map(|(key, frontend)| (frontend.service, *key)).collect());
        Ok(Self { maps, in_force, hints: None, hints_due: true, inherited })
    }

    /// Begins a round: finds out what has room.
    pub(super) fn steps<'a, 'p>(&'a mut self, pass: &'a mut Pass<'p>) -> Steps<'a, 'p> {
        let full = room::full(&self.maps, pass.dataplane, &mut pass.outcome.problems);
        let Self { maps, in_force, hints, hints_due, inherited } = self;
        Steps { maps, in_force, hints, hints_due, inherited, full, pass }
    }

    pub(crate) fn pending(&self) -> usize {
        self.maps.pending(0) + usize::from(self.hints.is_none())
    }
}

/// One round of writing.
pub(super) struct Steps<'a, 'p> {
    maps: &'a mut ServiceMaps,
    in_force: &'a mut InForce,
    hints: &'a mut Option<Hints>,
    hints_due: &'a mut bool,
    inherited: &'a Inherited,
    /// Entries without room.
    full: room::Full,
    pub(super) pass: &'a mut Pass<'p>,
}

impl Steps<'_, '_> {
    /// Whether entries of this service may be touched in this round.
    fn open(&self, service: ServiceId, is_new_entry: bool) -> bool {
        let frozen = !self.pass.allow_removals && self.inherited.services.contains(&service);
        let lacks_room = is_new_entry && self.full.services.contains(&service);
        !frozen && !lacks_room
    }

    /// Before the entries that they announce are written, and in the round after those were removed.
    pub(super) fn write_hints(&mut self) {
        let changes = hints::may_change(self.maps);
        // After a removal, the next round takes back what no entry needs any more.
        if !std::mem::replace(self.hints_due, changes) && !changes && self.hints.is_some() {
            return;
        }
        let hints = hints::of(self.maps);
        if *self.hints == Some(hints) {
            return;
        }
        *self.hints = None;
        match self.pass.dataplane.set_hints(hints) {
            Ok(()) => *self.hints = Some(hints),
            Err(error) => {
                let problem = Problem::new(maps::STATE.name, "hints".to_owned(), error);
                self.pass.outcome.problems.push(problem);
            }
        }
    }

    /// A failure holds nothing up: it is not pending, and is tried again in the next round.
    pub(super) fn abort_sockets(&mut self) {
        if !self.pass.due.sockets {
            return;
        }
        match self.pass.dataplane.abort_sockets(self.maps.backends.actual()) {
            Ok(aborted) => {
                self.pass.due.sockets = false;
                self.pass.outcome.aborted_sockets = aborted;
            }
            Err(error) => self.pass.outcome.abort_failed = Some(error),
        }
    }
}
