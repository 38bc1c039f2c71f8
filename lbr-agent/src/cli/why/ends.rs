//! Names and addresses as typed, found in the maps.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use lbr_common::addr::Addr;
use lbr_common::service::{Frontend, FrontendKey, frontend_flags, scope};
use lbr_common::text::{ServiceName, Text};
use lbr_common::tuple::proto;
use lbr_common::user::proto_name;

use crate::cli::args::Proto;
use crate::cli::names;
use crate::dataplane::resolve;
use crate::desired::Desired;

/// A pod or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// As typed.
    pub(super) name: String,
    /// All of its addresses.
    pub(super) addrs: Vec<Addr>,
}

/// The destination of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A pod or an address; port 0: none was given.
    Place(Place, Port),
    /// A Service: its name, its addresses and one of its ports (or one that it does not have).
    Service(Place, Port),
}

/// A port of a Service, or of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) proto: u8,
    /// Name in the Service, if it has one.
    pub(super) name: String,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, proto_name(self.proto))?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " ({})", self.name) }
    }
}

/// The client.
pub(super) fn source(tables: &Desired, text: &str) -> anyhow::Result<Place> {
    if let Some(addr) = address(text) {
        return Ok(Place { name: text.to_owned(), addrs: vec![addr] });
    }
    let pods = pod_addrs(tables, text);
    if !pods.is_empty() {
        return Ok(Place { name: text.to_owned(), addrs: pods });
    }
    if !service_addrs(tables, text).is_empty() {
        bail!("{text} is a Service, and Services open no connections: name a pod or an IP address");
    }
    bail!(unknown(tables, text, false))
}

/// The destination and its port.
pub(super) fn target(
    tables: &Desired,
    text: &str,
    port: Option<&str>,
    proto: Option<Proto>,
) -> anyhow::Result<Target> {
    let place = |addrs| Place { name: text.to_owned(), addrs };
    if let Some(addr) = address(text) {
        return match service_at(tables, &addr, port) {
            Some(name) => service(tables, Place { name, addrs: vec![addr] }, port, proto),
            None => Ok(match straight(place(vec![addr]), port, proto)? {
                // To ask there means to ask for a Service, which does not exist.
                Target::Place(place, port) if resolve::is_unallocated(tables, &addr) => {
                    Target::Service(place, port)
                }
                target => target,
            }),
        };
    }
    let (pods, services) = (pod_addrs(tables, text), service_addrs(tables, text));
    match (pods.first(), services.first()) {
        (Some(pod), Some(service)) => bail!(
            "{text} is a pod and a Service: give an IP address instead, {pod} for the pod or {service} for the \
             Service"
        ),
        (Some(_), None) => straight(place(pods), port, proto),
        (None, Some(_)) => service(tables, place(services), port, proto),
        (None, None) => bail!(unknown(tables, text, true)),
    }
}

fn address(text: &str) -> Option<Addr> {
    // People copy addresses in brackets from URLs.
    text.trim_matches(['[', ']']).parse::<IpAddr>().ok().map(Addr::from)
}

fn pod_addrs(tables: &Desired, name: &str) -> Vec<Addr> {
    let Some((namespace, name)) = name.split_once('/') else { return Vec::new() };
    let named = tables
        .pod_names
        .iter()
        .filter(|(_, pod)| pod.namespace.as_str() == namespace && pod.name == Text::new(name));
    named.map(|(addr, _)| *addr).collect()
}

fn service_addrs(tables: &Desired, name: &str) -> Vec<Addr> {
    let Some((namespace, name)) = name.split_once('/') else { return Vec::new() };
    let named =
        |service: &ServiceName| service.namespace.as_str() == namespace && service.name.as_str() == name;
    let ids: BTreeSet<u32> = tables.services.iter().filter(|(_, s)| named(s)).map(|(id, _)| *id).collect();
    // At the node's own addresses the Service has NodePorts: these are asked for by address.
    let frontends = of_ports(tables).filter(|(key, f)| {
        ids.contains(&f.service)
            && whole(tables, &key.addr).is_some_and(|f| f.flags & frontend_flags::HOST == 0)
    });
    let addrs: BTreeSet<Addr> = frontends.map(|(key, _)| key.addr).collect();
    addrs.into_iter().collect()
}

/// The entry for a whole address, without a port.
fn whole<'a>(tables: &'a Desired, addr: &Addr) -> Option<&'a Frontend> {
    tables.frontends.get(&FrontendKey { addr: *addr, ..FrontendKey::default() })
}

