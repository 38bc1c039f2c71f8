//! A data plane in memory whose writes fail now and then, for tests.
//!
//! It models three facts of the kernel: a map has a size, inserting a link attaches programs, and a packet can arrive
//! between any two writes. For the last one it checks the tables after every write, and a test ends where a frontend
//! leads nowhere.

mod kernel;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use lbr_common::id::BackendId;
use lbr_common::maps;
use lbr_common::policy::Prefix;
use lbr_common::service::Backend;

use self::kernel::{Kernel, lock};
use self::table::FakeTable;
use super::{Concerned, Content, Dataplane, Hints, Tables, WriteError};
use crate::desired::{Desired, key};

/// How many of 100 writes fail unless a test says otherwise.
pub const DEFAULT_FAULTS: u32 = 10;

/// The fake. Clones share their content.
#[derive(Clone, Debug)]
pub struct Fake {
    kernel: Arc<Mutex<Kernel>>,
    tables: FakeTables,
}

macro_rules! borrow {
    (attached $table:expr) => {
        Box::new($table.clone())
    };
    ($role:ident $table:expr) => {
        &mut $table
    };
}

macro_rules! fake_tables {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        #[derive(Clone, Debug)]
        struct FakeTables {
            $($field: FakeTable<key!($shape $key), $value>,)*
        }

        impl FakeTables {
            fn new(kernel: &Arc<Mutex<Kernel>>) -> Self {
                Self { $($field: FakeTable::new(kernel, &maps::$spec, |content| &mut content.$field),)* }
            }

            fn borrow(&mut self) -> Tables<'_> {
                Tables { $($field: borrow!($role self.$field),)* }
            }
        }
    };
}
lbr_common::agent_maps!(fake_tables);

impl Fake {
    /// Empty maps of the default sizes. The order of faults follows from the seed.
    pub fn new(seed: u64) -> Self {
        let sizes = maps::PINNED.iter().map(|m| (m.name, u32::try_from(m.max_entries).unwrap_or(u32::MAX)));
        let kernel = Kernel {
            content: Content::default(),
            observer: None,
            attached: BTreeSet::new(),
            epoch: 0,
            concerned: Vec::new(),
            generation: 0,
            max_entries: sizes.collect(),
            faults: DEFAULT_FAULTS,
            random: seed,
            operations: 0,
            checked: true,
            looks_at_sockets: 0,
            aborts: true,
            is_loading: false,
            refuses_programs: false,
        };
        let kernel = Arc::new(Mutex::new(kernel));
        Self { tables: FakeTables::new(&kernel), kernel }
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

    /// Whether it checks the tables after every write: not while a test breaks them on purpose.
    pub fn set_checked(&self, checked: bool) {
        lock(&self.kernel).checked = checked;
    }

    /// The content of the maps as programs see it.
    pub fn in_force(&self) -> Desired {
        let kernel = lock(&self.kernel);
        kernel.content.clone().in_force(kernel.generation)
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
        kernel.content = Content::settled(tables);
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

    /// The flows that the changes concerned since this was asked last, in the order in which the epoch was raised.
    pub fn take_concerned(&self) -> Vec<Concerned> {
        std::mem::take(&mut lock(&self.kernel).concerned)
    }

    /// How often sockets were looked at so far.
    pub fn looks_at_sockets(&self) -> usize {
        lock(&self.kernel).looks_at_sockets
    }

    /// Whether looking at sockets succeeds.
    pub fn set_aborts(&self, succeeds: bool) {
        lock(&self.kernel).aborts = succeeds;
    }

    /// From now on the programs are not loaded, until they are attached, or `refused`.
    pub fn set_loading(&self, refused: bool) {
        let mut kernel = lock(&self.kernel);
        kernel.is_loading = true;
        kernel.refuses_programs = refused;
    }

    /// How many writes and removals were tried so far.
    pub fn operations(&self) -> usize {
        lock(&self.kernel).operations
    }
}

impl Dataplane for Fake {
    fn tables(&mut self) -> Tables<'_> {
        self.tables.borrow()
    }

    fn can_attach(&self) -> bool {
        !lock(&self.kernel).is_loading
    }

    fn attach_programs(&mut self) -> anyhow::Result<BTreeMap<String, u32>> {
        let mut kernel = lock(&self.kernel);
        anyhow::ensure!(!kernel.refuses_programs, "the kernel refuses the programs");
        kernel.is_loading = false;
        Ok(BTreeMap::from([("from_pod".to_owned(), 1)]))
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

    fn raise_epoch(&mut self, flows: &Concerned) -> Result<(), WriteError> {
        let mut kernel = lock(&self.kernel);
        kernel.may_fail(maps::STATE.name)?;
        kernel.epoch = kernel.epoch.wrapping_add(1);
        kernel.concerned.push(flows.clone());
        Ok(())
    }

    /// There are no sockets.
    fn abort_sockets(&mut self, backends: &BTreeMap<BackendId, Backend>) -> std::io::Result<usize> {
        let mut kernel = lock(&self.kernel);
        kernel.looks_at_sockets += 1;
        assert!(*backends == kernel.content.backends, "not what the programs read");
        if kernel.aborts { Ok(0) } else { Err(std::io::ErrorKind::Interrupted.into()) }
    }
}
