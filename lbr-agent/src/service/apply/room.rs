//! Which Services do not fit into the maps.
//!
//! A Service of which only a part fits is left out as a whole: it takes no room from others, and the entries in force stay
//! whole. Services with lower numbers, which are older, come first.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::id::ServiceId;
use lbr_common::service::{FrontendKey, frontend_flags};

use crate::dataplane::{Dataplane, WriteError};
use crate::model::{Kind, ObjectName, ObjectRef};
use crate::table::{Problem, ServiceMaps};

/// How many new entries a service needs.
#[derive(Clone, Copy, Default)]
struct Need {
    frontends: usize,
    slots: usize,
    backends: usize,
}

/// Services and addresses that get no new entries in this round.
pub(super) struct Full {
    pub(super) services: BTreeSet<ServiceId>,
    /// Addresses whose wildcard entry has no room.
    pub(super) addresses: BTreeSet<Addr>,
}

/// Finds room in the order of the Services' numbers.
pub(super) fn full(maps: &ServiceMaps, dataplane: &mut dyn Dataplane, problems: &mut Vec<Problem>) -> Full {
    let mut addresses = new_addresses(maps);
    let addresses_of = addresses_of(maps, &addresses);
    let mut needs: BTreeMap<ServiceId, Need> = BTreeMap::new();
    for (key, frontend) in maps.frontends.writes() {
        if !maps.frontends.actual().contains_key(&key) {
            needs.entry(frontend.service).or_default().frontends += 1;
        }
    }
    for (key, _) in maps.slots.writes() {
        if !maps.slots.actual().contains_key(&key) {
            needs.entry(key.service).or_default().slots += 1;
        }
    }
    for (id, backend) in maps.backends.writes() {
        if !maps.backends.actual().contains_key(&id) {
            needs.entry(backend.service).or_default().backends += 1;
        }
    }

    needs.remove(&ServiceId::NONE);
    for &service in addresses_of.keys() {
        needs.entry(service).or_default();
    }

    let room = |max_entries: u32, used: usize| (max_entries as usize).saturating_sub(used);
    let tables = dataplane.tables();
    let max = (tables.frontends.max_entries(), tables.slots.max_entries(), tables.backends.max_entries());
    let names = (tables.frontends.name(), tables.slots.name(), tables.backends.name());
    let mut left = Need {
        frontends: room(max.0, maps.frontends.len()),
        slots: room(max.1, maps.slots.len()),
        backends: room(max.2, maps.backends.len()),
    };

    let mut held = BTreeSet::new();
    for (service, mut need) in needs {
        let own = addresses_of.get(&service).into_iter().flatten();
        let own: Vec<Addr> = own.filter(|addr| addresses.contains(*addr)).copied().collect();
        need.frontends += own.len();
        let lacking = [
            (need.backends > left.backends).then_some((names.2, max.2)),
            (need.slots > left.slots).then_some((names.1, max.1)),
            (need.frontends > left.frontends).then_some((names.0, max.0)),
        ];
        let mut lacking = lacking.into_iter().flatten().peekable();
        if lacking.peek().is_none() {
            left.frontends -= need.frontends;
            left.slots -= need.slots;
            left.backends -= need.backends;
            for addr in &own {
                addresses.remove(addr);
            }
            continue;
        }
        held.insert(service);
        if need.frontends <= left.frontends {
            // The wildcard entry refuses its clients, which is better than no answer.
            left.frontends -= own.len();
            for addr in &own {
                addresses.remove(addr);
            }
        }
        let (object, key) = port(maps, service);
        problems.extend(lacking.map(|(map, max_entries)| {
            let error = WriteError::Full { map, max_entries };
            Problem { map, object: object.clone(), key: key.clone(), error }
        }));
    }
    // An address without a Service port has a wildcard entry too: it gets the room that is left.
    let claimed: BTreeSet<Addr> = addresses_of.values().flatten().copied().collect();
    addresses.retain(|addr| {
        let fits = !claimed.contains(addr) && left.frontends > 0;
        left.frontends -= usize::from(fits);
        !fits
    });
    let (map, max_entries) = (names.0, max.0);
    let full = |addr: &Addr| Problem::new(map, addr.to_string(), WriteError::Full { map, max_entries });
    problems.extend(addresses.iter().map(full));
    Full { services: held, addresses }
}

/// Addresses whose wildcard entry is not in the map.
fn new_addresses(maps: &ServiceMaps) -> BTreeSet<Addr> {
    let writes = maps.frontends.writes().filter(|(_, f)| f.flags & frontend_flags::WILDCARD != 0);
    writes.filter(|(key, _)| !maps.frontends.actual().contains_key(key)).map(|(key, _)| key.addr).collect()
}

/// Which of these addresses each service has.
fn addresses_of(maps: &ServiceMaps, addresses: &BTreeSet<Addr>) -> BTreeMap<ServiceId, BTreeSet<Addr>> {
    let mut of: BTreeMap<ServiceId, BTreeSet<Addr>> = BTreeMap::new();
    for &addr in addresses {
        let all = maps.frontends.range(FrontendKey { addr, ..FrontendKey::default() }..);
        let its = all.take_while(|(key, _)| key.addr == addr);
        for (_, frontend) in its.filter(|(_, frontend)| frontend.flags & frontend_flags::WILDCARD == 0) {
            of.entry(frontend.service).or_default().insert(addr);
        }
    }
    of
}

/// The Service and its port that have this number.
fn port(maps: &ServiceMaps, service: ServiceId) -> (Option<ObjectRef>, String) {
    let Some(name) = maps.services.get(&service) else {
        return (None, format!("service {service}"));
    };
    let object = Kind::Service.named(&ObjectName::new(name.namespace.as_str(), name.name.as_str()));
    let port = name.port.as_str();
    (Some(object), format!("port {}", if port.is_empty() { "(unnamed)" } else { port }))
}
