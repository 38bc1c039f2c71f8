//! The rules of a set in one direction, as `port_class` and `verdicts`.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::id::{ClassId, PolicySetId, PortClassId};
use lbr_common::policy::{Allow, OTHER_PORTS, Ports, Prefix, VerdictKey, class};

use super::classes::Classes;
use super::ports::{Allowed, Covering, classify};

/// The entries of a set.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) port_class: BTreeMap<Prefix<Ports>, PortClassId>,
    pub(super) verdicts: BTreeMap<VerdictKey, Allow>,
}

/// Rules in the order in which they are asked.
#[derive(Debug, Default)]
pub(super) struct SetRules {
    /// A rule's name, and the classes of its peers; `None`: every peer.
    rules: Vec<(Allow, Option<BTreeSet<ClassId>>)>,
    /// Rules without ports: they hold for every port class.
    everywhere: Covering,
    /// Ports of the other rules.
    pub(super) allowed: Vec<Allowed>,
}

impl SetRules {
    /// Adds a rule and returns its number.
    pub(super) fn add(&mut self, allow: Allow, peers: Option<BTreeSet<ClassId>>, every_port: bool) -> usize {
        let number = self.rules.len();
        self.rules.push((allow, peers));
        if every_port {
            self.everywhere.insert((number, None));
        }
        number
    }

    /// Adds to both tables. They have no entry for what is not allowed.
    pub(super) fn write(&self, set: PolicySetId, way: u32, classes: &Classes, rows: &mut Rows) {
        let ports = classify(&self.allowed);
        for (&(proto, port, bits), &class) in &ports.prefixes {
            let direction = u8::try_from(way).unwrap_or(u8::MAX);
            let data = Ports { set, direction, proto, port: port.to_be_bytes() };
            rows.port_class.insert(Prefix { data, len: Ports::FIXED_BITS + bits }, class);
        }
        let key = |class, ports| VerdictKey { set, direction: way, class, ports };
        let others = (&OTHER_PORTS, &Covering::new());
        for (&ports, covering) in std::iter::once(others).chain(&ports.classes) {
            let covering: Covering = covering.union(&self.everywhere).copied().collect();
            let rule = |(number, only): &(usize, _)| Some((self.rules.get(*number)?, *only));
            let found: Vec<_> = covering.iter().filter_map(rule).collect();
            // A rule for every peer needs no other entry.
            if let Some(((allow, _), _)) =
                found.iter().find(|((_, peers), only)| peers.is_none() && only.is_none())
            {
                rows.verdicts.insert(key(class::ANY, ports), *allow);
                continue;
            }
            for ((allow, peers), only) in found {
                let with_port = only.map(|term| classes.with_any(&[term]));
                let Some(peers) = peers.as_ref().or(with_port.as_ref()) else { continue };
                for &class in peers.iter().filter(|&&peer| only.is_none_or(|term| classes.has(peer, term))) {
                    rows.verdicts.entry(key(class, ports)).or_insert(*allow);
                }
            }
        }
    }
}
