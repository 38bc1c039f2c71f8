//! One round of writing: each step of `order.rs`, with what it asks for before it touches an entry.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::maglev::{self, MaglevKey};
use lbr_common::policy::Prefix;
use lbr_common::service::{
    Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange, frontend_flags, scope,
};

use super::policy::Enforced;
use super::text::{block_text, frontend_text, part_text, range_text, slot_text};
use super::{Delta, Outcome, Problem, Reconciler, room};
use crate::dataplane::{Dataplane, Table};

pub(super) struct Pass<'a> {
    r: &'a mut Reconciler,
    dataplane: &'a mut dyn Dataplane,
    allow_removals: bool,
    /// What there is no room for.
    full: room::Full,
    /// What became of the policies in this round.
    enforced: Option<Enforced>,
    pub(super) outcome: Outcome,
}

impl<'a> Pass<'a> {
    pub(super) fn new(r: &'a mut Reconciler, allow_removals: bool, dataplane: &'a mut dyn Dataplane) -> Self {
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

    pub(super) fn write_links(&mut self) {
        let links = &self.r.links;
        self.r.epoch_due |= links.writes().any(|(index, _)| links.actual().contains_key(&index));
        let table = self.dataplane.links();
        write(&mut self.r.links, table, |_, _| true, number, &mut self.outcome);
    }

    pub(super) fn remove_links(&mut self) {
        let before = self.outcome.removals;
        remove(&mut self.r.links, self.dataplane.links(), |_| true, number, &mut self.outcome);
        self.r.epoch_due |= self.outcome.removals > before;
    }

    pub(super) fn write_uplinks(&mut self) {
        let mut table = self.dataplane.uplinks();
        write(&mut self.r.uplinks, &mut *table, |_, _| true, number, &mut self.outcome);
    }

    pub(super) fn remove_uplinks(&mut self) {
        let mut table = self.dataplane.uplinks();
        remove(&mut self.r.uplinks, &mut *table, |_| true, number, &mut self.outcome);
    }

    pub(super) fn write_source_ranges(&mut self) {
        let ready: BTreeSet<Prefix<SourceRange>> = self
            .r
            .source_ranges
            .writes()
            .filter(|(range, _)| self.open(range.data.service, false))
            .map(|(range, _)| range)
            .collect();
        let table = self.dataplane.source_ranges();
        write(
            &mut self.r.source_ranges,
            table,
            |range, _| ready.contains(range),
            range_text,
            &mut self.outcome,
        );
        self.r.epoch_due |= !ready.is_empty();
    }

    /// As long as a frontend is direct, it asks who is inside.
    pub(super) fn remove_source_ranges(&mut self) {
        let is_direct = |frontend: &Frontend| frontend.flags & frontend_flags::DSR != 0;
        let frontends = &self.r.frontends;
        let ends = frontends.actual().values().any(is_direct) && !frontends.desired().values().any(is_direct);
        let free = |range: &Prefix<SourceRange>| range.data.service != SourceRange::INSIDE || !ends;
        let before = self.outcome.removals;
        let table = self.dataplane.source_ranges();
        remove(&mut self.r.source_ranges, table, free, range_text, &mut self.outcome);
        self.r.epoch_due |= self.outcome.removals > before;
    }

    /// Only once all Services are known: until then nobody can say which of the addresses has one.
    pub(super) fn write_service_cidrs(&mut self) {
        let table = self.dataplane.service_cidrs();
        write(&mut self.r.service_cidrs, table, |_, _| true, block_text, &mut self.outcome);
    }

    pub(super) fn remove_service_cidrs(&mut self) {
        let table = self.dataplane.service_cidrs();
        remove(&mut self.r.service_cidrs, table, |_| true, block_text, &mut self.outcome);
    }

    /// Not before everything is listed: the policies of half a cluster are other policies.
    pub(super) fn write_policy(&mut self) {
        if self.allow_removals {
            self.enforced = self.r.policy.enforce(&mut *self.dataplane, &mut self.outcome);
        }
    }

    /// If other policies are in force than before.
    pub(super) fn raise_epoch_of_policy(&mut self) {
        if self.enforced.as_ref().is_some_and(|enforced| enforced.changed) {
            self.r.epoch_due = true;
            self.raise_epoch();
        }
    }

    /// What nothing leads to since they are in force.
    pub(super) fn clean_policy(&mut self) {
        if let Some(enforced) = &self.enforced {
            self.r.policy.clean(self.dataplane.policy(), enforced, &mut self.outcome);
        }
    }

    pub(super) fn write_rejected(&mut self) {
        let table = self.dataplane.rejected();
        write(&mut self.r.rejected, table, |_, _| true, number, &mut self.outcome);
    }

    pub(super) fn remove_rejected(&mut self) {
        remove(&mut self.r.rejected, self.dataplane.rejected(), |_| true, number, &mut self.outcome);
    }

    pub(super) fn write_names(&mut self) {
        let table = self.dataplane.services();
        write(&mut self.r.services, table, |_, _| true, number, &mut self.outcome);
    }

    pub(super) fn write_backends(&mut self) {
        let backends = &self.r.backends;
        let is_new = |id: &u32| !backends.actual().contains_key(id);
        let ready: BTreeSet<u32> = backends
            .writes()
            .filter(|(id, backend)| self.open(backend.service, is_new(id)))
            .map(|(id, _)| id)
            .collect();
        self.r.epoch_due |= ready.iter().any(|id| self.r.backends.actual().contains_key(id));
        let table = self.dataplane.backends();
        write(&mut self.r.backends, table, |id, _| ready.contains(id), number, &mut self.outcome);
    }

    pub(super) fn write_slots(&mut self) {
        let Reconciler { slots, backends, .. } = &*self.r;
        let ready: BTreeSet<SlotKey> = slots
            .writes()
            .filter(|(key, slot)| {
                self.open(key.service, !slots.actual().contains_key(key))
                    && leads_to_backend(backends, key, slot)
            })
            .map(|(key, _)| key)
            .collect();
        let table = self.dataplane.slots();
        write(&mut self.r.slots, table, |key, _| ready.contains(key), slot_text, &mut self.outcome);
    }

    /// Only what leads to backends. A table that waits for one of them holds its frontends back with it.
    pub(super) fn write_maglev(&mut self) {
        let Reconciler { maglev, backends, .. } = &*self.r;
        let ready: BTreeSet<MaglevKey> = maglev
            .writes()
            .filter(|(_, part)| part.backends.iter().all(|id| *id == 0 || backends.actual().contains_key(id)))
            .map(|(key, _)| key)
            .collect();
        let table = self.dataplane.maglev();
        write(&mut self.r.maglev, table, |key, _| ready.contains(key), part_text, &mut self.outcome);
    }

    pub(super) fn remove_maglev(&mut self) {
        if self.r.maglev.removals().next().is_none() {
            return;
        }
        let used: BTreeSet<u32> = self.r.frontends.actual().values().map(|f| f.maglev).collect();
        let free = |key: &MaglevKey| !used.contains(&key.table);
        remove(&mut self.r.maglev, self.dataplane.maglev(), free, part_text, &mut self.outcome);
    }

    /// Those that lead to another entry after that one.
    pub(super) fn write_frontends(&mut self) {
        const KINDS: u32 = frontend_flags::WILDCARD | frontend_flags::EXTERNAL_DIFFERS;
        self.write_frontends_if(|frontend| frontend.flags & KINDS == 0);
        self.write_frontends_if(|frontend| frontend.flags & KINDS == frontend_flags::EXTERNAL_DIFFERS);
    }

    pub(super) fn write_addresses(&mut self) {
        self.write_frontends_if(|frontend| frontend.flags & frontend_flags::WILDCARD != 0);
    }

    fn write_frontends_if(&mut self, wanted: fn(&Frontend) -> bool) {
        let frontends = &self.r.frontends;
        let ready: BTreeSet<FrontendKey> = frontends
            .writes()
            .filter(|(key, frontend)| {
                let is_held =
                    frontend.flags & frontend_flags::WILDCARD != 0 && self.full.addresses.contains(&key.addr);
                let has_wire = frontend.flags & frontend_flags::EXTERNAL_DIFFERS == 0
                    || frontends.actual().contains_key(&key.by_wire());
                wanted(frontend)
                    && !is_held
                    && has_wire
                    && self.open(frontend.service, !frontends.actual().contains_key(key))
                    && (self.allow_removals || !self.r.inherited.frontends.contains(key))
                    && self.slots_are_ready(key, frontend)
                    && self.table_is_ready(frontend)
            })
            .map(|(key, _)| key)
            .collect();
        // Datagrams and SYNs of known flows look whether they lead to the same Service as before.
        self.r.epoch_due |= ready.iter().any(|key| {
            let owner = |frontend: &Frontend| (frontend.service, frontend.flags);
            let (actual, desired) = (self.r.frontends.actual(), self.r.frontends.desired());
            actual.get(key).map(owner) != desired.get(key).map(owner)
        });
        let table = self.dataplane.frontends();
        write(&mut self.r.frontends, table, |k, _| ready.contains(k), frontend_text, &mut self.outcome);
    }

    /// Whether every slot below the count leads to a backend. One that packets reach already may still have
    /// its old value; one that this count brings into force must have the new one.
    fn slots_are_ready(&self, key: &FrontendKey, frontend: &Frontend) -> bool {
        let Reconciler { frontends, slots, backends, .. } = &*self.r;
        let old = frontends
            .actual()
            .get(key)
            .filter(|old| (old.service, old.set) == (frontend.service, frontend.set));
        let in_force = old.map_or(0, |old| old.count);
        (0..frontend.count).all(|slot| {
            let key = frontend.slot(slot);
            let leads = slots.actual().get(&key).is_some_and(|s| leads_to_backend(backends, &key, s));
            leads && (slot < in_force || !slots.must_write(&key))
        })
    }

    /// Whether the whole table of a frontend is there.
    fn table_is_ready(&self, frontend: &Frontend) -> bool {
        let maglev = &self.r.maglev;
        let is_there = |key: &MaglevKey| maglev.actual().contains_key(key) && !maglev.must_write(key);
        let table = frontend.maglev;
        table == 0 || (0..maglev::PARTS).all(|part| is_there(&MaglevKey { table, part }))
    }

    /// What other entries lead to after those.
    pub(super) fn remove_frontends(&mut self) {
        let before = self.outcome.removals;
        let table = self.dataplane.frontends();
        let leads = |key: &FrontendKey| key.scope != scope::EXTERNAL;
        remove(&mut self.r.frontends, table, leads, frontend_text, &mut self.outcome);
        let actual = self.r.frontends.actual();
        let used: BTreeSet<FrontendKey> = actual
            .iter()
            .filter(|(_, frontend)| frontend.flags & frontend_flags::EXTERNAL_DIFFERS != 0)
            .map(|(key, _)| key.by_wire())
            .collect();
        let free = |key: &FrontendKey| !used.contains(key);
        remove(&mut self.r.frontends, table, free, frontend_text, &mut self.outcome);
        self.r.epoch_due |= self.outcome.removals > before;
    }

    /// Before what they speak of comes, and in the round after it went.
    pub(super) fn write_hints(&mut self) {
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

    pub(super) fn remove_slots(&mut self) {
        if self.r.slots.removals().next().is_none() {
            return;
        }
        let reach = self.reach();
        let free = |key: &SlotKey| reach.get(&(key.service, key.set)).is_none_or(|count| key.slot >= *count);
        remove(&mut self.r.slots, self.dataplane.slots(), free, slot_text, &mut self.outcome);
    }

    pub(super) fn remove_backends(&mut self) {
        let due: BTreeSet<u32> = self.r.backends.removals().collect();
        if due.is_empty() {
            return;
        }
        // Few go at a time, and there may be very many slots.
        let slots = self.r.slots.actual().values().map(|slot| slot.backend);
        let parts = self.r.maglev.actual().values().flat_map(|part| part.backends);
        let used: BTreeSet<u32> = slots.chain(parts).filter(|id| due.contains(id)).collect();
        let free = |id: &u32| !used.contains(id);
        let before = self.outcome.removals;
        remove(&mut self.r.backends, self.dataplane.backends(), free, number, &mut self.outcome);
        self.r.epoch_due |= self.outcome.removals > before;
    }

    pub(super) fn raise_epoch(&mut self) {
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

    pub(super) fn remove_names(&mut self) {
        if self.r.services.removals().next().is_none() {
            return;
        }
        let reach = self.reach();
        let free = |id: &u32| reach.range((*id, 0)..=(*id, u32::MAX)).next().is_none();
        remove(&mut self.r.services, self.dataplane.services(), free, number, &mut self.outcome);
    }

    /// The highest count of each set of a service that a frontend leads to.
    fn reach(&self) -> BTreeMap<(u32, u32), u32> {
        let mut reach = BTreeMap::new();
        for frontend in self.r.frontends.actual().values() {
            let count = reach.entry((frontend.service, frontend.set)).or_insert(0);
            *count = frontend.count.max(*count);
        }
        reach
    }
}

/// Whether the backend of a slot is in its map, as a backend of the same service.
fn leads_to_backend(backends: &Delta<u32, Backend>, key: &SlotKey, slot: &Slot) -> bool {
    backends.actual().get(&slot.backend).is_some_and(|b| b.service == key.service)
}

pub(super) fn write<K: Copy + Ord, V: Copy + PartialEq>(
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

pub(super) fn remove<K: Copy + Ord, V: Copy + PartialEq>(
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

pub(super) fn number(id: &u32) -> String {
    id.to_string()
}
