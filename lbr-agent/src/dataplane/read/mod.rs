//! Reads the maps through their pins, for the commands that print them. No agent needs to run.

mod attached;
mod events;
mod tables;
mod walk;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use lbr_common::flow::Flow;
use lbr_common::id::ServiceId;
use lbr_common::maps::{self, MapSpec};
use lbr_common::policy::{DenialKey, Prefix};
use lbr_common::service::{State, Traffic};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::{Counter, Hook, Verdict, counter_index};

use super::pins::ATTACHED;
use super::xdp::{XdpMode, parse_pin_name};
use super::{bpffs, owner, record};

pub use attached::Attached;
pub use events::Events;
pub use walk::{Fill, Walk};

/// The pin folder of an agent, for reading.
#[derive(Clone, Debug)]
pub struct Pinned {
    dir: PathBuf,
}

/// One counter that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The hook.
    pub hook: Hook,
    /// The verdict.
    pub verdict: Verdict,
    /// Packets and bytes, all CPUs together.
    pub counter: Counter,
}

impl Pinned {
    /// Opens the folder. An error if no agent has pinned its maps there.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        bpffs::check_pinned(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The last report of the agent, if it left one.
    pub fn report(&self) -> Option<String> {
        record::read(&self.dir)
    }

    /// Whether an agent runs on this folder.
    pub fn is_owned(&self) -> anyhow::Result<bool> {
        owner::is_held(&self.dir)
    }

    /// All flows, both directions.
    pub fn flows(&self) -> anyhow::Result<Vec<(Tuple, Flow)>> {
        self.hash(&maps::FLOWS)
    }

    /// Counters that are not zero, in order of hook and verdict.
    pub fn counters(&self) -> anyhow::Result<Vec<Count>> {
        let map: PerCpuArray<MapData, Counter> = PerCpuArray::try_from(self.map(&maps::COUNTERS)?)?;
        let mut counts = Vec::new();
        for hook in Hook::ALL {
            for &verdict in Verdict::ALL {
                let values = map.get(&counter_index(hook, verdict), 0).context("read map counters")?;
                let counter = sum(values.iter());
                if counter.packets > 0 {
                    counts.push(Count { hook, verdict, counter });
                }
            }
        }
        Ok(counts)
    }

    /// Denials by policy, and would-be denials of audited ones, all CPUs together.
    pub fn denials(&self) -> anyhow::Result<Vec<(DenialKey, Counter)>> {
        let map: PerCpuHashMap<MapData, DenialKey, Counter> =
            PerCpuHashMap::try_from(self.map(&maps::DENIALS)?)?;
        let counts = entries(map.iter(), &maps::DENIALS)?;
        Ok(counts.into_iter().map(|(key, values)| (key, sum(values.iter()))).collect())
    }

    /// Traffic of each Service port by its id, all CPUs together.
    pub fn traffic(&self) -> anyhow::Result<Vec<(ServiceId, Traffic)>> {
        let map: PerCpuHashMap<MapData, ServiceId, Traffic> =
            PerCpuHashMap::try_from(self.map(&maps::TRAFFIC)?)?;
        let add = |all: Traffic, one: &Traffic| Traffic {
            connections: all.connections + one.connections,
            request_packets: all.request_packets + one.request_packets,
            request_bytes: all.request_bytes + one.request_bytes,
            response_packets: all.response_packets + one.response_packets,
            response_bytes: all.response_bytes + one.response_bytes,
        };
        let counts = entries(map.iter(), &maps::TRAFFIC)?;
        Ok(counts.into_iter().map(|(id, values)| (id, values.iter().fold(Traffic::default(), add))).collect())
    }

    /// Denials as they happen. An event goes to one reader only.
    pub fn events(&self) -> anyhow::Result<Events> {
        Events::open(self.map(&maps::EVENTS)?)
    }

    /// Uplinks with the XDP program, and its mode.
    pub fn xdp(&self) -> anyhow::Result<BTreeMap<u32, XdpMode>> {
        let folder = self.dir.join(ATTACHED);
        let entries = std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        let mut modes = BTreeMap::new();
        for entry in entries {
            modes.extend(parse_pin_name(&entry?.file_name().to_string_lossy()));
        }
        Ok(modes)
    }

    fn state(&self) -> anyhow::Result<State> {
        let map: Array<MapData, State> = Array::try_from(self.map(&maps::STATE)?)?;
        map.get(&0, 0).context("read map state")
    }

    fn hash<K: Pod, V: Pod>(&self, spec: &MapSpec) -> anyhow::Result<Vec<(K, V)>> {
        let map: HashMap<MapData, K, V> = HashMap::try_from(self.map(spec)?)?;
        entries(map.iter(), spec)
    }

    fn trie<K: Pod, V: Pod>(&self, spec: &MapSpec) -> anyhow::Result<Vec<(Prefix<K>, V)>> {
        let map: LpmTrie<MapData, K, V> = LpmTrie::try_from(self.map(spec)?)?;
        let entries = entries(map.iter(), spec)?;
        let prefix = |key: Key<K>| Prefix { data: key.data(), len: key.prefix_len() };
        Ok(entries.into_iter().map(|(key, value)| (prefix(key), value)).collect())
    }

    fn map(&self, spec: &MapSpec) -> anyhow::Result<Map> {
        let path = self.dir.join(spec.name);
        let data =
            MapData::from_pin(&path).with_context(|| format!("open the pinned map {}", path.display()))?;
        Ok(Map::from_map_data(data)?)
    }
}

fn entries<K, V>(
    map: impl Iterator<Item = Result<(K, V), MapError>>,
    spec: &MapSpec,
) -> anyhow::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    for entry in map {
        match entry {
            Ok(entry) => entries.push(entry),
            // Removed or evicted between the key and the value.
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).with_context(|| format!("read map {}", spec.name)),
        }
    }
    Ok(entries)
}

fn sum<'a>(counters: impl Iterator<Item = &'a Counter>) -> Counter {
    counters
        .fold(Counter::default(), |a, b| Counter { packets: a.packets + b.packets, bytes: a.bytes + b.bytes })
}
