//! Health check ports: where load balancers ask whether this node has endpoints of a Service.

use std::collections::BTreeSet;

use lbr_common::addr::{Addr, Family};

use super::endpoints::{SlicesByService, ready_here};
use super::node::Here;
use crate::desired::{Desired, HealthPort};
use crate::model::Rejected;
use crate::store::ClusterState;

/// Terminating endpoints do not count, although they still serve: load balancers should go elsewhere.
pub(super) fn compile(
    state: &ClusterState,
    slices: &SlicesByService<'_>,
    here: &Here<'_>,
    desired: &mut Desired,
    rejected: &mut Vec<Rejected>,
) {
    for service in state.services.values() {
        let Some(number) = service.health_check_port else { continue };
        if let Some(owner) = desired.health_ports.get(&number) {
            rejected.push(Rejected {
                object: format!("Service {}", service.name),
                origin: String::new(),
                field: "spec.healthCheckNodePort".to_owned(),
                reason: format!("{number} already belongs to Service {}", owner.service),
            });
            continue;
        }
        let slices = slices.of(&service.name);
        // A pod of both families is one endpoint.
        let local_ready = Family::ALL.map(|family| {
            let of_port = |port| ready_here(slices, port, family, here);
            service.ports.iter().flat_map(of_port).collect::<BTreeSet<Addr>>().len()
        });
        let local_ready = local_ready.into_iter().max().unwrap_or(0);
        desired.health_ports.insert(number, HealthPort { service: service.name.clone(), local_ready });
    }
}
