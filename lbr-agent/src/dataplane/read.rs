//! Reads the maps through their pins: what `lbr show` prints, with or without an agent running.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use lbr_common::flow::Flow;
use lbr_common::maps::{self, MapSpec};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::{Counter, Hook, Verdict, counter_index};

use crate::desired::Desired;

/// The pin folder of an agent, for reading.
#[derive(Clone, Debug)]
pub struct Pinned {
    dir: PathBuf,
}

/// One counter that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Where.
    pub hook: Hook,
    /// What.
    pub verdict: Verdict,
    /// How often and how much, all CPUs together.
    pub counter: Counter,
}

impl Pinned {
    /// Opens the folder. An error if no agent has pinned its maps there.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(
            dir.join(maps::STATE.name).exists(),
            "no lbr maps under {}: is `lbr run` started with this --bpffs folder, and are you root?",
            dir.display()
        );
        Ok(Self { dir: dir.to_owned() })
    }

    /// The content of all maps that the agent writes.
    pub fn tables(&self) -> anyhow::Result<Desired> {
        Ok(Desired {
            frontends: self.hash(&maps::FRONTENDS)?.into_iter().collect(),
            slots: self.hash(&maps::SLOTS)?.into_iter().collect(),
            backends: self.hash(&maps::BACKENDS)?.into_iter().collect(),
            services: self.hash(&maps::SERVICES)?.into_iter().collect(),
            rejected: self.hash(&maps::REJECTED)?.into_iter().collect(),
            links: self.hash(&maps::LINKS)?.into_iter().collect(),
            ..Desired::default()
        })
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
                let sum = values.iter().fold(Counter::default(), |a, b| Counter {
                    packets: a.packets + b.packets,
                    bytes: a.bytes + b.bytes,
                });
                if sum.packets > 0 {
                    counts.push(Count { hook, verdict, counter: sum });
                }
            }
        }
        Ok(counts)
    }

    fn hash<K: Pod, V: Pod>(&self, spec: &MapSpec) -> anyhow::Result<Vec<(K, V)>> {
        let map: HashMap<MapData, K, V> = HashMap::try_from(self.map(spec)?)?;
        let mut entries = Vec::new();
        for entry in map.iter() {
            match entry {
                Ok(entry) => entries.push(entry),
                // Removed or evicted between the key and the value.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error).with_context(|| format!("read map {}", spec.name)),
            }
        }
        Ok(entries)
    }

    fn map(&self, spec: &MapSpec) -> anyhow::Result<Map> {
        let path = self.dir.join(spec.name);
        let data =
            MapData::from_pin(&path).with_context(|| format!("open the pinned map {}", path.display()))?;
        Ok(Map::from_map_data(data)?)
    }
}
