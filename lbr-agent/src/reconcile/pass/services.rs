//! Frontends, and what they lead to.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::maglev::{self, MaglevKey};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, frontend_flags, scope};
use lbr_common::tuple::proto;

use super::super::Delta;
use super::super::maps::Maps;
use super::super::text::{frontend_text, part_text, slot_text};
use super::{Pass, number, remove, write};

impl Pass<'_> {
    pub(crate) fn write_names(&mut self) {
        let table = self.dataplane.tables().services;
        write(&mut self.r.maps.services, table, |_, _| true, number, &mut self.outcome);
    }

    pub(crate) fn write_backends(&mut self) {
        let backends = &self.r.maps.backends;
        let is_new = |id: &u32| !backends.actual().contains_key(id);
        let ready: BTreeSet<u32> = backends
            .writes()
            .filter(|(id, backend)| self.open(backend.service, is_new(id)))
            .map(|(id, _)| id)
            .collect();
        self.r.epoch_due |= ready.iter().any(|id| self.r.maps.backends.actual().contains_key(id));
        // An id may come to another backend before the former one was removed.
        self.r.sockets_due |= backends.writes().any(|(id, new)| {
            let old = backends.actual().get(&id).filter(|_| ready.contains(&id));
            old.is_some_and(|old| old.proto == proto::UDP && (old.addr, old.port) != (new.addr, new.port))
        });
        let table = self.dataplane.tables().backends;
        write(&mut self.r.maps.backends, table, |id, _| ready.contains(id), number, &mut self.outcome);
    }

    pub(crate) fn write_slots(&mut self) {
        let Maps { slots, backends, .. } = &self.r.maps;
        let ready: BTreeSet<SlotKey> = slots
            .writes()
            .filter(|(key, slot)| {
                self.open(key.service, !slots.actual().contains_key(key))
                    && leads_to_backend(backends, key, slot)
            })
            .map(|(key, _)| key)
            .collect();
        let table = self.dataplane.tables().slots;
        write(&mut self.r.maps.slots, table, |key, _| ready.contains(key), slot_text, &mut self.outcome);
    }

    /// Only parts whose backends are there. A table that waits for a backend holds its frontends back.
    pub(crate) fn write_maglev(&mut self) {
        let Maps { maglev, backends, .. } = &self.r.maps;
        let ready: BTreeSet<MaglevKey> = maglev
            .writes()
            .filter(|(_, part)| part.backends.iter().all(|id| *id == 0 || backends.actual().contains_key(id)))
            .map(|(key, _)| key)
            .collect();
        let table = self.dataplane.tables().maglev;
        write(&mut self.r.maps.maglev, table, |key, _| ready.contains(key), part_text, &mut self.outcome);
    }

    pub(crate) fn remove_maglev(&mut self) {
        if self.r.maps.maglev.removals().next().is_none() {
            return;
        }
        let used: BTreeSet<u32> = self.r.maps.frontends.actual().values().map(|f| f.maglev).collect();
        let free = |key: &MaglevKey| !used.contains(&key.table);
        remove(&mut self.r.maps.maglev, self.dataplane.tables().maglev, free, part_text, &mut self.outcome);
    }

    /// A frontend with an entry for clients outside is written after that entry.
    pub(crate) fn write_frontends(&mut self) {
        const KINDS: u32 = frontend_flags::WILDCARD | frontend_flags::EXTERNAL_DIFFERS;
        self.write_frontends_if(|frontend| frontend.flags & KINDS == 0);
        self.write_frontends_if(|frontend| frontend.flags & KINDS == frontend_flags::EXTERNAL_DIFFERS);
    }

    pub(crate) fn write_addresses(&mut self) {
        self.write_frontends_if(|frontend| frontend.flags & frontend_flags::WILDCARD != 0);
    }

    fn write_frontends_if(&mut self, wanted: fn(&Frontend) -> bool) {
        let frontends = &self.r.maps.frontends;
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
        // Makes datagrams and SYNs of known flows check whether their frontend leads to the same Service as before.
        self.r.epoch_due |= ready.iter().any(|key| {
            let owner = |frontend: &Frontend| (frontend.service, frontend.flags);
            let (actual, desired) = (self.r.maps.frontends.actual(), self.r.maps.frontends.desired());
            actual.get(key).map(owner) != desired.get(key).map(owner)
        });
        let table = self.dataplane.tables().frontends;
        write(&mut self.r.maps.frontends, table, |k, _| ready.contains(k), frontend_text, &mut self.outcome);
    }

    /// Whether every slot below the count leads to a backend. A slot that packets reach already may still have
    /// its old value; a slot that this count brings into force must have the new one.
    fn slots_are_ready(&self, key: &FrontendKey, frontend: &Frontend) -> bool {
        let Maps { frontends, slots, backends, .. } = &self.r.maps;
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
        let maglev = &self.r.maps.maglev;
        let is_there = |key: &MaglevKey| maglev.actual().contains_key(key) && !maglev.must_write(key);
        let table = frontend.maglev;
        table == 0 || (0..maglev::PARTS).all(|part| is_there(&MaglevKey { table, part }))
    }

    /// Entries for clients outside are removed after those that lead to them.
    pub(crate) fn remove_frontends(&mut self) {
        let before = self.outcome.removals;
        let table = self.dataplane.tables().frontends;
        let leads = |key: &FrontendKey| key.scope != scope::EXTERNAL;
        remove(&mut self.r.maps.frontends, table, leads, frontend_text, &mut self.outcome);
        let actual = self.r.maps.frontends.actual();
        let used: BTreeSet<FrontendKey> = actual
            .iter()
            .filter(|(_, frontend)| frontend.flags & frontend_flags::EXTERNAL_DIFFERS != 0)
            .map(|(key, _)| key.by_wire())
            .collect();
        let free = |key: &FrontendKey| !used.contains(key);
        remove(&mut self.r.maps.frontends, table, free, frontend_text, &mut self.outcome);
        self.r.epoch_due |= self.outcome.removals > before;
    }

    pub(crate) fn remove_slots(&mut self) {
        if self.r.maps.slots.removals().next().is_none() {
            return;
        }
        let reach = self.reach();
        let free = |key: &SlotKey| reach.get(&(key.service, key.set)).is_none_or(|count| key.slot >= *count);
        remove(&mut self.r.maps.slots, self.dataplane.tables().slots, free, slot_text, &mut self.outcome);
    }

    pub(crate) fn remove_backends(&mut self) {
        let due: BTreeSet<u32> = self.r.maps.backends.removals().collect();
        if due.is_empty() {
            return;
        }
        // Few backends go at a time, and there may be very many slots.
        let slots = self.r.maps.slots.actual().values().map(|slot| slot.backend);
        let parts = self.r.maps.maglev.actual().values().flat_map(|part| part.backends);
        let used: BTreeSet<u32> = slots.chain(parts).filter(|id| due.contains(id)).collect();
        let free = |id: &u32| !used.contains(id);
        let before = self.outcome.removals;
        let of_datagrams = due.iter().any(|id| free(id) && self.is_for_datagrams(id));
        remove(&mut self.r.maps.backends, self.dataplane.tables().backends, free, number, &mut self.outcome);
        self.r.epoch_due |= self.outcome.removals > before;
        self.r.sockets_due |= of_datagrams;
    }

    /// Whether there is a backend with this id, for UDP.
    fn is_for_datagrams(&self, id: &u32) -> bool {
        self.r.maps.backends.actual().get(id).is_some_and(|backend| backend.proto == proto::UDP)
    }

    pub(crate) fn remove_names(&mut self) {
        if self.r.maps.services.removals().next().is_none() {
            return;
        }
        let reach = self.reach();
        let free = |id: &u32| reach.range((*id, 0)..=(*id, u32::MAX)).next().is_none();
        remove(&mut self.r.maps.services, self.dataplane.tables().services, free, number, &mut self.outcome);
    }

    /// The highest count of each set of a service that a frontend leads to.
    fn reach(&self) -> BTreeMap<(u32, u32), u32> {
        let mut reach = BTreeMap::new();
        for frontend in self.r.maps.frontends.actual().values() {
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
