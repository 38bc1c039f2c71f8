//! Maps as bytes: code for all maps of the object, which also covers new maps.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Map, MapData, MapType, RingBuf};

use super::sys::entries::{self, Shape};

/// A map of the loaded object, of any type.
pub struct RawMap {
    name: String,
    data: MapData,
    kind: Kind,
    shape: Shape,
    max_entries: u32,
}

/// How a map of this type is read and cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Array,
    Hash,
    Trie,
    Ring,
    /// Programs that call each other; only the loader writes it.
    Programs,
}

/// All values of an array; empty for other maps, which are empty after loading.
pub(super) struct Values(Vec<u8>);

impl RawMap {
    /// Opens a map by its pin.
    pub(super) fn pinned(pins: &Path, name: &str) -> Result<Self> {
        Self::new(name, MapData::from_pin(pins.join(name)).with_context(|| format!("open map {name}"))?)
    }

    /// Opens a map that the object holds.
    pub(super) fn loaded(name: &str, map: &Map) -> Result<Self> {
        let (Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::LpmTrie(data)
        | Map::RingBuf(data)
        | Map::ProgramArray(data)) = map
        else {
            bail!("nothing is known of maps as {name} is one: {map:?}");
        };
        Self::new(name, MapData::from_id(data.info()?.id())?)
    }

    fn new(name: &str, data: MapData) -> Result<Self> {
        let info = data.info().with_context(|| format!("map {name}"))?;
        let map_type = info.map_type()?;
        let kind = match map_type {
            MapType::Array | MapType::PerCpuArray => Kind::Array,
            MapType::Hash | MapType::LruHash | MapType::PerCpuHash | MapType::LruPerCpuHash => Kind::Hash,
            MapType::LpmTrie => Kind::Trie,
            MapType::RingBuf => Kind::Ring,
            MapType::ProgramArray => Kind::Programs,
            other => bail!("nothing is known of maps as {name} is one: {other:?}"),
        };
        let value = info.value_size() as usize;
        let of_each_cpu =
            matches!(map_type, MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash);
        let value = if of_each_cpu { value.next_multiple_of(8) * cpus()? } else { value };
        let shape = Shape { key: info.key_size() as usize, value };
        Ok(Self { name: name.to_owned(), data, kind, shape, max_entries: info.max_entries() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Keys and values, one by one in the order of the keys. A ring with content gives one entry without key and
    /// value; programs give none.
    pub fn entries(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut entries = Vec::new();
        match self.kind {
            Kind::Programs => {}
            Kind::Ring => {
                if entries::is_readable(self.fd()).with_context(|| self.name.clone())? {
                    entries.push((Vec::new(), Vec::new()));
                }
            }
            Kind::Array | Kind::Hash | Kind::Trie => {
                let mut key = self.next_key(None)?;
                while let Some(found) = key {
                    let value = entries::lookup(self.fd(), self.shape, &found);
                    key = self.next_key(Some(&found))?;
                    entries.push((found, value.with_context(|| format!("read map {}", self.name))?));
                }
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// Data for [`Self::restore`]. Right after loading, all maps except arrays are empty.
    pub(super) fn record(&self) -> Result<Values> {
        if self.kind == Kind::Array {
            return self.values().map(Values);
        }
        ensure!(self.entries()?.is_empty(), "map {} is not empty after loading", self.name);
        Ok(Values(Vec::new()))
    }

    /// Restores the map's recorded content.
    pub(super) fn restore(&self, before: &Values) -> Result<()> {
        let what = || format!("clear map {}", self.name);
        match self.kind {
            Kind::Programs => Ok(()),
            // Constants are frozen, and never differ.
            Kind::Array if self.values()? == before.0 => Ok(()),
            Kind::Array => entries::set_array(self.fd(), self.shape, &before.0).with_context(what),
            Kind::Hash => entries::clear_hash(self.fd(), self.shape).with_context(what),
            Kind::Trie => {
                while let Some(key) = self.next_key(None)? {
                    entries::delete(self.fd(), self.shape, &key).with_context(what)?;
                }
                Ok(())
            }
            Kind::Ring => {
                let again = MapData::from_id(self.data.info()?.id()).with_context(what)?;
                let mut ring = RingBuf::try_from(Map::RingBuf(again)).with_context(what)?;
                while ring.next().is_some() {}
                Ok(())
            }
        }
    }

    fn values(&self) -> Result<Vec<u8>> {
        let values = entries::array(self.fd(), self.shape, self.max_entries);
        values.with_context(|| format!("read map {}", self.name))
    }

    fn next_key(&self, key: Option<&[u8]>) -> Result<Option<Vec<u8>>> {
        entries::next_key(self.fd(), self.shape, key)
            .with_context(|| format!("read keys of map {}", self.name))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.data.fd().as_fd()
    }
}

fn cpus() -> Result<usize> {
    aya::util::nr_cpus().map_err(|(what, error)| anyhow::Error::new(error).context(what))
}
