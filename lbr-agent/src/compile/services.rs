//! From Services to frontends, slots and backends.

use std::net::IpAddr;

use lbr_common::addr::Addr;
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, frontend_flags, set};
use lbr_common::text::{ServiceName, Text};
use lbr_common::tuple::proto;
use lbr_common::user::{proto_name, socket_text};

use super::direct::DirectLinks;
use super::endpoints::{Choice, SlicesByService, choose};
use super::{Ids, NodeView};
use crate::desired::Desired;
use crate::model::{Protocol, Rejected, Service, ServicePort, TrafficPolicy};
use crate::store::ClusterState;

pub(super) fn compile(
    state: &ClusterState,
    node: &NodeView,
    ids: &mut Ids,
    desired: &mut Desired,
    rejected: &mut Vec<Rejected>,
) {
    let slices = SlicesByService::new(&state.slices);
    let direct = DirectLinks::new(&node.links);
    for service in state.services.values().filter(|s| !s.cluster_ips.is_empty()) {
        let slices = slices.of(&service.name);
        for (index, port) in service.ports.iter().enumerate() {
            let field = format!("spec.ports[{index}]");
            let Some(number) = proto_number(port.protocol) else {
                rejected.push(Rejected {
                    object: format!("Service {}", service.name),
                    origin: String::new(),
                    field: format!("{field}.protocol"),
                    reason: "SCTP is not supported for Services: this port is refused to clients".to_owned(),
                });
                continue;
            };
            for v4 in [true, false] {
                let won = claim(service, port, number, v4, &field, desired, rejected);
                let Some(first) = won.first() else { continue };
                let id = ids.service(*first);
                let choice = choose(slices, port, v4, service.internal_policy, &node.name);
                write(service, port, id, &won, &choice, desired);
                write_backends(id, set_of(service), number, &choice, &direct, ids, desired);
            }
        }
        for ip in &service.cluster_ips {
            desired.frontends.insert(key(*ip, 0, 0), WHOLE_ADDRESS);
        }
    }
}

/// Ports of a ClusterIP that no Service has are refused, whatever the protocol.
const WHOLE_ADDRESS: Frontend =
    Frontend { service: 0, count: 0, flags: frontend_flags::ADDRESS, set: 0, affinity: 0, maglev: 0 };

/// The frontends of a Service port in one family, without those that another port or Service has already.
fn claim(
    service: &Service,
    port: &ServicePort,
    proto: u8,
    v4: bool,
    field: &str,
    desired: &Desired,
    rejected: &mut Vec<Rejected>,
) -> Vec<FrontendKey> {
    let mut won = Vec::new();
    for ip in &service.cluster_ips {
        let key = key(*ip, port.port, proto);
        if key.addr.is_v4() != v4 || won.contains(&key) {
            continue;
        }
        let Some(owner) = desired.frontends.get(&key) else {
            won.push(key);
            continue;
        };
        let name = desired.services.get(&owner.service).copied().unwrap_or_default();
        let (socket, proto) = (socket_text(key.addr, key.port), proto_name(proto));
        let (namespace, name) = (name.namespace.as_str(), name.name.as_str());
        rejected.push(Rejected {
            object: format!("Service {}", service.name),
            origin: String::new(),
            field: field.to_owned(),
            reason: format!("{socket}/{proto} already belongs to Service {namespace}/{name}"),
        });
    }
    won
}

fn write(
    service: &Service,
    port: &ServicePort,
    id: u32,
    frontends: &[FrontendKey],
    choice: &Choice,
    desired: &mut Desired,
) {
    let name = ServiceName {
        namespace: Text::new(&service.name.namespace),
        name: Text::new(&service.name.name),
        port: Text::new(&port.name),
    };
    desired.services.insert(id, name);
    // Without an endpoint anywhere the client is told so; only what could be served elsewhere is dropped.
    let local = service.internal_policy == TrafficPolicy::Local && choice.anywhere;
    let frontend = Frontend {
        service: id,
        count: u32::try_from(choice.active.len()).unwrap_or(u32::MAX),
        flags: if local { frontend_flags::LOCAL_ONLY } else { 0 },
        set: set_of(service),
        affinity: 0,
        maglev: 0,
    };
    desired.frontends.extend(frontends.iter().map(|&key| (key, frontend)));
}

/// The set of backends that the ClusterIPs of a Service lead to.
fn set_of(service: &Service) -> u32 {
    match service.internal_policy {
        TrafficPolicy::Cluster => set::CLUSTER,
        TrafficPolicy::Local => set::LOCAL,
    }
}

fn write_backends(
    service: u32,
    set: u32,
    proto: u8,
    choice: &Choice,
    direct: &DirectLinks<'_>,
    ids: &mut Ids,
    desired: &mut Desired,
) {
    let mut add = |&(addr, port): &(Addr, u16), sets: u8| {
        let id = ids.backend(service, addr, port);
        let link = direct.of(addr.into());
        desired.backends.insert(id, Backend { addr, link, service, port, proto, sets, flags: 0 });
        id
    };
    for (slot, endpoint) in (0..).zip(&choice.active) {
        let backend = add(endpoint, set::bit(set));
        desired.slots.insert(SlotKey { service, set, slot }, Slot { backend });
    }
    for endpoint in &choice.draining {
        add(endpoint, 0);
    }
}

fn key(ip: IpAddr, port: u16, proto: u8) -> FrontendKey {
    FrontendKey { addr: ip.into(), port, proto, ..FrontendKey::default() }
}

/// The data path translates neither SCTP nor anything else that it does not name: `None`.
fn proto_number(protocol: Protocol) -> Option<u8> {
    match protocol {
        Protocol::Tcp => Some(proto::TCP),
        Protocol::Udp => Some(proto::UDP),
        Protocol::Sctp => None,
    }
}
