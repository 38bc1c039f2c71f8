//! One map of the fake.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lbr_common::maps;

use super::kernel::{Kernel, lock};
use crate::dataplane::{Content, Table, WriteError};

#[derive(Debug)]
pub(super) struct FakeTable<K, V> {
    kernel: Arc<Mutex<Kernel>>,
    name: &'static str,
    of: fn(&mut Content) -> &mut BTreeMap<K, V>,
}

// A derived impl would require `Clone` of keys and values. A clone of a `Fake` shares its content.
impl<K, V> Clone for FakeTable<K, V> {
    fn clone(&self) -> Self {
        Self { kernel: Arc::clone(&self.kernel), name: self.name, of: self.of }
    }
}

impl<K, V> FakeTable<K, V> {
    pub(super) fn new(
        kernel: &Arc<Mutex<Kernel>>,
        spec: &maps::MapSpec,
        of: fn(&mut Content) -> &mut BTreeMap<K, V>,
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
        Ok((self.of)(&mut kernel.content).iter().map(|(k, v)| (*k, *v)).collect())
    }

    fn insert(&mut self, key: &K, value: &V) -> Result<(), WriteError> {
        let max_entries = self.max_entries();
        let mut kernel = lock(&self.kernel);
        let attaches = self.name == maps::LINKS.name;
        if !attaches {
            kernel.may_fail(self.name)?;
        }
        let table = (self.of)(&mut kernel.content);
        if !table.contains_key(key) && table.len() >= max_entries as usize {
            return Err(WriteError::Full { map: self.name, max_entries });
        }
        table.insert(*key, *value);
        if attaches {
            // The entry first: a failure to attach leaves it there.
            kernel.may_fail(self.name)?;
            kernel.attached = kernel.content.links.keys().copied().collect();
        }
        kernel.check(self.name);
        Ok(())
    }

    fn remove(&mut self, key: &K) -> Result<(), WriteError> {
        let mut kernel = lock(&self.kernel);
        kernel.may_fail(self.name)?;
        (self.of)(&mut kernel.content).remove(key);
        if self.name == maps::LINKS.name {
            let Kernel { attached, content, .. } = &mut *kernel;
            attached.retain(|index| content.links.contains_key(index));
        }
        kernel.check(self.name);
        Ok(())
    }
}
