//! Frontends, and what they lead to.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::epoch::Place;
use lbr_common::id::{BackendId, MaglevId, ServiceId};
use lbr_common::maglev::{self, MaglevKey};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, frontend_flags, scope};
use lbr_common::tuple::proto;

use super::text::{frontend_text, part_text, slot_text};
use super::{Steps, concern};
use crate::service::slots_of;
use crate::table::{Delta, ServiceMaps, number, remove, write};

impl Steps<'_, '_> {
    pub(in crate::service) fn write_names(&mut self) {
        let table = self.pass.dataplane.tables().services;
        write(&mut self.maps.services, table, |_, _| true, number, &mut self.pass.outcome);
    }

    pub(in crate::service) fn write_backends(&mut self) {
        let backends = &self.maps.backends;
        let is_new = |id: &BackendId| !backends.actual().contains_key(id);
        let ready: BTreeSet<BackendId> = backends
            .writes()
            .filter(|(id, backend)| self.open(backend.service, is_new(id)))
            .map(|(id, _)| id)
            .collect();
        let owners = |id: &BackendId| Some([backends.actual().get(id)?.service, backends.get(id)?.service]);
        let changed = ready.iter().filter_map(owners).flatten();
        self.pass.due.flows.extend(changed.map(Place::service));
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
            .filter(|(_, part)| part.backends().all(|id| backends.actual().contains_key(&id)))
            .map(|(key, _)| key)
            .collect();
        let table = self.pass.dataplane.tables().maglev;
        write(&mut self.maps.maglev, table, |key, _| ready.contains(key), part_text, &mut self.pass.outcome);
    }

    pub(in crate::service) fn remove_maglev(&mut self) {
        if self.maps.maglev.removals().next().is_none() {
            return;
        }
        let used: BTreeSet<MaglevId> = self.maps.frontends.actual().values().map(|f| f.maglev).collect();
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
        let changed = ready.iter().filter(|key| {
            let owner = |frontend: &Frontend| (frontend.service, frontend.flags);
            frontends.actual().get(key).map(owner) != frontends.get(key).map(owner)
        });
        self.pass.due.flows.extend(changed.flat_map(|key| concern::of_frontend(frontends, key)));
        let owners = |frontends: &Delta<FrontendKey, Frontend>| -> Vec<_> {
            let owner = |key: &FrontendKey| Some((frontends.actual().get(key)?.service, *key));
            ready.iter().filter_map(owner).collect()
        };
        let before = owners(&self.maps.frontends);
        let table = self.pass.dataplane.tables().frontends;
        write(
            &mut self.maps.frontends,
            table,
            |k, _| ready.contains(k),
            frontend_text,
            &mut self.pass.outcome,
        );
        for entry in before {
            self.in_force.0.remove(&entry);
        }
        self.in_force.0.extend(owners(&self.maps.frontends));
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
        table.is_none() || (0..maglev::PARTS).all(|part| is_there(&MaglevKey { table, part }))
    }

    /// Entries for clients outside are removed after those that lead to them.
    pub(in crate::service) fn remove_frontends(&mut self) {
        self.remove_frontends_if(|key, _| key.scope != scope::EXTERNAL);
        self.remove_frontends_if(|key, actual| {
            let leads_here = |key| {
                let frontend: Option<&Frontend> = actual.get(&key);
                frontend.is_some_and(|f| f.flags & frontend_flags::EXTERNAL_DIFFERS != 0)
            };
            !leads_here(FrontendKey { scope: scope::ANY, ..*key })
                && !leads_here(FrontendKey { scope: scope::HOST_LOCAL, ..*key })
        });
    }

