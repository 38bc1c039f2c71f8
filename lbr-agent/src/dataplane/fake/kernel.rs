//! The part that outlives the agent: maps and attached programs, checked after each write.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lbr_common::maglev::{self, MaglevKey};
use lbr_common::maps;
use lbr_common::service::{Frontend, frontend_flags};

use crate::dataplane::{Concerned, Content, WriteError};
use crate::desired::Desired;

/// Gets the tables as programs see them, after each write.
pub(super) type Observer = Box<dyn FnMut(&Desired, u32) + Send>;

/// Maps and attached programs.
pub(super) struct Kernel {
    pub(super) content: Content,
    pub(super) observer: Option<Observer>,
    pub(super) attached: BTreeSet<u32>,
    pub(super) epoch: u32,
    pub(super) concerned: Vec<Concerned>,
    pub(super) generation: u32,
    pub(super) max_entries: BTreeMap<&'static str, u32>,
    /// Of 100 writes.
    pub(super) faults: u32,
    pub(super) random: u64,
    pub(super) operations: usize,
    pub(super) checked: bool,
    pub(super) looks_at_sockets: usize,
    pub(super) aborts: bool,
    pub(super) is_loading: bool,
    pub(super) refuses_programs: bool,
}

impl Kernel {
    pub(super) fn may_fail(&mut self, map: &'static str) -> Result<(), WriteError> {
        self.operations += 1;
        // splitmix64 (Steele, Lea, Flood 2014): its low bits are as good as its high ones.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (z ^ (z >> 31)) % 100 < u64::from(self.faults) {
            return Err(WriteError::Io { map, source: io::ErrorKind::Interrupted.into() });
        }
        Ok(())
    }

    /// Checks, after a write to a map, what a packet that arrives now relies on.
    pub(super) fn check(&mut self, map: &str) {
        if !self.checked {
            return;
        }
        if let Some(observer) = &mut self.observer {
            observer(&self.content.clone().in_force(self.generation), self.epoch);
        }
        let tables = &self.content;
        for (key, frontend) in &tables.frontends {
            let has_wire = frontend.flags & frontend_flags::EXTERNAL_DIFFERS == 0
                || tables.frontends.contains_key(&key.by_wire());
            assert!(has_wire, "{key:?} {frontend:?}: its entry for the wire is missing");
            for slot in 0..frontend.count {
                let slot_key = frontend.slot(slot);
                let slot = tables.slots.get(&slot_key);
                assert!(slot.is_some(), "{key:?} {frontend:?}: {slot_key:?} is missing");
                let backend = slot.and_then(|slot| tables.backends.get(&slot.backend));
                assert!(
                    backend.is_some_and(|b| b.service == frontend.service && b.proto == key.proto),
                    "{key:?} {frontend:?}: {slot_key:?} leads to {slot:?}, {backend:?}"
                );
            }
            // Large, and never written while it is in force, so only writes of frontends and backends can break it.
            if frontend.maglev.is_some() && [maps::FRONTENDS.name, maps::BACKENDS.name].contains(&map) {
                check_table(tables, frontend);
            }
        }
    }
}

/// Each slot of the table leads to a backend of the service.
fn check_table(tables: &Content, frontend: &Frontend) {
    let mut known = BTreeSet::new();
    for part in 0..maglev::PARTS {
        let key = MaglevKey { table: frontend.maglev, part };
        let found = tables.maglev.get(&key);
        assert!(found.is_some(), "{frontend:?}: {key:?} is missing");
        let slots = part * maglev::PART..maglev::SLOTS.min((part + 1) * maglev::PART);
        known.extend(slots.map(|slot| found.and_then(|found| found.backend(slot))));
    }
    for id in known {
        let backend = id.and_then(|id| tables.backends.get(&id));
        assert!(
            backend.is_some_and(|b| b.service == frontend.service),
            "{frontend:?}: its table leads to {id:?}, {backend:?}"
        );
    }
}

// A derived impl would require `Debug` of the observer.
impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel")
            .field("content", &self.content)
            .field("generation", &self.generation)
            .finish()
    }
}

// A test that failed while it held the lock has said why already.
pub(super) fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}
