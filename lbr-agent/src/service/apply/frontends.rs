//! Frontends, and what they lead to.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::maglev::{self, MaglevKey};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, frontend_flags, scope};
use lbr_common::tuple::proto;

use super::Steps;
use super::text::{frontend_text, part_text, slot_text};
use crate::table::{Delta, ServiceMaps, number, remove, write};

impl Steps<'_, '_> {
    pub(in crate::service) fn write_names(&mut self) {
        let table = self.pass.dataplane.tables().services;
        write(&mut self.maps.services, table, |_, _| true, number, &mut self.pass.outcome);
    }

    pub(in crate::service) fn write_backends(&mut self) {
        let backends = &self.maps.backends;
        let is_new = |id: &u32| !backends.actual().contains_key(id);
        let ready: BTreeSet<u32> = backends
            .writes()
            .filter(|(id, backend)| self.open(backend.service, is_new(id)))
            .map(|(id, _)| id)
            .collect();
        self.pass.due.epoch |= ready.iter().any(|id| self.maps.backends.actual().contains_key(id));
        // An id may come to another backend before the former one was removed.
        self.pass.due.sockets |= backends.writes().any(|(id, new)| {
            let old = backends.actual().get(&id).filter(|_| ready.contains(&id));
            old.is_some_and(|old| old.proto == proto::UDP && (old.addr, old.port) != (new.addr, new.port))
        });
        let table = self.pass.dataplane.tables().backends;
        write(&mut self.maps.backends, table, |id, _| ready.contains(id), number, &mut self.pass.outcome);
    }

    pub(in crate::service) fn write_slots(&mut self) {
        let ServiceMaps { slots, backends, .. } = &*self.maps;
        let ready: BTreeSet<SlotKey> = slots
            .writes()
            .filter(|(key, slot)| {
                self.open(key.service, !slots.actual().contains_key(key))
                    && leads_to_backend(backends, key, slot)
            })
            .map(|(key, _)| key)
            .collect();
        let table = self.pass.dataplane.tables().slots;
        write(&mut self.maps.slots, table, |key, _| ready.contains(key), slot_text, &mut self.pass.outcome);
    }

    /// Only parts whose backends are there. A table that waits for a backend holds its frontends back.
    pub(in crate::service) fn write_maglev(&mut self) {
        let ServiceMaps { maglev, backends, .. } = &*self.maps;
        let ready: BTreeSet<MaglevKey> = maglev
            .writes()
            .filter(|(_, part)| part.backends.iter().all(|id| *id == 0 || backends.actual().contains_key(id)))
            .map(|(key, _)| key)
            .collect();
        let table = self.pass.dataplane.tables().maglev;
        write(&mut self.maps.maglev, table, |key, _| ready.contains(key), part_text, &mut self.pass.outcome);
    }

    pub(in crate::service) fn remove_maglev(&mut self) {
        if self.maps.maglev.removals().next().is_none() {
            return;
        }
        let used: BTreeSet<u32> = self.maps.frontends.actual().values().map(|f| f.maglev).collect();
        let free = |key: &MaglevKey| !used.contains(&key.table);
        remove(
            &mut self.maps.maglev,
            self.pass.dataplane.tables().maglev,
            free,
            part_text,
            &mut self.pass.outcome,
        );
    }

    /// A frontend with an entry for clients outside is written after that entry.
    pub(in crate::service) fn write_frontends(&mut self) {
        const KINDS: u32 = frontend_flags::WILDCARD | frontend_flags::EXTERNAL_DIFFERS;
        self.write_frontends_if(|frontend| frontend.flags & KINDS == 0);
        self.write_frontends_if(|frontend| frontend.flags & KINDS == frontend_flags::EXTERNAL_DIFFERS);
    }

    pub(in crate::service) fn write_addresses(&mut self) {
        self.write_frontends_if(|frontend| frontend.flags & frontend_flags::WILDCARD != 0);
    }

