//! One Service: what it asks for, and what it puts into the maps.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use lbr_common::id::{BackendId, ServiceId};
use lbr_common::service::{
    Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange, backend_flags, frontend_flags, set,
};
use lbr_common::text::{ServiceName, Text};

use super::addresses::{self, Use};
use super::claims::{Claim, Claims};
use super::endpoints::{Choice, choose};
use super::health::{self, Asked};
use super::maglev::{self, Wish};
use super::plan::{Plan, Role};
use super::ranges::Range;
use super::{frontends, ranges};
use crate::ids::{Ids, ServicePort};
use crate::model::{Algorithm, EndpointSlice, ObjectName, Rejected, Service};
use crate::node::here::Here;
use crate::table::ServiceMaps;

/// What is kept of a Service until its next change.
#[derive(Debug, Default)]
pub(super) struct Fragment {
    pub(super) name: Arc<ObjectName>,
    /// The frontends that it asks for.
    pub(super) asked: Vec<(FrontendKey, Claim)>,
    /// Those that it has: keys of `frontends`.
    pub(super) keys: Vec<FrontendKey>,
    /// Its ports that have a frontend, each in each family, and their ids.
    pub(super) ports: Vec<(ServicePort, ServiceId)>,
    /// The addresses that it uses.
    pub(super) uses: Vec<Use>,
    /// Its sets that ask for a Maglev table.
    pub(super) wishes: Vec<maglev::Key>,
    pub(super) health: Option<Asked>,
    /// What is not in force of it.
    pub(super) rejected: Vec<Rejected>,
    /// It has ports, and none has a frontend: it is not in force at all.
    pub(super) is_nowhere: bool,
    /// Endpoints on other nodes answer clients outside directly.
    pub(super) is_direct: bool,
}

/// A Service port's rows in the maps.
struct Rows {
    port: ServicePort,
    id: ServiceId,
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
    service: &Service,
    slices: &[&EndpointSlice],
    asked: Asks,
    claims: &Claims,
    here: &Here<'_>,
    ids: &mut Ids,
    maps: &mut ServiceMaps,
) -> (Fragment, Vec<(maglev::Key, Wish)>) {
    let Asks { name, of_plans, mut rejected } = asked;
    let mut plans = Plan::all(service);
    for (plan, asked) in plans.iter_mut().zip(&of_plans) {
        frontends::settle(plan, asked, claims, &mut rejected);
    }
    let mut fragment = Fragment {
        asked: claims_of(&name, &plans, &of_plans),
        uses: addresses::of(service, &plans),
        health: service
            .health_check_port
            .map(|number| Asked { number, local_ready: health::local_ready(service, slices, here) }),
        rejected,
        is_nowhere: !plans.is_empty() && plans.iter().all(|plan| plan.won.is_empty()),
        is_direct: plans.iter().any(Plan::is_direct),
        name,
        ..Fragment::default()
    };
    let mut wishes = Vec::new();
    for plan in plans.iter().filter(|plan| !plan.won.is_empty()) {
        let rows = rows(plan, slices, &fragment.name, here, ids);
        fragment.keys.extend(rows.frontends.iter().map(|(key, _)| *key));
        fragment.ports.push((rows.port, rows.id));
        fragment.wishes.extend(rows.wishes.iter().map(|(key, _)| *key));
        wishes.extend(write(rows, ids, maps));
    }
    (fragment, wishes)
}

/// What the plans of a Service ask for.
pub(super) struct Asks {
    name: Arc<ObjectName>,
    of_plans: Vec<Vec<(Role, FrontendKey)>>,
    rejected: Vec<Rejected>,
}

impl Asks {
    pub(super) fn new(service: &Service, nodeports: &BTreeSet<IpAddr>, here: &Here<'_>) -> Self {
        let mut rejected = Vec::new();
        let asked_for = |plan: &Plan<'_>| frontends::asked_for(plan, nodeports, here, &mut rejected);
        let of_plans = Plan::all(service).iter().map(asked_for).collect();
        Self { name: Arc::new(service.name.clone()), of_plans, rejected }
    }

    /// The claims to enter.
    pub(super) fn claims(&self, service: &Service) -> Vec<(FrontendKey, Claim)> {
        claims_of(&self.name, &Plan::all(service), &self.of_plans)
    }
}

fn claims_of(
    name: &Arc<ObjectName>,
    plans: &[Plan<'_>],
    of_plans: &[Vec<(Role, FrontendKey)>],
) -> Vec<(FrontendKey, Claim)> {
    let mut claims = Vec::new();
    for (plan, asked) in plans.iter().zip(of_plans) {
        let (index, family) = (plan.index, plan.family);
        claims.extend(
            asked.iter().map(|&(role, key)| (key, Claim { role, service: Arc::clone(name), index, family })),
        );
    }
    claims
}

fn rows(
    plan: &Plan<'_>,
    slices: &[&EndpointSlice],
    service: &Arc<ObjectName>,
    here: &Here<'_>,
    ids: &mut Ids,
) -> Rows {
    let name = service_name(service, &plan.port.name);
    let port = ServicePort { name, proto: plan.proto, family: plan.family };
    let id = ids.service(port);
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
    Rows { port, id, frontends, targets, ranges, wishes }
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
    let Rows { port, id, frontends, targets, ranges, wishes } = rows;
    let Targets { backends, slots } = targets;
    maps.services.set(id, Some(port.name));
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
pub(super) fn remove(port: &ServicePort, id: ServiceId, ids: &mut Ids, maps: &mut ServiceMaps) {
    for gone in ids.release_backends(id, |_| false) {
        maps.backends.set(gone, None);
    }
    ids.release_service(port);
    maps.services.set(id, None);
    maps.slots.replace(slots_of(id), []);
    maps.source_ranges.replace(ranges_of(id), []);
}

fn slots_of(service: ServiceId) -> RangeInclusive<SlotKey> {
    let first = SlotKey { service, ..SlotKey::default() };
    first..=SlotKey { service, set: u32::MAX, slot: u32::MAX }
}

fn ranges_of(service: ServiceId) -> RangeInclusive<Range> {
    let of = |client, len| Range { data: SourceRange { service, client }, len };
    of([0; 16], 0)..=of([u8::MAX; 16], u32::MAX)
}
