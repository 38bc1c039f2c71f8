//! A data plane in memory whose writes fail now and then, for tests.
//!
//! It knows three facts of the kernel: a map has a size, inserting a link attaches to it, and a packet can
//! come between any two writes. The last one is why every write is followed by a look at the tables: if a
//! frontend leads nowhere, the test ends there.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lbr_common::addr::Addr;
use lbr_common::link::{Link, Uplink};
use lbr_common::maglev::{self, MaglevKey, MaglevPart};
use lbr_common::maps;
use lbr_common::policy::{Allow, Block, Endpoint, Ports, Prefix, VerdictKey, Versioned};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange, frontend_flags};
use lbr_common::text::{
    ClassRecord, Member, MemberKey, PodName, PolicyRecord, RejectedRecord, RuleKey, RuleText, ServiceName,
};

use super::{Dataplane, PolicyTables, Table, Versions, WriteError};
use crate::desired::{Desired, EndpointPolicy};

/// How many of 100 writes fail unless a test says otherwise.
pub const DEFAULT_FAULTS: u32 = 10;

/// The fake. Clones share their content.
#[derive(Clone, Debug)]
pub struct Fake {
    kernel: Arc<Mutex<Kernel>>,
    frontends: FakeTable<FrontendKey, Frontend>,
    slots: FakeTable<SlotKey, Slot>,
    backends: FakeTable<u32, Backend>,
    maglev: FakeTable<MaglevKey, MaglevPart>,
    services: FakeTable<u32, ServiceName>,
    rejected: FakeTable<u32, RejectedRecord>,
    links: FakeTable<u32, Link>,
    uplinks: FakeTable<u32, Uplink>,
    source_ranges: FakeTable<Prefix<SourceRange>, u32>,
    service_cidrs: FakeTable<Prefix<Block>, u32>,
    policy: FakePolicy,
}

/// As `PolicyTables`.
#[derive(Clone, Debug)]
struct FakePolicy {
    endpoints: FakeTable<Addr, Endpoint>,
    link_policy: FakeTable<u32, Versioned<u32>>,
    ip_class: FakeTable<Addr, Versioned<u32>>,
    cidr_class: FakeTable<Prefix<Block>, Versioned<u32>>,
    port_class: FakeTable<Prefix<Ports>, u32>,
    verdicts: FakeTable<VerdictKey, Allow>,
    policies: FakeTable<u32, PolicyRecord>,
    rules: FakeTable<RuleKey, RuleText>,
    set_members: FakeTable<MemberKey, Member>,
    classes: FakeTable<u32, ClassRecord>,
    pod_names: FakeTable<Addr, PodName>,
}

/// Everything in the maps. Of `tables`, what has versions in the kernel is empty and stands in `versions`.
#[derive(Debug, Default)]
struct Maps {
    tables: Desired,
    versions: Versions,
}

impl Maps {
    /// What programs see at a generation.
    fn at(&self, generation: u32) -> Desired {
        let mut tables = self.tables.clone();
        self.versions.write_to(&mut tables, generation);
        tables
    }
}

/// Is shown the tables as programs see them after each write.
type Observer = Box<dyn FnMut(&Desired) + Send>;

/// What outlives the agent.
struct Kernel {
    maps: Maps,
    observer: Option<Observer>,
    attached: BTreeSet<u32>,
    epoch: u32,
    generation: u32,
    max_entries: BTreeMap<&'static str, u32>,
    /// Of 100 writes.
    faults: u32,
    random: u64,
    operations: usize,
    checked: bool,
}

