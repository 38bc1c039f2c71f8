//! Names and addresses as typed, found in the maps.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use anyhow::{Context as _, bail};
use lbr_common::addr::Addr;
use lbr_common::policy::policy_flags;
use lbr_common::tuple::proto;
use lbr_common::user::proto_name;

use super::find::{of_ports, pod_addrs, service_addrs, service_at};
use super::question::{self, Kind, Name, Subject};
use crate::cli::args::Proto;
use crate::cli::names;
use crate::desired::Desired;
use crate::service::look_up;

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

/// The client. `node`: name of this node.
pub(super) fn source(tables: &Desired, text: &str, node: &str) -> anyhow::Result<Place> {
    let (subject, port) = question::read(text)?;
    if port.is_some() {
        bail!("{text}: the client's port does not matter to policies: leave it out");
    }
    let names = match subject {
        Subject::Address(addr) => return Ok(Place { name: addr.to_string(), addrs: vec![addr] }),
        Subject::Node(name) => return this_node(tables, text, name, node),
        Subject::Named(names) => names,
    };
    let found = matches(tables, &names);
    let (pods, services): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.kind == Kind::Pod);
    match pods.as_slice() {
        [pod] => Ok(pod.place.clone()),
        [] if services.is_empty() => bail!(unknown(tables, text, &names, Some(Kind::Pod))),
        [] => bail!("{text} is a Service, and Services open no connections: name a pod or an IP address"),
        several => bail!(ambiguous(text, several, "")),
    }
}

/// The destination and its port; and which of several was taken, if the name stands for several.
pub(super) fn target(
    tables: &Desired,
    text: &str,
    port: Option<&str>,
    proto: Option<Proto>,
    node: &str,
) -> anyhow::Result<(Target, String)> {
    let (subject, behind) = question::read(text)?;
    let port = match (behind, port) {
        (Some(behind), Some(port)) if behind != port => {
            bail!("{text} and --port {port} contradict each other: give one port")
        }
        (behind, port) => behind.or(port),
    };
    let names = match subject {
        Subject::Address(addr) => return Ok((at_address(tables, addr, port, proto)?, String::new())),
        Subject::Node(name) => {
            let place = this_node(tables, text, name, node)?;
            return Ok((at_node(tables, place, port, proto)?, String::new()));
        }
        Subject::Named(names) => names,
    };
    let found = matches(tables, &names);
    let (taken, why) = match found.as_slice() {
        [] => {
            let kind = names.first().and_then(|name| name.kind);
            bail!(unknown(tables, text, &names, kind))
        }
        [one] => (one, String::new()),
        several => by_port(tables, text, several, port, proto)?,
    };
    let place = taken.place.clone();
    let target = match taken.kind {
        Kind::Pod => straight(place, port, proto),
        Kind::Service => service(tables, place, port, proto),
    };
    Ok((target?, why))
}

fn at_address(
    tables: &Desired,
    addr: Addr,
    port: Option<&str>,
    proto: Option<Proto>,
) -> anyhow::Result<Target> {
    if let Some(name) = service_at(tables, &addr, port) {
        return service(tables, Place { name, addrs: vec![addr] }, port, proto);
    }
    let place = Place { name: addr.to_string(), addrs: vec![addr] };
    Ok(match straight(place, port, proto)? {
        // To ask there means to ask for a Service, which does not exist.
        Target::Place(place, port) if look_up::is_unallocated(tables, &addr) => Target::Service(place, port),
        target => target,
    })
}

/// This node: one of its NodePorts, or one of its own ports.
fn at_node(
    tables: &Desired,
    place: Place,
    port: Option<&str>,
    proto: Option<Proto>,
) -> anyhow::Result<Target> {
    let with_port = |addr: &Addr| Some((*addr, service_at(tables, addr, port)?));
    let found: Vec<(Addr, String)> = place.addrs.iter().filter_map(with_port).collect();
    match found.first() {
        Some((_, name)) => {
            let addrs = found.iter().filter(|(_, other)| other == name).map(|(addr, _)| *addr).collect();
            service(tables, Place { name: name.clone(), addrs }, port, proto)
        }
        None => straight(place, port, proto),
    }
}

/// A pod or a Service with a name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    kind: Kind,
    place: Place,
}

impl Found {
    /// The spelling that means nothing else.
    fn spelling(&self) -> String {
        format!("{}/{}", self.kind.prefix(), self.place.name)
    }
}