    fn write_frontends_if(&mut self, wanted: fn(&Frontend) -> bool) {
        let frontends = &self.maps.frontends;
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
                    && (self.pass.allow_removals || !self.inherited.frontends.contains(key))
                    && self.slots_are_ready(key, frontend)
                    && self.table_is_ready(frontend)
            })
            .map(|(key, _)| key)
            .collect();
        // Makes datagrams and SYNs of known flows check whether their frontend leads to the same Service as before.
        self.pass.due.epoch |= ready.iter().any(|key| {
            let owner = |frontend: &Frontend| (frontend.service, frontend.flags);
            let (actual, desired) = (self.maps.frontends.actual(), self.maps.frontends.desired());
            actual.get(key).map(owner) != desired.get(key).map(owner)
        });
        let table = self.pass.dataplane.tables().frontends;
        write(
            &mut self.maps.frontends,
            table,
            |k, _| ready.contains(k),
            frontend_text,
            &mut self.pass.outcome,
        );
    }

    /// Whether every slot below the count leads to a backend. A slot that packets reach already may still have
    /// its old value; a slot that this count brings into force must have the new one.
    fn slots_are_ready(&self, key: &FrontendKey, frontend: &Frontend) -> bool {
        let ServiceMaps { frontends, slots, backends, .. } = &*self.maps;
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
        let maglev = &self.maps.maglev;
        let is_there = |key: &MaglevKey| maglev.actual().contains_key(key) && !maglev.must_write(key);
        let table = frontend.maglev;
        table == 0 || (0..maglev::PARTS).all(|part| is_there(&MaglevKey { table, part }))
    }

    /// Entries for clients outside are removed after those that lead to them.
    pub(in crate::service) fn remove_frontends(&mut self) {
        let before = self.pass.outcome.removals;
        let table = self.pass.dataplane.tables().frontends;
        let leads = |key: &FrontendKey| key.scope != scope::EXTERNAL;
        remove(&mut self.maps.frontends, table, leads, frontend_text, &mut self.pass.outcome);
        let actual = self.maps.frontends.actual();
        let used: BTreeSet<FrontendKey> = actual
            .iter()
            .filter(|(_, frontend)| frontend.flags & frontend_flags::EXTERNAL_DIFFERS != 0)
            .map(|(key, _)| key.by_wire())
            .collect();
        let free = |key: &FrontendKey| !used.contains(key);
        remove(&mut self.maps.frontends, table, free, frontend_text, &mut self.pass.outcome);
        self.pass.due.epoch |= self.pass.outcome.removals > before;
    }

    pub(in crate::service) fn remove_slots(&mut self) {
        if self.maps.slots.removals().next().is_none() {
            return;
        }
        let reach = self.reach();
        let free = |key: &SlotKey| reach.get(&(key.service, key.set)).is_none_or(|count| key.slot >= *count);
        remove(
            &mut self.maps.slots,
            self.pass.dataplane.tables().slots,
            free,
            slot_text,
            &mut self.pass.outcome,
        );
    }

    pub(in crate::service) fn remove_backends(&mut self) {
        let due: BTreeSet<u32> = self.maps.backends.removals().collect();
        if due.is_empty() {
            return;
        }
        // Few backends go at a time, and there may be very many slots.
        let slots = self.maps.slots.actual().values().map(|slot| slot.backend);
        let parts = self.maps.maglev.actual().values().flat_map(|part| part.backends);
        let used: BTreeSet<u32> = slots.chain(parts).filter(|id| due.contains(id)).collect();
        let free = |id: &u32| !used.contains(id);
        let before = self.pass.outcome.removals;
        let of_datagrams = due.iter().any(|id| free(id) && self.is_for_datagrams(id));
        remove(
            &mut self.maps.backends,
            self.pass.dataplane.tables().backends,
            free,
            number,
            &mut self.pass.outcome,
        );
        self.pass.due.epoch |= self.pass.outcome.removals > before;
        self.pass.due.sockets |= of_datagrams;
    }

    /// Whether there is a backend with this id, for UDP.
    fn is_for_datagrams(&self, id: &u32) -> bool {
        self.maps.backends.actual().get(id).is_some_and(|backend| backend.proto == proto::UDP)
    }

    pub(in crate::service) fn remove_names(&mut self) {
        if self.maps.services.removals().next().is_none() {
            return;
        }
        let reach = self.reach();
        let free = |id: &u32| reach.range((*id, 0)..=(*id, u32::MAX)).next().is_none();
        remove(
            &mut self.maps.services,
            self.pass.dataplane.tables().services,
            free,
            number,
            &mut self.pass.outcome,
        );
    }

    /// The highest count of each set of a service that a frontend leads to.
    fn reach(&self) -> BTreeMap<(u32, u32), u32> {
        let mut reach = BTreeMap::new();
        for frontend in self.maps.frontends.actual().values() {
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