impl Fake {
    /// Empty maps of the default sizes. The order of faults follows from the seed.
    pub fn new(seed: u64) -> Self {
        let sizes = maps::PINNED.iter().map(|m| (m.name, u32::try_from(m.max_entries).unwrap_or(u32::MAX)));
        let kernel = Kernel {
            maps: Maps::default(),
            observer: None,
            attached: BTreeSet::new(),
            epoch: 0,
            generation: 0,
            max_entries: sizes.collect(),
            faults: DEFAULT_FAULTS,
            random: seed,
            operations: 0,
            checked: true,
        };
        let kernel = Arc::new(Mutex::new(kernel));
        Self {
            frontends: FakeTable::new(&kernel, &maps::FRONTENDS, |m| &mut m.tables.frontends),
            slots: FakeTable::new(&kernel, &maps::SLOTS, |m| &mut m.tables.slots),
            backends: FakeTable::new(&kernel, &maps::BACKENDS, |m| &mut m.tables.backends),
            maglev: FakeTable::new(&kernel, &maps::MAGLEV, |m| &mut m.tables.maglev),
            services: FakeTable::new(&kernel, &maps::SERVICES, |m| &mut m.tables.services),
            uplinks: FakeTable::new(&kernel, &maps::UPLINKS, |m| &mut m.tables.uplinks),
            source_ranges: FakeTable::new(&kernel, &maps::SOURCE_RANGES, |m| &mut m.tables.source_ranges),
            service_cidrs: FakeTable::new(&kernel, &maps::SERVICE_CIDRS, |m| &mut m.tables.service_cidrs),
            rejected: FakeTable::new(&kernel, &maps::REJECTED, |m| &mut m.tables.rejected),
            links: FakeTable::new(&kernel, &maps::LINKS, |m| &mut m.tables.links),
            policy: FakePolicy {
                endpoints: FakeTable::new(&kernel, &maps::ENDPOINTS, |m| &mut m.versions.endpoints),
                link_policy: FakeTable::new(&kernel, &maps::LINK_POLICY, |m| &mut m.versions.link_policy),
                ip_class: FakeTable::new(&kernel, &maps::IP_CLASS, |m| &mut m.versions.ip_class),
                cidr_class: FakeTable::new(&kernel, &maps::CIDR_CLASS, |m| &mut m.versions.cidr_class),
                port_class: FakeTable::new(&kernel, &maps::PORT_CLASS, |m| &mut m.tables.port_class),
                verdicts: FakeTable::new(&kernel, &maps::VERDICTS, |m| &mut m.tables.verdicts),
                policies: FakeTable::new(&kernel, &maps::POLICIES, |m| &mut m.tables.policies),
                rules: FakeTable::new(&kernel, &maps::RULES, |m| &mut m.tables.rules),
                set_members: FakeTable::new(&kernel, &maps::SET_MEMBERS, |m| &mut m.tables.set_members),
                classes: FakeTable::new(&kernel, &maps::CLASSES, |m| &mut m.tables.classes),
                pod_names: FakeTable::new(&kernel, &maps::POD_NAMES, |m| &mut m.tables.pod_names),
            },
            kernel,
        }
    }

    /// With so many faults of 100 writes.
    #[must_use]
    pub fn with_faults(self, percent: u32) -> Self {
        self.set_faults(percent);
        self
    }

    /// From now on so many of 100 writes fail.
    pub fn set_faults(&self, percent: u32) {
        lock(&self.kernel).faults = percent;
    }

    /// Sets the size of a map.
    pub fn set_max_entries(&self, map: &'static str, max_entries: u32) {
        lock(&self.kernel).max_entries.insert(map, max_entries);
    }

    /// Whether every write is followed by a look at the tables: not while they are broken on purpose.
    pub fn set_checked(&self, checked: bool) {
        lock(&self.kernel).checked = checked;
    }

    /// What programs see in the maps.
    pub fn tables(&self) -> Desired {
        let kernel = lock(&self.kernel);
        kernel.maps.at(kernel.generation)
    }

    /// Shows the tables as programs see them to `observer`, after each write.
    pub fn observe(&self, observer: impl FnMut(&Desired) + Send + 'static) {
        lock(&self.kernel).observer = Some(Box::new(observer));
    }

