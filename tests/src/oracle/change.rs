//! Whether a change from one set of tables to the next is safe while it is half written.
//!
//! The agent adds new entries to `verdicts` and `port_class`, switches the endpoints and classes in one write, and
//! removes old entries. In between, packets see both. So beside the other tables, old entries must keep their
//! meaning, and new ones must have theirs: no number is reused for other content.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Display};

use lbr_agent::desired::Desired;
use lbr_common::id::{ClassId, PolicyId, PolicySetId, PortClassId};
use lbr_common::policy::{Allow, OTHER_PORTS, Ports, VerdictKey, class, direction};
use lbr_common::tuple::proto;

const DIRECTIONS: [u32; 2] = [direction::INGRESS, direction::EGRESS];
/// The last one stands for all protocols without ports.
const PROTOCOLS: [u8; 4] = [proto::TCP, proto::UDP, proto::SCTP, proto::ICMP];

/// A description of what is unsafe about the change.
pub fn unsafe_change(before: &Desired, after: &Desired) -> Option<String> {
    let conflict = conflict("verdicts", &before.verdicts, &after.verdicts)
        .or_else(|| conflict("port_class", &before.port_class, &after.port_class));
    if conflict.is_some() {
        return conflict;
    }
    let mut both = Desired { verdicts: before.verdicts.clone(), ..Desired::default() };
    both.verdicts.extend(&after.verdicts);
    both.port_class = before.port_class.clone();
    both.port_class.extend(&after.port_class);
    [("old", before), ("new", after)].into_iter().find_map(|(name, tables)| {
        let found = changed_meaning(tables, &both)?;
        Some(format!("beside the other tables, the {name} ones do not mean what they do alone: {found}"))
    })
}

fn conflict<K: Ord + Debug, V: PartialEq + Debug>(
    name: &str,
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> Option<String> {
    let changed = |(key, old): (&K, &V)| {
        let new = after.get(key).filter(|new| *new != old)?;
        Some(format!("{name}: {key:?} was {old:?} and is {new:?}"))
    };
    before.iter().find_map(changed)
}

/// A look-up that packets can make with the addresses of `tables`, and that has another result in `both`.
fn changed_meaning(tables: &Desired, both: &Desired) -> Option<String> {
    let classes: BTreeSet<ClassId> =
        tables.ip_class.values().chain(tables.cidr_class.values()).copied().collect();
    let classes = || classes.iter().copied().chain([class::NONE]).filter(|&c| c != class::ABSENT);
    for set in sets(tables) {
        for direction in DIRECTIONS {
            for (alone, together) in port_classes(tables, both, set, direction) {
                for class in classes() {
                    let key = VerdictKey { set, direction, class, ports: alone };
                    let (a, b) = (verdict(tables, key), verdict(both, VerdictKey { ports: together, ..key }));
                    if a != b {
                        return Some(format!("{key:?} was {a:?}; as port class {together}: {b:?}"));
                    }
                }
            }
        }
    }
    None
}

/// The sets of all endpoints.
fn sets(tables: &Desired) -> BTreeSet<PolicySetId> {
    let of = tables.endpoints.values().flat_map(|endpoint| [endpoint.policy.set, endpoint.policy.audit]);
    of.filter(|set| set.is_some()).collect()
}

fn verdict(tables: &Desired, key: VerdictKey) -> Option<Allow> {
    let any = VerdictKey { class: class::ANY, ..key };
    tables.verdicts.get(&key).or_else(|| tables.verdicts.get(&any)).copied()
}

/// For every protocol and port: its class in both tables.
fn port_classes(
    a: &Desired,
    b: &Desired,
    set: PolicySetId,
    direction: u32,
) -> BTreeSet<(PortClassId, PortClassId)> {
    let mut pairs = BTreeSet::new();
    for proto in PROTOCOLS {
        let (a, b) = (prefixes(a, set, direction, proto), prefixes(b, set, direction, proto));
        let mut edges = BTreeSet::from([0, u16::MAX]);
        for (first, last, _) in a.iter().chain(&b) {
            edges.extend([first.saturating_sub(1), *first, *last, last.saturating_add(1)]);
        }
        pairs.extend(edges.into_iter().map(|port| (longest(&a, port), longest(&b, port))));
    }
    pairs
}

/// First and last port and class of each prefix.
fn prefixes(tables: &Desired, set: PolicySetId, direction: u32, proto: u8) -> Vec<(u16, u16, PortClassId)> {
    let wanted = tables.port_class.iter().filter(|(prefix, _)| {
        let ports = &prefix.data;
        ports.set == set && u32::from(ports.direction) == direction && ports.proto == proto
    });
    wanted
        .map(|(prefix, &class)| {
            let first = u16::from_be_bytes(prefix.data.port);
            let host = u16::MAX.checked_shr(prefix.len - Ports::FIXED_BITS).unwrap_or(0);
            (first, first | host, class)
        })
        .collect()
}

fn longest(prefixes: &[(u16, u16, PortClassId)], port: u16) -> PortClassId {
    let covering = prefixes.iter().filter(|(first, last, _)| (*first..=*last).contains(&port));
    covering.min_by_key(|(first, last, _)| last - first).map_or(OTHER_PORTS, |(.., class)| *class)
}

/// The content behind each number so far.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    sets: BTreeMap<PolicySetId, u64>,
    classes: BTreeMap<ClassId, u64>,
    policies: BTreeMap<PolicyId, (String, String)>,
}

impl Numbers {
    /// Records the tables' numbers. Describes a number that was reused for other content.
    pub fn reused(&mut self, tables: &Desired) -> Option<String> {
        let sets = tables.set_members.iter().map(|(key, member)| (key.set, member.hash));
        let classes = tables.classes.iter().map(|(&id, class)| (id, class.hash));
        let policies = tables.policies.iter();
        let policies =
            policies.map(|(&id, p)| (id, (p.namespace.as_str().to_owned(), p.name.as_str().to_owned())));
        note("set", &mut self.sets, sets)
            .or_else(|| note("class", &mut self.classes, classes))
            .or_else(|| note("policy", &mut self.policies, policies))
    }
}

fn note<K: Copy + Ord + Display, V: PartialEq + Debug>(
    kind: &str,
    known: &mut BTreeMap<K, V>,
    now: impl Iterator<Item = (K, V)>,
) -> Option<String> {
    for (id, meaning) in now {
        match known.get(&id) {
            Some(before) if *before != meaning => {
                return Some(format!("{kind} {id} was {before:?} and is {meaning:?}"));
            }
            Some(_) => {}
            None => drop(known.insert(id, meaning)),
        }
    }
    None
}

#[cfg(test)]
mod tests;
