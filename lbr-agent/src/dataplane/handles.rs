//! Maps as typed tables.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use lbr_common::link::{Link, Uplink};
use lbr_common::maps::MapSpec;
use lbr_common::policy::Prefix;

use super::attach::{Attacher, Side};
use super::batch;
use super::pins::Pins;
use super::{Table, WriteError};

/// A hash map that the agent writes.
pub(super) struct MapTable<K: Pod, V: Pod> {
    map: HashMap<MapData, K, V>,
    /// The same map, for many entries at once.
    fd: OwnedFd,
    name: &'static str,
    max_entries: u32,
}

impl<K: Pod, V: Pod> MapTable<K, V> {
    pub(super) fn open(pins: &Pins, spec: &MapSpec) -> anyhow::Result<Self> {
        let map = open(pins, spec)?;
        let Map::HashMap(data) = &map else { anyhow::bail!("map {} is not a hash map", spec.name) };
        // The pinned map's size: an earlier run may have made it with another one.
        let max_entries = data.info().with_context(|| format!("map {}", spec.name))?.max_entries();
        let fd = data.fd().as_fd().try_clone_to_owned().with_context(|| format!("map {}", spec.name))?;
        let map = HashMap::try_from(map).with_context(|| format!("map {}", spec.name))?;
        Ok(Self { map, fd, name: spec.name, max_entries })
    }

    fn error(&self, error: MapError) -> WriteError {
        write_error(self.name, self.max_entries, error)
    }
}

impl<K: Pod, V: Pod> Table<K, V> for MapTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn max_entries(&self) -> u32 {
        self.max_entries
    }

    fn entries(&self) -> Result<Vec<(K, V)>, WriteError> {
        self.map.iter().collect::<Result<_, _>>().map_err(|error| self.error(error))
    }

    fn insert(&mut self, key: &K, value: &V) -> Result<(), WriteError> {
        self.map.insert(key, value, 0).map_err(|error| self.error(error))
    }

    fn insert_many(&mut self, entries: &[(K, V)]) -> usize {
        batch::insert(self.fd.as_fd(), entries)
    }

    fn remove(&mut self, key: &K) -> Result<(), WriteError> {
        ignore_absent(self.map.remove(key).map_err(|error| self.error(error)))
    }
}

/// A map that is searched for the longest prefix.
pub(super) struct LpmTable<K: Pod, V: Pod> {
    map: LpmTrie<MapData, K, V>,
    name: &'static str,
    max_entries: u32,
}

impl<K: Pod, V: Pod> LpmTable<K, V> {
    pub(super) fn open(pins: &Pins, spec: &MapSpec) -> anyhow::Result<Self> {
        let map = open(pins, spec)?;
        let Map::LpmTrie(data) = &map else { anyhow::bail!("map {} is not an LPM trie", spec.name) };
        let max_entries = data.info().with_context(|| format!("map {}", spec.name))?.max_entries();
        let map = LpmTrie::try_from(map).with_context(|| format!("map {}", spec.name))?;
        Ok(Self { map, name: spec.name, max_entries })
    }

    fn error(&self, error: MapError) -> WriteError {
        write_error(self.name, self.max_entries, error)
    }
}

impl<K: Pod, V: Pod> Table<Prefix<K>, V> for LpmTable<K, V> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn max_entries(&self) -> u32 {
        self.max_entries
    }

    fn entries(&self) -> Result<Vec<(Prefix<K>, V)>, WriteError> {
        let prefix = |key: Key<K>| Prefix { data: key.data(), len: key.prefix_len() };
        let entries = self.map.iter().map(|entry| entry.map(|(key, value)| (prefix(key), value)));
        entries.collect::<Result<_, _>>().map_err(|error| self.error(error))
    }

    fn insert(&mut self, key: &Prefix<K>, value: &V) -> Result<(), WriteError> {
        self.map.insert(&Key::new(key.len, key.data), value, 0).map_err(|error| self.error(error))
    }

    fn remove(&mut self, key: &Prefix<K>) -> Result<(), WriteError> {
        ignore_absent(self.map.remove(&Key::new(key.len, key.data)).map_err(|error| self.error(error)))
    }
}

fn write_error(map: &'static str, max_entries: u32, error: MapError) -> WriteError {
    let source = match error {
        MapError::SyscallError(call) => call.io_error,
        MapError::KeyNotFound => std::io::Error::from_raw_os_error(libc::ENOENT),
        other => std::io::Error::other(other),
    };
    match source.raw_os_error() {
        // A trie says ENOSPC where a hash map says E2BIG.
        Some(libc::E2BIG | libc::ENOSPC) => WriteError::Full { map, max_entries },
        _ => WriteError::Io { map, source },
    }
}

/// Removing an absent entry is no error.
fn ignore_absent(result: Result<(), WriteError>) -> Result<(), WriteError> {
    match result {
        Err(WriteError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// Opens a pinned map. The programs that are still being loaded have descriptors of their own.
pub(super) fn open(pins: &Pins, spec: &MapSpec) -> anyhow::Result<Map> {
    let open = || Map::from_map_data(MapData::from_pin(pins.map(spec.name))?);
    open().with_context(|| format!("open map {}", spec.name))
}

/// The value of a map whose entries are interfaces that the programs are attached to.
pub(super) trait Attached: Pod {
    /// Which programs.
    const SIDE: Side;
}

impl Attached for Link {
    const SIDE: Side = Side::Pod;
}

impl Attached for Uplink {
    const SIDE: Side = Side::Uplink;
}

/// Such a map, together with the programs at the interfaces.
pub(super) struct AttachedTable<'a, V: Attached> {
    table: &'a mut MapTable<u32, V>,
    attacher: &'a RefCell<Option<Attacher>>,
}

impl<'a, V: Attached> AttachedTable<'a, V> {
    pub(super) fn new(table: &'a mut MapTable<u32, V>, attacher: &'a RefCell<Option<Attacher>>) -> Self {
        Self { table, attacher }
    }

    /// Does something with the attacher. Until the programs are loaded there is none.
    fn attacher(&self, run: impl FnOnce(&mut Attacher) -> io::Result<()>) -> Result<(), WriteError> {
        let not_yet = || io::Error::other("its programs are not loaded yet");
        let result = self.attacher.borrow_mut().as_mut().ok_or_else(not_yet).and_then(run);
        result.map_err(|source| WriteError::Io { map: self.table.name, source })
    }
}

impl<V: Attached> Table<u32, V> for AttachedTable<'_, V> {
    fn name(&self) -> &'static str {
        self.table.name()
    }

    fn max_entries(&self) -> u32 {
        self.table.max_entries()
    }

    /// Also of interfaces that are not attached (any more): programs believe the map, so the agent must remove the entry of
    /// an interface that went away while no agent ran.
    fn entries(&self) -> Result<Vec<(u32, V)>, WriteError> {
        self.table.entries()
    }

    fn insert(&mut self, key: &u32, value: &V) -> Result<(), WriteError> {
        self.table.insert(key, value)?;
        self.attacher(|attacher| {
            attacher.attach(V::SIDE, *key)?;
            if V::SIDE == Side::Uplink {
                attacher.attach_xdp(*key);
            }
            Ok(())
        })
    }

    fn remove(&mut self, key: &u32) -> Result<(), WriteError> {
        self.attacher(|attacher| attacher.detach(V::SIDE, *key))?;
        self.table.remove(key)
    }
}
