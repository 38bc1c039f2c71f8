//! Which services do not fit into the maps any more.
//!
//! A service that would be half in is kept out as a whole, so that it takes no room from others and what is
//! in force stays whole. Services with lower numbers, which are older, come first.

use std::collections::{BTreeMap, BTreeSet};

use super::{Problem, Reconciler};
use crate::dataplane::{Dataplane, WriteError};

/// How many new entries a service needs.
#[derive(Clone, Copy, Default)]
struct Need {
    frontends: usize,
    slots: usize,
    backends: usize,
}

/// The services that get no new entries in this round.
pub(super) fn full(
    r: &Reconciler,
    dataplane: &mut dyn Dataplane,
    problems: &mut Vec<Problem>,
) -> BTreeSet<u32> {
    let mut needs: BTreeMap<u32, Need> = BTreeMap::new();
    for (key, frontend) in r.frontends.writes() {
        if !r.frontends.actual().contains_key(&key) {
            needs.entry(frontend.service).or_default().frontends += 1;
        }
    }
    for (key, _) in r.slots.writes() {
        if !r.slots.actual().contains_key(&key) {
            needs.entry(key.service).or_default().slots += 1;
        }
    }
    for (id, backend) in r.backends.writes() {
        if !r.backends.actual().contains_key(&id) {
            needs.entry(backend.service).or_default().backends += 1;
        }
    }

    // Addresses as a whole are written last, one by one.
    needs.remove(&0);

    let room = |max_entries: u32, used: usize| (max_entries as usize).saturating_sub(used);
    let max = (
        dataplane.frontends().max_entries(),
        dataplane.slots().max_entries(),
        dataplane.backends().max_entries(),
    );
    let mut left = Need {
        frontends: room(max.0, r.frontends.actual().len()),
        slots: room(max.1, r.slots.actual().len()),
        backends: room(max.2, r.backends.actual().len()),
    };
    let names = (dataplane.frontends().name(), dataplane.slots().name(), dataplane.backends().name());

    let mut held = BTreeSet::new();
    for (service, need) in needs {
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
            continue;
        }
        held.insert(service);
        problems.extend(lacking.map(|(map, max_entries)| Problem {
            map,
            key: service_text(r, service),
            error: WriteError::Full { map, max_entries },
        }));
    }
    held
}

fn service_text(r: &Reconciler, service: u32) -> String {
    let Some(name) = r.services.desired().get(&service) else {
        return format!("service {service}");
    };
    let (namespace, service, port) = (name.namespace.as_str(), name.name.as_str(), name.port.as_str());
    format!("Service {namespace}/{service} port {}", if port.is_empty() { "(unnamed)" } else { port })
}
