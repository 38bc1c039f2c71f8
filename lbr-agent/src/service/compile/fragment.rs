//! One Service: what it asks for, and what it puts into the maps.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use lbr_common::addr::Family;
use lbr_common::id::{BackendId, ServiceId};
use lbr_common::service::{
    Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange, backend_flags, frontend_flags, set,
};
use lbr_common::text::{ServiceName, Text};

use super::addresses::{self, Use};
use super::claims::{Ask, Claims};
use super::endpoints::{Choice, choose};
use super::health::{self, Probe};
use super::maglev::{self, Wish};
use super::plan::{Plan, Role};
use super::ranges::Range;
use super::{frontends, ranges};
use crate::ids::{Ids, ServicePort};
use crate::model::{Algorithm, EndpointSlice, ObjectName, Rejected, Service};
use crate::node::here::Here;
use crate::service::slots_of;
use crate::table::ServiceMaps;

/// What is kept of a Service until its next change.
#[derive(Debug, Default)]
pub(super) struct Fragment {
    pub(super) name: ObjectName,
    /// The frontends that it asks for.
    pub(super) asked: Box<[Ask]>,
    /// Those that it has: keys of `frontends`.
    pub(super) keys: Box<[FrontendKey]>,
    /// Its ports that have a frontend, each in each family, and their ids.
    pub(super) ports: Box<[Port]>,
    /// The addresses that it uses.
    pub(super) uses: Box<[Use]>,
    /// Its sets that ask for a Maglev table.
    pub(super) wishes: Box<[maglev::Key]>,
    pub(super) health: Option<Probe>,
    /// What is not in force of it.
    pub(super) rejected: Box<[Rejected]>,
    /// It has ports, and none has a frontend: it is not in force at all.
    pub(super) is_nowhere: bool,
    /// Endpoints on other nodes answer clients outside directly.
    pub(super) is_direct: bool,
}

/// A port of a Service in one family. Its name is in the map `services`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) id: ServiceId,
    proto: u8,
    family: Family,
}

/// A Service port's rows in the maps.
struct Rows {
    port: Port,
    name: ServiceName,
    frontends: Vec<(FrontendKey, Frontend)>,
    targets: Targets,
    ranges: Vec<Range>,
    wishes: Vec<(maglev::Key, Wish)>,
}

struct Targets {
    backends: Vec<(BackendId, Backend)>,
    slots: Vec<(SlotKey, Slot)>,
}

/// Compiles one Service whose claims are entered: returns what is kept of it, and writes its rows. Rows that the former
/// fragment had and this one has not are the caller's to remove.
pub(super) fn compile(
    asked: Asked<'_>,
    slices: &[&EndpointSlice],
    claims: &Claims,
    here: &Here<'_>,
    ids: &mut Ids,
    maps: &mut ServiceMaps,
) -> (Fragment, Vec<(maglev::Key, Wish)>) {
    let Asked { service, mut plans, of_plans, mut rejected } = asked;
    for (plan, asked) in plans.iter_mut().zip(&of_plans) {
        frontends::settle(plan, asked, claims, &mut rejected);
    }
    let health = service.health_check_port;
    let mut fragment = Fragment {
        asked: asks(&plans, &of_plans).collect(),
        uses: addresses::of(service, &plans).into(),
        health: health
            .map(|number| Probe { number, local_ready: health::local_ready(service, slices, here) }),
        rejected: rejected.into(),
        is_nowhere: !plans.is_empty() && plans.iter().all(|plan| plan.won.is_empty()),
        is_direct: plans.iter().any(Plan::is_direct),
        name: service.name.clone(),
        ..Fragment::default()
    };
    let (mut keys, mut ports, mut wishes) = (Vec::new(), Vec::new(), Vec::new());
    for plan in plans.iter().filter(|plan| !plan.won.is_empty()) {
        let rows = rows(plan, slices, &fragment.name, here, ids);
        keys.extend(rows.frontends.iter().map(|(key, _)| *key));
        ports.push(rows.port);
        wishes.extend(write(rows, ids, maps));
    }
    (fragment.keys, fragment.ports) = (keys.into(), ports.into());
    fragment.wishes = wishes.iter().map(|(key, _)| *key).collect();
    (fragment, wishes)
}

/// What a Service asks for, port by port.
pub(super) struct Asked<'a> {
    service: &'a Service,
    plans: Vec<Plan<'a>>,
    of_plans: Vec<Vec<(Role, FrontendKey)>>,
    rejected: Vec<Rejected>,
}

impl<'a> Asked<'a> {
    pub(super) fn of(service: &'a Service, nodeports: &BTreeSet<IpAddr>, here: &Here<'_>) -> Self {
        let mut rejected = Vec::new();
        let plans = Plan::all(service);
        let asked_for = |plan: &Plan<'_>| frontends::asked_for(plan, nodeports, here, &mut rejected);
        let of_plans = plans.iter().map(asked_for).collect();
        Self { service, plans, of_plans, rejected }
    }