    /// Replaces what the maps hold, as a former agent may have left it.
    pub fn set_tables(&self, tables: Desired) {
        let mut kernel = lock(&self.kernel);
        kernel.attached = tables.links.keys().copied().collect();
        let settled = |value: &u32| Versioned { old: *value, new: *value, since: 0 };
        let endpoint = |e: &EndpointPolicy| Endpoint {
            link: e.link,
            policy: Versioned { old: e.policy, new: e.policy, since: 0 },
        };
        kernel.maps.versions = Versions {
            endpoints: tables.endpoints.iter().map(|(k, e)| (*k, endpoint(e))).collect(),
            link_policy: tables.link_policy.iter().map(|(k, v)| (*k, settled(v))).collect(),
            ip_class: tables.ip_class.iter().map(|(k, v)| (*k, settled(v))).collect(),
            cidr_class: tables.cidr_class.iter().map(|(k, v)| (*k, settled(v))).collect(),
        };
        kernel.maps.tables = tables;
    }

    /// The interfaces that the programs are attached to.
    pub fn attached(&self) -> BTreeSet<u32> {
        lock(&self.kernel).attached.clone()
    }

    /// `state.generation`.
    pub fn generation(&self) -> u32 {
        lock(&self.kernel).generation
    }

    /// `state.epoch`.
    pub fn epoch(&self) -> u32 {
        lock(&self.kernel).epoch
    }

    /// How many writes and removals were tried so far.
    pub fn operations(&self) -> usize {
        lock(&self.kernel).operations
    }
}

impl Dataplane for Fake {
    fn frontends(&mut self) -> &mut dyn Table<FrontendKey, Frontend> {
        &mut self.frontends
    }

    fn slots(&mut self) -> &mut dyn Table<SlotKey, Slot> {
        &mut self.slots
    }

    fn backends(&mut self) -> &mut dyn Table<u32, Backend> {
        &mut self.backends
    }

    fn maglev(&mut self) -> &mut dyn Table<MaglevKey, MaglevPart> {
        &mut self.maglev
    }

    fn services(&mut self) -> &mut dyn Table<u32, ServiceName> {
        &mut self.services
    }

    fn rejected(&mut self) -> &mut dyn Table<u32, RejectedRecord> {
        &mut self.rejected
    }

    fn links(&mut self) -> &mut dyn Table<u32, Link> {
        &mut self.links
    }

    fn uplinks(&mut self) -> Box<dyn Table<u32, Uplink> + '_> {
        Box::new(self.uplinks.clone())
    }

    fn source_ranges(&mut self) -> &mut dyn Table<Prefix<SourceRange>, u32> {
        &mut self.source_ranges
    }

    fn service_cidrs(&mut self) -> &mut dyn Table<Prefix<Block>, u32> {
        &mut self.service_cidrs
    }

    fn policy(&mut self) -> PolicyTables<'_> {
        let FakePolicy {
            endpoints,
            link_policy,
            ip_class,
            cidr_class,
            port_class,
            verdicts,
            policies,
            rules,
            set_members,
            classes,
            pod_names,
        } = &mut self.policy;
        PolicyTables {
            endpoints,
            link_policy,
            ip_class,
            cidr_class,
            port_class,
            verdicts,
            policies,
            rules,
            set_members,
            classes,
            pod_names,
        }
    }

    fn generation(&mut self) -> Result<u32, WriteError> {
        Ok(lock(&self.kernel).generation)
    }

    fn set_generation(&mut self, generation: u32) -> Result<(), WriteError> {
        let mut kernel = lock(&self.kernel);
        kernel.may_fail(maps::STATE.name)?;
        kernel.generation = generation;
        kernel.check(maps::STATE.name);
        Ok(())
    }

    fn raise_epoch(&mut self) -> Result<(), WriteError> {
        let mut kernel = lock(&self.kernel);
        kernel.may_fail(maps::STATE.name)?;
        kernel.epoch = kernel.epoch.wrapping_add(1);
        Ok(())
    }
}

#[derive(Debug)]
struct FakeTable<K, V> {
    kernel: Arc<Mutex<Kernel>>,
    name: &'static str,
    of: fn(&mut Maps) -> &mut BTreeMap<K, V>,
}

// Derived, it would ask for keys and values that can be cloned; and a clone of a `Fake` shares its content.
impl<K, V> Clone for FakeTable<K, V> {
    fn clone(&self) -> Self {
        Self { kernel: Arc::clone(&self.kernel), name: self.name, of: self.of }
    }
}

