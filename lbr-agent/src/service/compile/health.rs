//! Health check ports: where load balancers ask whether this node has endpoints of a Service.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lbr_common::addr::{Addr, Family};
use lbr_common::service::{FrontendKey, scope};
use lbr_common::tuple::proto;

use super::endpoints::{SlicesByService, ready_here};
use crate::cluster::ClusterState;
use crate::desired::{Desired, HealthPort};
use crate::model::Rejected;
use crate::node::here::Here;

/// The field with the port.
pub(crate) const HEALTH_PORT: &str = "spec.healthCheckNodePort";

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
        let mut reject = |reason: String| {
            rejected.push(Rejected::limited(format!("Service {}", service.name), HEALTH_PORT, reason));
        };
        if let Some(owner) = desired.health_ports.get(&number) {
            reject(format!("{number} already belongs to Service {}", owner.service));
            continue;
        }
        if let Some(owner) = node_port(desired, number) {
            reject(format!(
                "{number} is also the NodePort of Service {owner}, which gets its packets: give one of the two another \
                 number"
            ));
            continue;
        }
        if let Some(why) = here.refused_ports.get(&number) {
            reject(format!(
                "{why}: load balancers cannot ask this node, which tries again. To find the process that has the port: \
                 ss -ltnp sport = :{number}"
            ));
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

/// The Service with this NodePort. Each one has an entry for processes of the node.
fn node_port(desired: &Desired, port: u16) -> Option<String> {
    let at = |ip: IpAddr| {
        let scope = scope::HOST_LOCAL;
        desired.frontends.get(&FrontendKey {
            addr: ip.into(),
            port,
            proto: proto::TCP,
            scope,
            ..FrontendKey::default()
        })
    };
    let frontend = at(Ipv4Addr::LOCALHOST.into()).or_else(|| at(Ipv6Addr::LOCALHOST.into()))?;
    let name = desired.services.get(&frontend.service)?;
    Some(format!("{}/{}", name.namespace.as_str(), name.name.as_str()))
}