    /// All of it.
    pub(super) fn asks(&self) -> impl Iterator<Item = Ask> {
        asks(&self.plans, &self.of_plans)
    }
}

fn asks(plans: &[Plan<'_>], of_plans: &[Vec<(Role, FrontendKey)>]) -> impl Iterator<Item = Ask> {
    plans.iter().zip(of_plans).flat_map(|(plan, asked)| {
        let (index, family) = (plan.index, plan.family);
        asked.iter().map(move |&(role, key)| Ask { key, role, index, family })
    })
}

fn rows(
    plan: &Plan<'_>,
    slices: &[&EndpointSlice],
    service: &ObjectName,
    here: &Here<'_>,
    ids: &mut Ids,
) -> Rows {
    let name = service_name(service, &plan.port.name);
    let (proto, family) = (plan.proto, plan.family);
    let id = ids.service(ServicePort { name, proto, family });
    let choice = choose(slices, plan.port, plan.family, plan.sets(), here);
    let is_balanced = plan.won.iter().any(|(role, _)| *role == Role::LoadBalancer);
    let (ranges, balanced) = match is_balanced {
        true => ranges::rows(plan.service, id, plan.family, here),
        false => Default::default(),
    };
    let on_loopback = if here.settings.without_localhost_nodeports { frontend_flags::BIND_ONLY } else { 0 };
    let frontends = frontends::rows(plan, id, &choice, [balanced, on_loopback]);
    let targets = targets(plan, id, &choice, here, ids);
    let mut wishes = Vec::new();
    if plan.service.algorithm == Algorithm::Maglev {
        for (set, targets) in (0..).zip(&choice.sets).filter(|(_, targets)| !targets.is_empty()) {
            let targets = targets.iter().map(|&(addr, port)| ((addr, port), ids.backend(id, addr, port)));
            wishes.push(((id, set), Wish::new(plan, service, &name, targets.collect())));
        }
    }
    Rows { port: Port { id, proto, family }, name, frontends, targets, ranges, wishes }
}

fn service_name(service: &ObjectName, port: &str) -> ServiceName {
    ServiceName {
        namespace: Text::new(&service.namespace),
        name: Text::new(&service.name),
        port: Text::new(port),
    }
}

/// The endpoints of a Service port, and where they stand in its sets.
fn targets(plan: &Plan<'_>, service: ServiceId, choice: &Choice, here: &Here<'_>, ids: &mut Ids) -> Targets {
    let (mut backends, mut slots) = (Vec::new(), Vec::new());
    for (&(addr, port), chosen) in &choice.backends {
        let id = ids.backend(service, addr, port);
        let flags = if chosen.here { backend_flags::HERE } else { 0 };
        let ifindex = here.direct.of(addr.into());
        let backend = Backend { addr, ifindex, service, port, proto: plan.proto, sets: chosen.sets, flags };
        backends.push((id, backend));
    }
    for (set, targets) in (set::CLUSTER..).zip(&choice.sets) {
        for (slot, &(addr, port)) in (0..).zip(targets) {
            let backend = ids.backend(service, addr, port);
            slots.push((SlotKey { service, set, slot }, Slot { backend }));
        }
    }
    Targets { backends, slots }
}

/// Writes the rows of a Service port, and gives up the numbers of its former backends. Returns its wishes.
fn write(rows: Rows, ids: &mut Ids, maps: &mut ServiceMaps) -> Vec<(maglev::Key, Wish)> {
    let Rows { port: Port { id, .. }, name, frontends, targets, ranges, wishes } = rows;
    let Targets { backends, slots } = targets;
    maps.services.set(id, Some(name));
    for (key, frontend) in frontends {
        maps.frontends.set(key, Some(frontend));
    }
    let kept: BTreeSet<BackendId> = backends.iter().map(|(id, _)| *id).collect();
    for (id, backend) in backends {
        maps.backends.set(id, Some(backend));
    }
    for gone in ids.release_backends(id, |backend| kept.contains(&backend)) {
        maps.backends.set(gone, None);
    }
    maps.slots.replace(slots_of(id), slots);
    maps.source_ranges.replace(ranges_of(id), ranges.into_iter().map(|range| (range, 0)));
    wishes
}

/// Removes the rows of a Service port that is gone, but for its frontends, and gives up its numbers.
pub(super) fn remove(port: Port, ids: &mut Ids, maps: &mut ServiceMaps) {
    let Port { id, proto, family } = port;
    for gone in ids.release_backends(id, |_| false) {
        maps.backends.set(gone, None);
    }
    if let Some(&name) = maps.services.get(&id) {
        ids.release_service(&ServicePort { name, proto, family });
    }
    maps.services.set(id, None);
    maps.slots.replace(slots_of(id), []);
    maps.source_ranges.replace(ranges_of(id), []);
}

fn ranges_of(service: ServiceId) -> RangeInclusive<Range> {
    let of = |client, len| Range { data: SourceRange { service, client }, len };
    of([0; 16], 0)..=of([u8::MAX; 16], u32::MAX)
}
