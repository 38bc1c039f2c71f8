//! From Services to frontends, slots and backends: how each port is served (`plan`), at which addresses (`frontends`), by
//! which endpoints (`endpoints`, `topology`).

mod endpoints;
mod frontends;
mod health;
mod maglev;
mod plan;
mod ranges;
mod topology;

use std::collections::BTreeSet;

use lbr_common::addr::Family;
use lbr_common::service::{Backend, Slot, SlotKey, backend_flags, frontend_flags};
use lbr_common::text::{ServiceName, Text};

use self::endpoints::{Choice, SlicesByService, choose};
pub(crate) use self::health::HEALTH_PORT;
use self::plan::{Plan, Role};
pub(crate) use self::ranges::service_cidrs;
use crate::cluster::ClusterState;
use crate::desired::Desired;
use crate::ids::Ids;
use crate::model::{Algorithm, Extent, ObjectName, Rejected};
use crate::node::here::Here;

pub(crate) fn compile(
    state: &ClusterState,
    here: &Here<'_>,
    ids: &mut Ids,
    desired: &mut Desired,
    rejected: &mut Vec<Rejected>,
) {
    let slices = SlicesByService::new(&state.slices);
    let mut plans = plans(state);
    frontends::claim(&mut plans, here, rejected);
    reject_if_nowhere(&plans, rejected);
    let on_loopback = if here.settings.without_localhost_nodeports { frontend_flags::BIND_ONLY } else { 0 };
    let mut wishes = Vec::new();
    for plan in plans.iter().filter(|plan| !plan.won.is_empty()) {
        let name = service_name(&plan.service.name, &plan.port.name);
        let id = ids.service(name, plan.proto, plan.family);
        desired.services.insert(id, name);
        let choice = choose(slices.of(&plan.service.name), plan.port, plan.family, plan.sets(), here);
        let is_balanced = plan.won.iter().any(|(role, _)| *role == Role::LoadBalancer);
        let flags = if is_balanced { ranges::write(plan.service, id, plan.family, here, desired) } else { 0 };
        frontends::write(plan, id, &choice, [flags, on_loopback], desired);
        write_backends(plan, id, &choice, here, ids, desired);
        if plan.service.algorithm == Algorithm::Maglev {
            for (set, targets) in (0..).zip(&choice.sets).filter(|(_, targets)| !targets.is_empty()) {
                let targets = targets.iter().map(|&(addr, port)| ((addr, port), ids.backend(id, addr, port)));
                wishes.push(maglev::Wish::new(plan, (id, set), &name, targets.collect()));
            }
        }
    }
    desired.peers = ranges::peers(state, here, plans.iter().any(Plan::is_direct));
    maglev::write(wishes, here.settings.maglev_tables, ids, desired, rejected);
    frontends::write_addresses(state, &plans, here, desired);
    health::compile(state, &slices, here, desired, rejected);
}

fn plans(state: &ClusterState) -> Vec<Plan<'_>> {
    let mut plans = Vec::new();
    for service in state.services.values() {
        for (index, port) in service.ports.iter().enumerate().filter(|_| !service.cluster_ips.is_empty()) {
            // A Service is served in the families of its cluster IPs.
            let has = |family| service.cluster_ips.iter().any(|ip| Family::of(*ip) == family);
            let families = Family::ALL.into_iter().filter(|family| has(*family));
            plans.extend(families.map(|family| Plan {
                service,
                port,
                index,
                proto: port.protocol.number(),
                family,
                won: Vec::new(),
            }));
        }
    }
    plans
}

/// A Service that got none of its addresses is not in force at all.
fn reject_if_nowhere(plans: &[Plan<'_>], rejected: &mut [Rejected]) {
    let mut nowhere: BTreeSet<&ObjectName> = plans.iter().map(|plan| &plan.service.name).collect();
    for plan in plans.iter().filter(|plan| !plan.won.is_empty()) {
        nowhere.remove(&plan.service.name);
    }
    let nowhere: BTreeSet<String> = nowhere.into_iter().map(|name| format!("Service {name}")).collect();
    for one in rejected.iter_mut().filter(|one| nowhere.contains(&one.object)) {
        one.extent = Extent::Rejected;
    }
}

fn service_name(service: &ObjectName, port: &str) -> ServiceName {
    ServiceName {
        namespace: Text::new(&service.namespace),
        name: Text::new(&service.name),
        port: Text::new(port),
    }
}

fn write_backends(
    plan: &Plan<'_>,
    service: u32,
    choice: &Choice,
    here: &Here<'_>,
    ids: &mut Ids,
    desired: &mut Desired,
) {
    for (&(addr, port), chosen) in &choice.backends {
        let id = ids.backend(service, addr, port);
        let flags = if chosen.here { backend_flags::HERE } else { 0 };
        let link = here.direct.of(addr.into());
        let backend =
            Backend { addr, ifindex: link, service, port, proto: plan.proto, sets: chosen.sets, flags };
        desired.backends.insert(id, backend);
    }
    for (set, targets) in (0..).zip(&choice.sets) {
        for (slot, &(addr, port)) in (0..).zip(targets) {
            let backend = ids.backend(service, addr, port);
            desired.slots.insert(SlotKey { service, set, slot }, Slot { backend });
        }
    }
}
