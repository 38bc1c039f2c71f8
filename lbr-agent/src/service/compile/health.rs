//! Health check ports: where load balancers ask whether this node has endpoints of a Service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lbr_common::addr::{Addr, Family};
use lbr_common::service::{FrontendKey, scope};
use lbr_common::tuple::proto;

use super::endpoints::ready_here;
use crate::desired::HealthPort;
use crate::model::{EndpointSlice, Kind, ObjectName, Rejected, Service};
use crate::node::here::Here;
use crate::table::ServiceMaps;

/// The field with the port.
pub(crate) const HEALTH_PORT: &str = "spec.healthCheckNodePort";

/// How many ready endpoints of a Service are on this node. Terminating ones do not count, although they still serve: load
/// balancers should go elsewhere.
pub(super) fn local_ready(service: &Service, slices: &[&EndpointSlice], here: &Here<'_>) -> usize {
    // A pod of both families is one endpoint.
    let of_family = Family::ALL.map(|family| {
        let of_port = |port| ready_here(slices, port, family, here);
        service.ports.iter().flat_map(of_port).collect::<BTreeSet<Addr>>().len()
    });
    of_family.into_iter().max().unwrap_or(0)
}

/// A Service that asks for a health check port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) number: u16,
    pub(super) local_ready: usize,
}

/// The ports to listen on, and what is rejected of those that are asked for.
pub(super) fn compile<'a>(
    asked: impl Iterator<Item = (&'a ObjectName, Probe)>,
    refused: &BTreeMap<u16, String>,
    maps: &ServiceMaps,
) -> (BTreeMap<u16, HealthPort>, Vec<Rejected>) {
    let (mut ports, mut rejected) = (BTreeMap::<u16, HealthPort>::new(), Vec::new());
    for (service, Probe { number, local_ready }) in asked {
        let mut reject = |reason: String| {
            rejected.push(Rejected::limited(Kind::Service.named(service), HEALTH_PORT, reason));
        };
        if let Some(owner) = ports.get(&number) {
            reject(format!("{number} already belongs to Service {}", owner.service));
            continue;
        }
        if let Some(owner) = node_port(maps, number) {
            reject(format!(
                "{number} is also the NodePort of Service {owner}, which gets its packets: give one of the two another \
                 number"
            ));
            continue;
        }
        if let Some(why) = refused.get(&number) {
            reject(format!(
                "{why}: load balancers cannot ask this node, which tries again. To find the process that has the port: \
                 ss -ltnp sport = :{number}"
            ));
        }
        ports.insert(number, HealthPort { service: service.clone(), local_ready });
    }
    (ports, rejected)
}

/// The Service with this NodePort. Each one has an entry for processes of the node that ask for all addresses.
fn node_port(maps: &ServiceMaps, port: u16) -> Option<String> {
    let at = |addr: IpAddr| {
        let scope = scope::HOST_LOCAL;
        maps.frontends.get(&FrontendKey {
            addr: addr.into(),
            port,
            proto: proto::TCP,
            scope,
            ..FrontendKey::default()
        })
    };
    let frontend = at(Ipv4Addr::UNSPECIFIED.into()).or_else(|| at(Ipv6Addr::UNSPECIFIED.into()))?;
    let name = maps.services.get(&frontend.service)?;
    Some(format!("{}/{}", name.namespace.as_str(), name.name.as_str()))
}