    fn remove_frontends_if(&mut self, free: fn(&FrontendKey, &BTreeMap<FrontendKey, Frontend>) -> bool) {
        let frontends = &mut self.maps.frontends;
        let due: BTreeSet<_> = frontends.removals().filter(|key| free(key, frontends.actual())).collect();
        let owner = |key: &FrontendKey| Some((frontends.actual().get(key)?.service, *key));
        let owners: Vec<_> = due.iter().filter_map(owner).collect();
        let concerned: Vec<_> = due.iter().map(|key| (*key, concern::of_frontend(frontends, key))).collect();
        let table = self.pass.dataplane.tables().frontends;
        remove(frontends, table, |key| due.contains(key), frontend_text, &mut self.pass.outcome);
        for entry in owners.into_iter().filter(|(_, key)| !frontends.actual().contains_key(key)) {
            self.in_force.0.remove(&entry);
        }
        let removed = concerned.into_iter().filter(|(key, _)| !frontends.actual().contains_key(key));
        self.pass.due.flows.extend(removed.flat_map(|(_, cells)| cells));
    }

    pub(in crate::service) fn remove_slots(&mut self) {
        let due: BTreeSet<(ServiceId, u32)> =
            self.maps.slots.removals().map(|key| (key.service, key.set)).collect();
        let reach: BTreeMap<_, _> =
            due.into_iter().map(|(service, set)| ((service, set), self.reach(service, set))).collect();
        let free = |key: &SlotKey| reach.get(&(key.service, key.set)).is_none_or(|count| key.slot >= *count);
        remove(
            &mut self.maps.slots,
            self.pass.dataplane.tables().slots,
            free,
            slot_text,
            &mut self.pass.outcome,
        );
    }

    /// The highest count of a set of a service that a frontend in force leads to.
    fn reach(&self, service: ServiceId, set: u32) -> u32 {
        let frontends = self.in_force.of(service).filter_map(|key| self.maps.frontends.actual().get(key));
        frontends.filter(|frontend| frontend.set == set).map(|frontend| frontend.count).max().unwrap_or(0)
    }

    pub(in crate::service) fn remove_backends(&mut self) {
        let ServiceMaps { backends, slots, maglev, .. } = &*self.maps;
        let due: BTreeSet<BackendId> = backends.removals().collect();
        if due.is_empty() {
            return;
        }
        // Slots lead to backends of their own service only.
        let services: BTreeSet<ServiceId> =
            due.iter().filter_map(|id| backends.actual().get(id)).map(|backend| backend.service).collect();
        let slots = services.into_iter().flat_map(|service| slots.actual().range(slots_of(service)));
        let slots = slots.map(|(_, slot)| slot.backend);
        let parts = maglev.actual().values().flat_map(|part| part.backends());
        let used: BTreeSet<BackendId> = slots.chain(parts).filter(|id| due.contains(id)).collect();
        let free = |id: &BackendId| !used.contains(id);
        let owner = |id: &BackendId| Some((*id, backends.actual().get(id)?.service));
        let owners: Vec<_> = due.iter().filter_map(owner).collect();
        let of_datagrams = due.iter().any(|id| free(id) && self.is_for_datagrams(id));
        let table = self.pass.dataplane.tables().backends;
        remove(&mut self.maps.backends, table, free, number, &mut self.pass.outcome);
        let backends = &self.maps.backends;
        let removed = owners.into_iter().filter(|(id, _)| !backends.actual().contains_key(id));
        self.pass.due.flows.extend(removed.map(|(_, service)| Place::service(service)));
        self.pass.due.sockets |= of_datagrams;
    }

    /// Whether there is a backend with this id, for UDP.
    fn is_for_datagrams(&self, id: &BackendId) -> bool {
        self.maps.backends.actual().get(id).is_some_and(|backend| backend.proto == proto::UDP)
    }

    pub(in crate::service) fn remove_names(&mut self) {
        let free = |id: &ServiceId| self.in_force.of(*id).next().is_none();
        let table = self.pass.dataplane.tables().services;
        remove(&mut self.maps.services, table, free, number, &mut self.pass.outcome);
    }
}

/// Whether the backend of a slot is in its map, as a backend of the same service.
fn leads_to_backend(backends: &Delta<BackendId, Backend>, key: &SlotKey, slot: &Slot) -> bool {
    backends.actual().get(&slot.backend).is_some_and(|b| b.service == key.service)
}
