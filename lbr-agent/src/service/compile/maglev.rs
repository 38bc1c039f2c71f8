//! Tables of Services that ask for consistent hashing by their annotation, filled as in the Maglev paper (NSDI 2016,
//! section 3.4).
//!
//! The content of a slot depends only on names and addresses that all nodes see, not on numbers that a node assigns.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Family;
use lbr_common::maglev::{self, MaglevKey, MaglevPart};
use lbr_common::text::ServiceName;

use super::endpoints::Target;
use super::plan::Plan;
use crate::desired::Desired;
use crate::ids::Ids;
use crate::model::{ALGORITHM, Rejected};

/// How many tables there is room for, unless the map has another size: each with one that takes its place.
const DEFAULT_TABLES: usize = maglev::table_count(lbr_common::maps::MAGLEV.max_entries);

/// A set of a Service port that asks for a table.
pub(super) struct Wish {
    /// Service id and set.
    key: (u32, u32),
    /// The Service, for messages.
    object: String,
    /// A hash of the Service port's name, the same on every node.
    salt: u64,
    /// The backends and their ids, in order of the addresses.
    targets: Vec<(Target, u32)>,
}

impl Wish {
    pub(super) fn new(
        plan: &Plan<'_>,
        key: (u32, u32),
        name: &ServiceName,
        targets: Vec<(Target, u32)>,
    ) -> Self {
        let text = [name.namespace.as_str(), name.name.as_str(), name.port.as_str()].join("/");
        let shape = u64::from(plan.proto) << 1 | u64::from(plan.family == Family::V4);
        let salt = maglev::mix(hash(0, text.as_bytes()), shape);
        Self { key, object: format!("Service {}", plan.service.name), salt, targets }
    }
}

/// Gives tables to Service ports that ask for one, the oldest Services first, and leads their frontends to them.
/// `room`: how many tables there may be. A Service without a table is reported, and its endpoints are chosen as for
/// other Services.
pub(super) fn write(
    mut wishes: Vec<Wish>,
    room: Option<usize>,
    ids: &mut Ids,
    desired: &mut Desired,
    rejected: &mut Vec<Rejected>,
) {
    let room = room.unwrap_or(DEFAULT_TABLES);
    wishes.sort_by_key(|wish| wish.key);
    let (mut given, mut tables) = (BTreeMap::new(), BTreeSet::new());
    for wish in wishes {
        // Two sets of a Service often have the same backends: they share one table.
        let content: BTreeSet<u32> = wish.targets.iter().map(|(_, id)| *id).collect();
        if tables.len() >= room && !tables.contains(&content) {
            rejected.push(no_room(wish.object, room));
            continue;
        }
        let content_list = content.iter().copied().collect();
        tables.insert(content);
        let (table, parts) = ids.maglev(content_list, || fill(&wish));
        let entries = (0..).zip(parts.iter()).map(|(part, slots)| (MaglevKey { table, part }, *slots));
        desired.maglev.extend(entries);
        given.insert(wish.key, table);
    }
    for frontend in desired.frontends.values_mut().filter(|frontend| frontend.count > 0) {
        frontend.maglev = given.get(&(frontend.service, frontend.set)).copied().unwrap_or(0);
    }
}

fn no_room(object: String, room: usize) -> Rejected {
    let name = lbr_common::maps::MAGLEV.name;
    let needed = maglev::PARTS * 2;
    let reason = format!(
        "there is room for {room} tables only, and older Services have them: endpoints are chosen as without the \
         annotation. Raise --map-max {name}=N, by {needed} for each table, before the map is made"
    );
    Rejected::limited(object, format!("metadata.annotations[{ALGORITHM}]"), reason)
}

fn fill(wish: &Wish) -> Vec<MaglevPart> {
    let slots = slots(wish.salt, &wish.targets);
    let part = |slots: &[u32]| {
        let mut backends = [0; maglev::PART as usize];
        for (to, from) in backends.iter_mut().zip(slots) {
            *to = *from;
        }
        MaglevPart { backends }
    };
    slots.chunks(maglev::PART as usize).map(part).collect()
}

/// The order in which a backend visits the table: every slot once, since the number of slots is prime.
struct Permutation {
    next: u32,
    skip: u32,
}

/// The table: in turns, each backend takes the first free slot of its permutation.
fn slots(salt: u64, targets: &[(Target, u32)]) -> Vec<u32> {
    let permutation = |((addr, port), _): &(Target, u32)| {
        let h = maglev::mix(hash(salt, &addr.bytes), u64::from(*port));
        let below = |h: u64, n: u32| (h % u64::from(n)) as u32;
        Permutation { next: below(h, maglev::SLOTS), skip: 1 + below(maglev::mix(h, 1), maglev::SLOTS - 1) }
    };
    let mut turns: Vec<_> = targets.iter().map(|target| (permutation(target), target.1)).collect();
    let mut slots = vec![0; maglev::SLOTS as usize];
    let mut free = if turns.is_empty() { 0 } else { slots.len() };
    while free > 0 {
        for (permutation, id) in turns.iter_mut().take(free) {
            while let Some(slot) = slots.get_mut(permutation.next as usize) {
                permutation.next = (permutation.next + permutation.skip) % maglev::SLOTS;
                if *slot == 0 {
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
