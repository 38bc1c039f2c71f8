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
use lbr_common::policy::{Block, Ports, Prefix, VerdictKey, policy_flags};

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

/// The desired content of the maps that may lack room.
struct Wanted<'a> {
    endpoints: &'a BTreeMap<Addr, EndpointPolicy>,
    link_policy: &'a BTreeMap<u32, u32>,
    ip_class: &'a BTreeMap<Addr, ClassId>,
    cidr_class: &'a BTreeMap<Prefix<Block>, ClassId>,
}

/// Finds what of this does not fit.
pub(super) fn of_desired(state: &Policies, desired: &Desired, tables: &Tables<'_>) -> Shortage {
    let Desired { endpoints, link_policy, ip_class, cidr_class, port_class, verdicts, .. } = desired;
    let (there, known) = (state.maps.port_class.actual(), state.maps.verdicts.actual());
    let ports = port_class.keys().filter(|key| !there.contains_key(key)).copied();
    let verdicts = verdicts.keys().filter(|key| !known.contains_key(key)).copied();
    let wanted = Wanted { endpoints, link_policy, ip_class, cidr_class };
    find(state, &wanted, ports, verdicts, tables)
}

/// Finds what of the desired content does not fit.
pub(super) fn of_maps(state: &Policies, tables: &Tables<'_>) -> Shortage {
    let maps = &state.maps;
    let wanted = Wanted {
        endpoints: maps.endpoints.desired(),
        link_policy: maps.link_policy.desired(),
        ip_class: maps.ip_class.desired(),
        cidr_class: maps.cidr_class.desired(),
    };
    find(state, &wanted, maps.port_class.new_keys(), maps.verdicts.new_keys(), tables)
}

/// Present entries stay until the desired ones are in force, so both need room. `ports` and `verdicts`: keys that are not
/// there yet.
fn find(
    state: &Policies,
    wanted: &Wanted<'_>,
    ports: impl Iterator<Item = Prefix<Ports>>,
    verdicts: impl Iterator<Item = VerdictKey>,
    tables: &Tables<'_>,
) -> Shortage {
    let mut shortage = Shortage::default();
    let there = state.maps.verdicts.len();
    lacking(verdicts.map(|key| key.set), there, &*tables.verdicts, &mut shortage.sets);
    let there = state.maps.port_class.len();
    lacking(ports.map(|key| key.data.set), there, &*tables.port_class, &mut shortage.sets);
    let rank = |_: &Prefix<Block>, _: &ClassId| 0;
    shortage.blocks =
        without_room(wanted.cidr_class, &state.maps.cidr_class, &*tables.cidr_class, rank).map(|f| f.0);
    let rank = |_: &Addr, _: &ClassId| 0;
    shortage.classes = without_room(wanted.ip_class, &state.maps.ip_class, &*tables.ip_class, rank);
    let rank = |_: &Addr, endpoint: &EndpointPolicy| self::rank(endpoint.policy.flags);
    shortage.endpoints = without_room(wanted.endpoints, &state.maps.endpoints, &*tables.endpoints, rank);
    let rank = |_: &u32, flags: &u32| self::rank(*flags);
    shortage.links = without_room(wanted.link_policy, &state.maps.link_policy, &*tables.link_policy, rank);
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
    sets_of_new: impl Iterator<Item = PolicySetId>,
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

/// Keys that do not fit, if there are any. Keys of a lower rank get room first.
fn without_room<K: Copy + Ord, T: Absent<K>, R>(
    wanted: &BTreeMap<K, T>,
    staged: &Staged<K, T>,
    table: &dyn Table<K, R>,
    rank: impl Fn(&K, &T) -> u32,
) -> Option<(Full, BTreeSet<K>)> {
    let full = Full::of(table);
    let left = (full.max_entries as usize).saturating_sub(staged.len());
    if wanted.len() <= left {
        return None;
    }
    let new = wanted.iter().filter(|(key, _)| !staged.has(key));
    let mut new: Vec<(u32, K)> = new.map(|(key, value)| (rank(key, value), *key)).collect();
    new.sort_unstable();
    let lacking: BTreeSet<K> = new.into_iter().skip(left).map(|(_, key)| key).collect();
    (!lacking.is_empty()).then_some((full, lacking))
}
