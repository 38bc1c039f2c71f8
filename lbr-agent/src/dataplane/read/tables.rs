//! The maps that the agent writes, as the plain data that it writes them from.

use std::collections::BTreeMap;

use aya::Pod;
use lbr_common::maps::{self, MapSpec};
use lbr_common::policy::Prefix;

use super::Pinned;
use crate::dataplane::Content;
use crate::desired::Desired;

/// Tries to read a state in which no policy change comes into force meanwhile.
const TRIES: usize = 3;

impl Pinned {
    /// The content of all maps that the agent writes.
    pub fn tables(&self) -> anyhow::Result<Desired> {
        self.tables_of(&maps::PINNED)
    }

    /// The content of these maps, as far as the agent writes them; all others are left empty.
    pub fn tables_of(&self, wanted: &[MapSpec]) -> anyhow::Result<Desired> {
        let mut generation = self.state()?.generation;
        for _ in 1..TRIES {
            let tables = self.read(wanted, generation)?;
            let after = self.state()?.generation;
            if after == generation {
                return Ok(tables);
            }
            // The versions in the maps cover one switch of the generation during a read, not a second one.
            generation = after;
        }
        self.read(wanted, generation)
    }

    fn read(&self, wanted: &[MapSpec], generation: u32) -> anyhow::Result<Desired> {
        let content = Content::read(&Reader { pinned: self, wanted })?;
        Ok(content.in_force(generation))
    }
}

macro_rules! readers {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        impl Content {
            fn read(from: &Reader<'_>) -> anyhow::Result<Self> {
                Ok(Self { $($field: from.$shape(&maps::$spec)?,)* })
            }
        }
    };
}
lbr_common::agent_maps!(readers);

struct Reader<'a> {
    pinned: &'a Pinned,
    wanted: &'a [MapSpec],
}

/// By the shape of the map.
impl Reader<'_> {
    fn hash<K: Pod + Ord, V: Pod>(&self, spec: &MapSpec) -> anyhow::Result<BTreeMap<K, V>> {
        if self.skips(spec) {
            return Ok(BTreeMap::new());
        }
        Ok(self.pinned.hash(spec)?.into_iter().collect())
    }

    fn lpm<K: Pod + Ord, V: Pod>(&self, spec: &MapSpec) -> anyhow::Result<BTreeMap<Prefix<K>, V>> {
        if self.skips(spec) {
            return Ok(BTreeMap::new());
        }
        Ok(self.pinned.trie(spec)?.into_iter().collect())
    }

    fn skips(&self, spec: &MapSpec) -> bool {
        !self.wanted.iter().any(|wanted| wanted.name == spec.name)
    }
}