impl<K, V> FakeTable<K, V> {
    fn new(
        kernel: &Arc<Mutex<Kernel>>,
        spec: &maps::MapSpec,
        of: fn(&mut Maps) -> &mut BTreeMap<K, V>,
    ) -> Self {
        Self { kernel: Arc::clone(kernel), name: spec.name, of }
    }
}

impl<K: Copy + Ord, V: Copy> Table<K, V> for FakeTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn max_entries(&self) -> u32 {
        lock(&self.kernel).max_entries.get(self.name).copied().unwrap_or(0)
    }

    fn entries(&self) -> Result<Vec<(K, V)>, WriteError> {
        let mut kernel = lock(&self.kernel);
        Ok((self.of)(&mut kernel.maps).iter().map(|(k, v)| (*k, *v)).collect())
    }

    fn insert(&mut self, key: &K, value: &V) -> Result<(), WriteError> {
        let max_entries = self.max_entries();
        let mut kernel = lock(&self.kernel);
        let attaches = self.name == maps::LINKS.name;
        if !attaches {
            kernel.may_fail(self.name)?;
        }
        let table = (self.of)(&mut kernel.maps);
        if !table.contains_key(key) && table.len() >= max_entries as usize {
            return Err(WriteError::Full { map: self.name, max_entries });
        }
        table.insert(*key, *value);
        if attaches {
            // The entry first: a failure to attach leaves it there.
            kernel.may_fail(self.name)?;
            kernel.attached = kernel.maps.tables.links.keys().copied().collect();
        }
        kernel.check(self.name);
        Ok(())
    }

    fn remove(&mut self, key: &K) -> Result<(), WriteError> {
        let mut kernel = lock(&self.kernel);
        kernel.may_fail(self.name)?;
        (self.of)(&mut kernel.maps).remove(key);
        if self.name == maps::LINKS.name {
            let Kernel { attached, maps, .. } = &mut *kernel;
            attached.retain(|index| maps.tables.links.contains_key(index));
        }
        kernel.check(self.name);
        Ok(())
    }
}

impl Kernel {
    fn may_fail(&mut self, map: &'static str) -> Result<(), WriteError> {
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

    /// What a packet that comes now relies on, after a write to a map.
    fn check(&mut self, map: &str) {
        if !self.checked {
            return;
        }
        if let Some(observer) = &mut self.observer {
            observer(&self.maps.at(self.generation));
        }
        let tables = &self.maps.tables;
        for (key, frontend) in &tables.frontends {
            let has_wire = frontend.flags & frontend_flags::WIRE_DIFFERS == 0
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
            // Large, and what it leads to is changed by these only: it is never written while it is in force.
            if frontend.maglev != 0 && [maps::FRONTENDS.name, maps::BACKENDS.name].contains(&map) {
                check_table(tables, frontend);
            }
        }
    }
}

/// Each slot of the table leads to a backend of the service.
fn check_table(tables: &Desired, frontend: &Frontend) {
    let mut known = BTreeSet::new();
    for part in 0..maglev::PARTS {
        let key = MaglevKey { table: frontend.maglev, part };
        let found = tables.maglev.get(&key);
        assert!(found.is_some(), "{frontend:?}: {key:?} is missing");
        let slots = found.into_iter().flat_map(|found| found.backends);
        known.extend(slots.take((maglev::SLOTS - part * maglev::PART) as usize));
    }
    for id in known {
        let backend = tables.backends.get(&id);
        assert!(
            backend.is_some_and(|b| b.service == frontend.service),
            "{frontend:?}: its table leads to {id}, {backend:?}"
        );
    }
}

// Derived, it would ask for an observer that can be printed.
impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("maps", &self.maps).field("generation", &self.generation).finish()
    }
}

// A test that failed while it held the lock has said why already.
fn lock(kernel: &Mutex<Kernel>) -> MutexGuard<'_, Kernel> {
    kernel.lock().unwrap_or_else(PoisonError::into_inner)
}
