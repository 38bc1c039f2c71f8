//! Names of pods and Services in the maps, and who has an address.

use std::collections::BTreeSet;

use lbr_common::addr::Addr;
use lbr_common::service::{Frontend, FrontendKey, frontend_flags, scope};
use lbr_common::text::{ServiceName, Text};

use crate::desired::Desired;
use crate::service::look_up;

pub(super) fn pod_addrs(tables: &Desired, name: &str) -> Vec<Addr> {
    let Some((namespace, name)) = name.split_once('/') else { return Vec::new() };
    let named = tables
        .pod_names
        .iter()
        .filter(|(_, pod)| pod.namespace.as_str() == namespace && pod.name == Text::new(name));
    named.map(|(addr, _)| *addr).collect()
}

pub(super) fn service_addrs(tables: &Desired, name: &str) -> Vec<Addr> {
    let Some((namespace, name)) = name.split_once('/') else { return Vec::new() };
    let named =
        |service: &ServiceName| service.namespace.as_str() == namespace && service.name.as_str() == name;
    let ids: BTreeSet<_> = tables.services.iter().filter(|(_, s)| named(s)).map(|(id, _)| *id).collect();
    // At the node's own addresses the Service has NodePorts: these are asked for by address.
    let frontends = of_ports(tables).filter(|(key, f)| {
        ids.contains(&f.service)
            && whole(tables, &key.addr).is_some_and(|f| f.flags & frontend_flags::HOST == 0)
    });
    let addrs: BTreeSet<Addr> = frontends.map(|(key, _)| key.addr).collect();
    addrs.into_iter().collect()
}

/// The entry for a whole address, without a port.
pub(super) fn whole<'a>(tables: &'a Desired, addr: &Addr) -> Option<&'a Frontend> {
    tables.frontends.get(&FrontendKey { addr: *addr, scope: scope_of(addr), ..FrontendKey::default() })
}

/// Loopback addresses have frontends for sockets of the node only.
fn scope_of(addr: &Addr) -> u8 {
    if look_up::is_own_to_node(*addr) { scope::HOST_LOCAL } else { scope::ANY }
}

/// Frontends for every client, without those for external clients only.
pub(super) fn of_ports(tables: &Desired) -> impl Iterator<Item = (&FrontendKey, &Frontend)> {
    let all = tables.frontends.iter();
    all.filter(|(key, f)| key.scope == scope_of(&key.addr) && f.flags & frontend_flags::WILDCARD == 0)
}

/// Name of the Service that has this address, or this port of it. A ClusterIP is a Service's as a whole. Any other address
/// is also a host's: without a port, one of this node's is the node's.
pub(super) fn service_at(tables: &Desired, addr: &Addr, port: Option<&str>) -> Option<String> {
    let flags = whole(tables, addr)?.flags;
    let is_whole = flags & frontend_flags::PASS_UNMATCHED == 0;
    let service = |frontend: &Frontend| tables.services.get(&frontend.service);
    let is_asked = |key: &FrontendKey, frontend: &Frontend| match port {
        _ if is_whole => true,
        Some(port) => {
            *port == key.port.to_string() || service(frontend).is_some_and(|name| name.port.as_str() == port)
        }
        None => flags & frontend_flags::HOST == 0,
    };
    let found = of_ports(tables).find(|(key, frontend)| key.addr == *addr && is_asked(key, frontend));
    let text = |name: &ServiceName| format!("{}/{}", name.namespace.as_str(), name.name.as_str());
    match found {
        Some((_, frontend)) => Some(service(frontend).map_or_else(|| addr.to_string(), text)),
        None => is_whole.then(|| addr.to_string()),
    }
}