/// Everything that a name can mean.
fn matches(tables: &Desired, names: &[Name<'_>]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for name in names {
        let full = format!("{}/{}", name.namespace, name.name);
        for kind in [Kind::Pod, Kind::Service] {
            if name.kind.is_some_and(|wanted| wanted != kind) {
                continue;
            }
            let addrs = match kind {
                Kind::Pod => pod_addrs(tables, &full),
                Kind::Service => service_addrs(tables, &full),
            };
            let one = Found { kind, place: Place { name: full.clone(), addrs } };
            if !one.place.addrs.is_empty() && !found.contains(&one) {
                found.push(one);
            }
        }
    }
    found
}

/// Of several, the only Service that has the port, else the only pod; and a sentence about it.
fn by_port<'a>(
    tables: &Desired,
    text: &str,
    found: &'a [Found],
    port: Option<&str>,
    proto: Option<Proto>,
) -> anyhow::Result<(&'a Found, String)> {
    let Some(port) = port.filter(|_| proto != Some(Proto::Icmp)) else {
        bail!(ambiguous(text, found, ", or give a port"));
    };
    let number = number(port)?;
    let has_port = |found: &&Found| {
        found.kind == Kind::Service
            && ports(tables, &found.place).iter().any(|p| {
                proto.is_none_or(|proto| proto.number() == p.proto)
                    && number.map_or(p.name == port, |number| p.number == number)
            })
    };
    let services: Vec<&Found> = found.iter().filter(has_port).collect();
    let pods: Vec<&Found> = found.iter().filter(|found| found.kind == Kind::Pod).collect();
    let others = |taken: &Found| {
        let others = found.iter().filter(|other| *other != taken).map(Found::spelling);
        others.collect::<Vec<_>>().join(" or ")
    };
    match (services.as_slice(), pods.as_slice()) {
        ([taken], _) => {
            let why = format!("{text} is taken for {}, which has port {port}", taken.spelling());
            Ok((taken, format!("{why}; for the other one, write {}", others(taken))))
        }
        // Names are for ports of Services.
        ([], [taken]) if number.is_some() => {
            let why = format!(
                "{text} is taken for {}, since no Service of this name has port {port}",
                taken.spelling()
            );
            Ok((taken, format!("{why}; for the other one, write {}", others(taken))))
        }
        _ => bail!(ambiguous(text, found, "")),
    }
}

fn ambiguous(text: &str, found: &[Found], or: &str) -> String {
    let all: Vec<String> = found.iter().map(Found::spelling).collect();
    format!("{text} can be {}: write one of these{or}", all.join(" or "))
}

/// The node's own addresses.
fn this_node(tables: &Desired, text: &str, asked: Option<&str>, node: &str) -> anyhow::Result<Place> {
    if let Some(asked) = asked.filter(|asked| *asked != node) {
        bail!(
            "{text}: this node is {node}, and lbr does not keep the addresses of other nodes by name: give an IP \
             address of {asked}"
        );
    }
    let is_own = |addr: &Addr, flags: u32| {
        let is_link_local = matches!(IpAddr::from(*addr), IpAddr::V6(ip) if ip.is_unicast_link_local());
        flags & policy_flags::NODE != 0 && !is_link_local
    };
    let own = tables.endpoints.iter().filter(|(addr, endpoint)| is_own(addr, endpoint.policy.flags));
    let addrs: Vec<Addr> = own.map(|(addr, _)| *addr).collect();
    anyhow::ensure!(!addrs.is_empty(), "{text}: no address of this node is in the maps: give an IP address");
    Ok(Place { name: format!("node/{node}"), addrs })
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

fn unknown(tables: &Desired, text: &str, names: &[Name<'_>], kind: Option<Kind>) -> String {
    let what = match kind {
        Some(Kind::Pod) => "pod",
        Some(Kind::Service) => "Service with a ClusterIP",
        None => "pod or Service with a ClusterIP",
    };
    // The most frequent mistake is a name without its namespace, or with the wrong one.
    let name = names.first().map_or(text.split(':').next().unwrap_or(text), |name| name.name);
    let pods = tables.pod_names.iter().filter(|(_, pod)| pod.name.as_str() == name);
    let pods = pods.filter(|_| kind != Some(Kind::Service)).filter_map(|(addr, _)| names::pod(tables, addr));
    let services = tables.services.values().filter(|s| s.name.as_str() == name);
    let services = services.filter(|_| kind != Some(Kind::Pod));
    let services = services.map(|s| format!("{}/{}", s.namespace.as_str(), s.name.as_str()));
    let similar: Vec<String> = pods.chain(services).collect::<BTreeSet<_>>().into_iter().take(5).collect();
    if similar.is_empty() {
        format!(
            "no {what} {text} is known here: write namespace/name as in `kubectl get`, pod/NAME, svc/NAME, node/NAME, or \
             an IP address"
        )
    } else {
        format!("no {what} {text} is known here: did you mean {}?", similar.join(" or "))
    }
}
