//! Which policies, blocks and addresses do not fit into the maps, found before anything is written.
//!
//! Whatever is left out, no connection may be allowed that the policies deny:
//! - A set is written whole or not at all. See `hold` for what its pods get.
//! - `cidr_class` changes whole or not at all: a block that is missing takes the class of the block around it,
//!   which may have an `except` there. The former classes are safe with the new sets: the number of a class never
//!   changes its meaning.
//! - An address without room in `ip_class` has the class of its block, which no selector of pods matches.
//! - A pod without room in `endpoints` is not judged by its address. Isolated pods come first, and for those without room
//!   the programs use `link_policy` (verdict `NotJudged`).

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::id::{ClassId, PolicySetId};
use lbr_common::policy::{Block, Prefix, policy_flags};

use super::Policies;
use crate::dataplane::{Table, Tables, WriteError};
use crate::desired::{Desired, EndpointPolicy};
use crate::table::{Absent, Staged};

/// A map that is too small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Its name.
    pub map: &'static str,
    /// Its size.
    pub max_entries: u32,
}

impl Full {
    fn of<K, V>(table: &dyn Table<K, V>) -> Self {
        Self { map: table.name(), max_entries: table.max_entries() }
    }

    /// The error of a write that was not tried.
    pub fn error(self) -> WriteError {
        WriteError::Full { map: self.map, max_entries: self.max_entries }
    }
}

/// Entries that do not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Sets, by number.
    pub sets: BTreeMap<PolicySetId, Full>,
    /// The blocks of all policies.
    pub blocks: Option<Full>,
    /// Addresses that get no class.
    pub(super) classes: Option<(Full, BTreeSet<Addr>)>,
    /// Addresses of this node without an entry.
    pub(super) endpoints: Option<(Full, BTreeSet<Addr>)>,
    /// Pods' links without an entry.
    pub(super) links: Option<(Full, BTreeSet<u32>)>,
}

impl Shortage {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Entries that are desired and not in the maps; of sets, the number of the set of each.
struct New {
    ports: Vec<PolicySetId>,
    verdicts: Vec<PolicySetId>,
    blocks: Vec<(Prefix<Block>, ClassId)>,
    classes: Vec<(Addr, ClassId)>,
    endpoints: Vec<(Addr, EndpointPolicy)>,
    links: Vec<(u32, u32)>,
}

/// Finds what of this does not fit.
pub(super) fn of_desired(state: &Policies, desired: &Desired, tables: &Tables<'_>) -> Shortage {
    fn new<K: Copy + Ord, T: Absent<K>>(desired: &BTreeMap<K, T>, staged: &Staged<K, T>) -> Vec<(K, T)> {
        let new = desired.iter().filter(|(key, _)| !staged.has(key));
        new.map(|(key, value)| (*key, *value)).collect()
    }
    let maps = &state.maps;
    let (ports, verdicts) = (maps.port_class.actual(), maps.verdicts.actual());
    let ports = desired.port_class.keys().filter(|key| !ports.contains_key(key));
    let verdicts = desired.verdicts.keys().filter(|key| !verdicts.contains_key(key));
    let new = New {
        ports: ports.map(|key| key.data.set).collect(),
        verdicts: verdicts.map(|key| key.set).collect(),
        blocks: new(&desired.cidr_class, &maps.cidr_class),
        classes: new(&desired.ip_class, &maps.ip_class),
        endpoints: new(&desired.endpoints, &maps.endpoints),
        links: new(&desired.link_policy, &maps.link_policy),
    };
    find(state, new, tables)
}

/// Finds what of the desired content does not fit.
pub(super) fn of_maps(state: &Policies, tables: &Tables<'_>) -> Shortage {
    let maps = &state.maps;
    let new = New {
        ports: maps.port_class.new_keys().map(|key| key.data.set).collect(),
        verdicts: maps.verdicts.new_keys().map(|key| key.set).collect(),
        blocks: maps.cidr_class.new_entries(),
        classes: maps.ip_class.new_entries(),
        endpoints: maps.endpoints.new_entries(),
        links: maps.link_policy.new_entries(),
    };
    find(state, new, tables)
}

/// Present entries stay until the desired ones are in force, so both need room.
fn find(state: &Policies, new: New, tables: &Tables<'_>) -> Shortage {
    let (maps, mut shortage) = (&state.maps, Shortage::default());
    lacking(new.verdicts, maps.verdicts.len(), &*tables.verdicts, &mut shortage.sets);
    lacking(new.ports, maps.port_class.len(), &*tables.port_class, &mut shortage.sets);
    shortage.blocks =
        without_room(new.blocks, maps.cidr_class.len(), &*tables.cidr_class, |_| 0).map(|(full, _)| full);
    shortage.classes = without_room(new.classes, maps.ip_class.len(), &*tables.ip_class, |_| 0);
    let rank_of = |endpoint: &EndpointPolicy| rank(endpoint.policy.flags);
    shortage.endpoints = without_room(new.endpoints, maps.endpoints.len(), &*tables.endpoints, rank_of);
    let rank_of = |flags: &u32| rank(*flags);
    shortage.links = without_room(new.links, maps.link_policy.len(), &*tables.link_policy, rank_of);
    shortage
}

/// Order in which endpoints get room: pods with policies, then other pods and the node, then pods that are not known yet.
fn rank(flags: u32) -> u32 {
    const JUDGED: u32 = policy_flags::ISOLATED_IN
        | policy_flags::ISOLATED_OUT
        | policy_flags::AUDIT_IN
        | policy_flags::AUDIT_OUT;
    match flags {
        flags if flags & JUDGED != 0 => 0,
        flags if flags & policy_flags::PENDING == 0 => 1,
        _ => 2,
    }
}

/// Adds the sets that do not fit. `sets_of_new`: the set of each new entry. Lower numbers, which are older, get room first.
fn lacking<K, V>(
    sets_of_new: Vec<PolicySetId>,
    there: usize,
    table: &dyn Table<K, V>,
    sets: &mut BTreeMap<PolicySetId, Full>,
) {
    let full = Full::of(table);
    let mut left = (full.max_entries as usize).saturating_sub(there);
    let mut needs: BTreeMap<PolicySetId, usize> = BTreeMap::new();
    for set in sets_of_new {
        *needs.entry(set).or_default() += 1;
    }
    for (set, need) in needs {
        if need <= left {
            left -= need;
        } else {
            sets.entry(set).or_insert(full);
        }
    }
}

/// Keys of these new entries that do not fit, if there are any. Keys of a lower rank get room first.
fn without_room<K: Copy + Ord, T, R>(
    new: Vec<(K, T)>,
    there: usize,
    table: &dyn Table<K, R>,
    rank: impl Fn(&T) -> u32,
) -> Option<(Full, BTreeSet<K>)> {
    let full = Full::of(table);
    let left = (full.max_entries as usize).saturating_sub(there);
    if new.len() <= left {
        return None;
    }
    let mut new: Vec<(u32, K)> = new.iter().map(|(key, value)| (rank(value), *key)).collect();
    new.sort_unstable();
    let lacking: BTreeSet<K> = new.into_iter().skip(left).map(|(_, key)| key).collect();
    Some((full, lacking))
}
