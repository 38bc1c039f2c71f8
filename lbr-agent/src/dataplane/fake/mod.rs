//! A data plane in memory whose writes fail now and then, for tests.
//!
//! It knows three facts of the kernel: a map has a size, inserting a link attaches to it, and a packet can
//! come between any two writes. The last one is why every write is followed by a look at the tables: if a
//! frontend leads nowhere, the test ends there.

mod kernel;
mod table;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use lbr_common::addr::Addr;
use lbr_common::link::{Link, Uplink};
use lbr_common::maglev::{MaglevKey, MaglevPart};
use lbr_common::maps;
use lbr_common::policy::{Allow, Block, Endpoint, Ports, Prefix, VerdictKey, Versioned};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange};
use lbr_common::text::{
    ClassRecord, Member, MemberKey, PodName, PolicyRecord, RejectedRecord, RuleKey, RuleText, ServiceName,
};

use self::kernel::{Kernel, Maps, lock};
use self::table::FakeTable;
use super::{Dataplane, Hints, PolicyTables, Table, Versions, WriteError};
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
    pub fn observe(&self, mut observer: impl FnMut(&Desired) + Send + 'static) {
        self.observe_epoch(move |tables, _| observer(tables));
    }

    /// The same, with `state.epoch`.
    pub fn observe_epoch(&self, observer: impl FnMut(&Desired, u32) + Send + 'static) {
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

    fn set_hints(&mut self, _hints: Hints) -> Result<(), WriteError> {
        lock(&self.kernel).may_fail(maps::STATE.name)
    }

    fn raise_epoch(&mut self) -> Result<(), WriteError> {
        let mut kernel = lock(&self.kernel);
        kernel.may_fail(maps::STATE.name)?;
        kernel.epoch = kernel.epoch.wrapping_add(1);
        Ok(())
    }
}
