//! The state of a loaded object right after loading, and its restoration.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use lbr_agent::dataplane::Dataplane as _;
use nix::net::if_::if_nameindex;

use super::raw_map::Values;
use super::{Programs, RawMap};
use crate::netns::ip;

/// Folders of settings that hold for all interfaces of the network namespace.
const SETTINGS: [&str; 4] = ["ipv4/conf/default", "ipv4/conf/all", "ipv6/conf/default", "ipv6/conf/all"];

/// Everything that tests change: maps, interfaces, and programs at them. Tests must not change the pods' interfaces,
/// and settings. If settings were restored, the kernel would send packets when it leaves the groups of routers, even
/// by interfaces that are down; the programs there would count them during the next test.
pub(super) struct Pristine {
    maps: Vec<(RawMap, Values)>,
    interfaces: BTreeMap<u32, String>,
    settings: Vec<(PathBuf, String)>,
    /// Names of the pinned links.
    attached: BTreeSet<OsString>,
}

impl Pristine {
    /// Records the state before the entries of the pods' links are written, then writes them.
    pub(super) fn record(programs: &mut Programs) -> Result<Self> {
        let maps = programs.raw_maps()?.into_iter().map(|map| {
            let values = map.record()?;
            Ok((map, values))
        });
        let maps = maps.collect::<Result<_>>()?;
        programs.insert_links()?;
        Ok(Self {
            maps,
            interfaces: interfaces()?,
            settings: settings()?,
            attached: attached(programs.pins())?,
        })
    }

    /// Restores the state. The calling thread is in the namespace.
    pub(super) fn restore(&self, programs: &mut Programs) -> Result<()> {
        self.restore_interfaces(programs).context("interfaces")?;
        for ((path, value), (_, before)) in settings()?.iter().zip(&self.settings) {
            ensure!(value == before, "{} is {}", path.display(), value.trim_end());
        }
        for (map, values) in &self.maps {
            map.restore(values)?;
        }
        programs.insert_links()?;
        let attached = attached(programs.pins())?;
        ensure!(attached == self.attached, "attached are {attached:?}, not {:?}", self.attached);
        programs.meter.start_over()
    }

    /// Removes added interfaces and the programs at them.
    fn restore_interfaces(&self, programs: &mut Programs) -> Result<()> {
        let found = interfaces()?;
        for (index, name) in &self.interfaces {
            ensure!(found.get(index) == Some(name), "interface {name} is gone");
        }
        // Also indexes that only have an entry.
        let mut indexes: BTreeSet<u32> = found.keys().copied().collect();
        indexes.extend(programs.kernel.tables().links.entries()?.into_iter().map(|(index, _)| index));
        for index in indexes.iter().filter(|index| !self.interfaces.contains_key(index)) {
            programs.kernel.tables().links.remove(index)?;
        }
        indexes.extend(programs.kernel.tables().uplinks.entries()?.into_iter().map(|(index, _)| index));
        for index in &indexes {
            programs.kernel.tables().uplinks.remove(index)?;
        }
        let added = found.iter().filter(|(index, _)| !self.interfaces.contains_key(index));
        let lines: Vec<_> = added.map(|(_, name)| format!("link del {name}")).collect();
        if lines.is_empty() { Ok(()) } else { ip(lines) }
    }
}

/// Names of all interfaces of the namespace, by index.
fn interfaces() -> Result<BTreeMap<u32, String>> {
    let all = if_nameindex().context("list interfaces")?;
    Ok(all.iter().map(|one| (one.index(), one.name().to_string_lossy().into_owned())).collect())
}

/// Values of [`SETTINGS`], in its order.
fn settings() -> Result<Vec<(PathBuf, String)>> {
    let mut all = Vec::new();
    for folder in SETTINGS {
        let folder = Path::new("/proc/sys/net").join(folder);
        let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        for path in entries.map(|entry| Ok(entry?.path())).collect::<Result<BTreeSet<_>>>()? {
            // Some cannot be read before they have been set.
            if let Ok(value) = fs::read_to_string(&path) {
                all.push((path, value));
            }
        }
    }
    Ok(all)
}

fn attached(pins: &Path) -> Result<BTreeSet<OsString>> {
    let folder = pins.join("attached");
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}