/// Frontends for every client, without those for some clients only.
fn of_ports(tables: &Desired) -> impl Iterator<Item = (&FrontendKey, &Frontend)> {
    let all = tables.frontends.iter();
    all.filter(|(key, f)| key.scope == scope::ANY && f.flags & frontend_flags::WILDCARD == 0)
}

/// Name of the Service that has this address, or this port of it. A ClusterIP is a Service's as a whole. Any other address
/// is also a host's: without a port, one of this node's is the node's.
fn service_at(tables: &Desired, addr: &Addr, port: Option<&str>) -> Option<String> {
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

/// Ports at the addresses of a Service.
pub(super) fn ports(tables: &Desired, service: &Place) -> BTreeSet<Port> {
    let here = of_ports(tables).filter(|(key, _)| service.addrs.contains(&key.addr));
    let port = |id| tables.services.get(id).map(|name| name.port.as_str().to_owned()).unwrap_or_default();
    here.map(|(key, f)| Port { number: key.port, proto: key.proto, name: port(&f.service) }).collect()
}

/// `80/TCP (http), 53/UDP (dns)`.
pub(super) fn port_list(ports: &BTreeSet<Port>) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn straight(place: Place, port: Option<&str>, proto: Option<Proto>) -> anyhow::Result<Target> {
    let proto = proto.unwrap_or(Proto::Tcp);
    let number = match port {
        None => 0,
        Some(_) if proto == Proto::Icmp => bail!("ICMP has no ports: leave out --port"),
        Some(text) => number(text)?.with_context(|| {
            format!(
                "--port {text}: names are for ports of Services, and {} is none: give a number",
                place.name
            )
        })?,
    };
    Ok(Target::Place(place, Port { number, proto: proto.number(), name: String::new() }))
}

fn service(
    tables: &Desired,
    place: Place,
    port: Option<&str>,
    proto: Option<Proto>,
) -> anyhow::Result<Target> {
    let all = ports(tables, &place);
    let wanted = proto.map(Proto::number);
    if wanted == Some(proto::ICMP) {
        let port = Port { number: 0, proto: proto::ICMP, name: String::new() };
        return Ok(Target::Service(place, port));
    }
    let mut fitting: Vec<&Port> = all.iter().filter(|p| wanted.is_none_or(|w| w == p.proto)).collect();
    let unnamed = match port {
        None => None,
        Some(text) => {
            let number = number(text)?;
            fitting.retain(|p| number.map_or(p.name == text, |number| p.number == number));
            if fitting.is_empty() && number.is_none() {
                bail!("--port {text}: Service {} has no such port; it has {}", place.name, port_list(&all));
            }
            // TCP first, as in Kubernetes' own defaults: its number is the lowest.
            fitting.truncate(1);
            number
        }
    };
    let port = match (fitting.as_slice(), unnamed) {
        (&[port], _) => port.clone(),
        // A number that the Service does not have gets an answer (refused), not an error.
        (_, Some(number)) => Port { number, proto: wanted.unwrap_or(proto::TCP), name: String::new() },
        _ => bail!("Service {}: give --port with one of its ports: {}", place.name, port_list(&all)),
    };
    Ok(Target::Service(place, port))
}

/// A number from 1; `None` if the text is a name.
fn number(text: &str) -> anyhow::Result<Option<u16>> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let number = text.parse().ok().filter(|&n| n > 0);
    number.map(Some).with_context(|| format!("--port {text}: a port is a number from 1 to 65535"))
}

fn unknown(tables: &Desired, text: &str, or_service: bool) -> String {
    let what = if or_service { "pod or Service with a ClusterIP" } else { "pod" };
    // The most frequent mistake is a name without its namespace, or with the wrong one.
    let name = text.rsplit('/').next().unwrap_or(text);
    let pods = tables.pod_names.iter().filter(|(_, pod)| pod.name.as_str() == name);
    let pods = pods.filter_map(|(addr, _)| names::pod(tables, addr));
    let services = tables.services.values().filter(|s| or_service && s.name.as_str() == name);
    let services = services.map(|s| format!("{}/{}", s.namespace.as_str(), s.name.as_str()));
    let similar: Vec<String> = pods.chain(services).collect::<BTreeSet<_>>().into_iter().take(5).collect();
    if similar.is_empty() {
        format!("no {what} {text} is known here: write namespace/name as in `kubectl get`, or an IP address")
    } else {
        format!("no {what} {text} is known here: did you mean {}?", similar.join(" or "))
    }
}
