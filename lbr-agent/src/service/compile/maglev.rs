//! Tables of Services that ask for consistent hashing by their annotation, filled as in the Maglev paper (NSDI 2016,
//! section 3.4).
//!
//! The content of a slot depends only on names and addresses that all nodes see, not on numbers that a node assigns.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Family;
use lbr_common::id::{BackendId, MaglevId, ServiceId};
use lbr_common::maglev::{self, MaglevKey, MaglevPart};
use lbr_common::text::ServiceName;

use super::endpoints::Target;
use super::plan::Plan;
use crate::ids::Ids;
use crate::model::{ALGORITHM, Kind, ObjectName, Rejected};
use crate::table::ServiceMaps;

/// How many tables there is room for, unless the map has another size: each with one that takes its place.
const DEFAULT_TABLES: usize = maglev::table_count(lbr_common::maps::MAGLEV.max_entries);

/// A set of a Service port: the id of the port, and the set.
pub(super) type Key = (ServiceId, u32);

/// What a set that asks for a table has.
#[derive(Debug)]
pub(super) struct Wish {
    service: ObjectName,
    /// A hash of the Service port's name, the same on every node.
    salt: u64,
    /// The backends and their ids, in order of the addresses.
    targets: Vec<(Target, BackendId)>,
}

impl Wish {
    pub(super) fn new(
        plan: &Plan<'_>,
        service: &ObjectName,
        name: &ServiceName,
        targets: Vec<(Target, BackendId)>,
    ) -> Self {
        let text = [name.namespace.as_str(), name.name.as_str(), name.port.as_str()].join("/");
        let shape = u64::from(plan.proto) << 1 | u64::from(plan.family == Family::V4);
        let salt = maglev::mix(hash(0, text.as_bytes()), shape);
        Self { service: service.clone(), salt, targets }
    }
}

/// The Service ports that ask for a table, and who has one, kept from one change to the next.
#[derive(Debug, Default)]
pub(super) struct Tables {
    wishes: BTreeMap<Key, Wish>,
    given: BTreeMap<Key, MaglevId>,
    /// The wishes are others than when the tables were given.
    is_due: bool,
    /// Wishes without a table.
    pub(super) rejected: Vec<Rejected>,
}

impl Tables {
    pub(super) fn remove(&mut self, key: &Key) {
        self.is_due |= self.wishes.remove(key).is_some();
    }

    pub(super) fn add(&mut self, key: Key, wish: Wish) {
        self.is_due = true;
        self.wishes.insert(key, wish);
    }

    /// The table of a set; 0: none.
    pub(super) fn of(&self, key: &Key) -> MaglevId {
        self.given.get(key).copied().unwrap_or_default()
    }

    /// Gives tables to Service ports that ask for one, the oldest Services first, and writes the tables. `room`: how many
    /// there may be. A Service without a table is reported, and its endpoints are chosen as for other Services. Returns
    /// the Services whose frontends lead to another table now.
    pub(super) fn give(
        &mut self,
        room: Option<usize>,
        ids: &mut Ids,
        maps: &mut ServiceMaps,
    ) -> BTreeSet<ObjectName> {
        if !std::mem::take(&mut self.is_due) {
            return BTreeSet::new();
        }
        let room = room.unwrap_or(DEFAULT_TABLES);
        let (mut given, mut tables, mut in_use) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        self.rejected.clear();
        for (key, wish) in &self.wishes {
            // Two sets of a Service often have the same backends: they share one table.
            let content: BTreeSet<BackendId> = wish.targets.iter().map(|(_, id)| *id).collect();
            if tables.len() >= room && !tables.contains(&content) {
                self.rejected.push(no_room(&wish.service, room));
                continue;
            }
            let content_list = content.iter().copied().collect();
            tables.insert(content);
            let (table, parts) = ids.maglev(content_list, || fill(wish));
            if in_use.insert(table) {
                let entries =
                    (0..).zip(parts.iter()).map(|(part, slots)| (MaglevKey { table, part }, *slots));
                maps.maglev.replace(range(table), entries);
            }
            given.insert(*key, table);
        }
        let before = std::mem::replace(&mut self.given, given);
        for table in before.values().filter(|table| !in_use.contains(table)) {
            maps.maglev.replace(range(*table), []);
        }
        ids.forget_unused_maglev();
        let is_other = |key: &&Key| before.get(key) != self.given.get(key);
        let wishes = self.wishes.iter().filter(|(key, _)| is_other(key));
        wishes.map(|(_, wish)| wish.service.clone()).collect()
    }
}

fn range(table: MaglevId) -> std::ops::RangeInclusive<MaglevKey> {
    MaglevKey { table, part: 0 }..=MaglevKey { table, part: u32::MAX }
}

fn no_room(service: &ObjectName, room: usize) -> Rejected {
    let name = lbr_common::maps::MAGLEV.name;
    let needed = maglev::PARTS * 2;
    let reason = format!(
        "there is room for {room} tables only, and older Services have them: endpoints are chosen as without the \
         annotation. Raise --map-max {name}=N, by {needed} for each table, before the map is made"
    );
    Rejected::limited(Kind::Service.named(service), format!("metadata.annotations[{ALGORITHM}]"), reason)
}

fn fill(wish: &Wish) -> Vec<MaglevPart> {
    let slots = slots(wish.salt, &wish.targets);
    slots.chunks(maglev::PART as usize).map(MaglevPart::new).collect()
}

/// The order in which a backend visits the table: every slot once, since the number of slots is prime.
struct Permutation {
    next: u32,
    skip: u32,
}

/// The table: in turns, each backend takes the first free slot of its permutation.
fn slots(salt: u64, targets: &[(Target, BackendId)]) -> Vec<BackendId> {
    let permutation = |((addr, port), _): &(Target, BackendId)| {
        let h = maglev::mix(hash(salt, &addr.bytes), u64::from(*port));
        let below = |h: u64, n: u32| (h % u64::from(n)) as u32;
        Permutation { next: below(h, maglev::SLOTS), skip: 1 + below(maglev::mix(h, 1), maglev::SLOTS - 1) }
    };
    let mut turns: Vec<_> = targets.iter().map(|target| (permutation(target), target.1)).collect();
    let mut slots = vec![BackendId::NONE; maglev::SLOTS as usize];
    let mut free = if turns.is_empty() { 0 } else { slots.len() };
    while free > 0 {
        for (permutation, id) in turns.iter_mut().take(free) {
            while let Some(slot) = slots.get_mut(permutation.next as usize) {
                permutation.next = (permutation.next + permutation.skip) % maglev::SLOTS;
                if slot.is_none() {
                    *slot = *id;
                    free -= 1;
                    break;
                }
            }
        }
    }
    slots
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let word = |chunk: &[u8]| chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let length = bytes.len() as u64;
    maglev::mix(bytes.chunks(8).fold(seed, |h, chunk| maglev::mix(h, word(chunk))), length)
}

#[cfg(test)]
mod tests;
