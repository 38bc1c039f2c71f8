//! The answer itself: a pure function of the tables and the question.

use anyhow::bail;
use lbr_common::addr::{Addr, Family};
use lbr_common::id::PolicySetId;
use lbr_common::policy::{Allow, Ports, Prefix, direction, policy_flags};
use lbr_common::text::{RuleKey, RuleText};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::user::{proto_name, socket_text};
use lbr_common::verdict::Verdict;

use super::ends::{self, Place, Port, Target};
use super::types::{Connection, End, Frontend, Opinion, Why};
use crate::cli::args::Proto;
use crate::cli::names;
use crate::desired::Desired;
use crate::policy::judge::{Judged, Side, judge};
use crate::service::look_up::{self, Sender};

/// A question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) port: Option<&'a str>,
    pub(super) proto: Option<Proto>,
    /// Name of this node.
    pub(super) node: &'a str,
}

/// Answers a question.
pub(super) fn why(tables: &Desired, query: &Query<'_>) -> anyhow::Result<Why> {
    let source = ends::source(tables, query.from, query.node)?;
    let (target, taken) = ends::target(tables, query.to, query.port, query.proto, query.node)?;
    let spoofed = spoofed(tables, &source);
    let (services, connections) = match target {
        Target::Place(place, port) => (Vec::new(), straight(tables, &source, &place, &port)?),
        Target::Service(service, port) => by_service(tables, &source, &service, &port)?,
    };
    let refused = services.iter().any(|service| !service.refused.is_empty());
    if services.is_empty() && spoofed.is_none() {
        check_that_it_is_ours(&connections)?;
    }
    let allowed = spoofed.is_none() && !refused && connections.iter().all(|c| c.allowed);
    let summary = match &spoofed {
        Some(reason) => format!("denied: {reason}"),
        None => super::text::summary(&services, &connections),
    };
    Ok(Why { allowed, summary, taken, spoofed, services, connections })
}

/// Why no packet has this source, if that is so.
fn spoofed(tables: &Desired, source: &Place) -> Option<String> {
    let is_it =
        |addr: &Addr| !tables.endpoints.contains_key(addr) && look_up::is_service_source(tables, addr);
    let addr = source.addrs.first().filter(|_| source.addrs.iter().all(is_it))?;
    Some(format!("{addr} is an address of Services, and packets from it are dropped (counter martian)"))
}

fn straight(tables: &Desired, source: &Place, to: &Place, port: &Port) -> anyhow::Result<Vec<Connection>> {
    let pairs = pairs(source, to)?;
    let tuples: Vec<Tuple> = pairs.iter().map(|&(src, dst)| tuple(src, dst, port)).collect();
    if port.number == 0 && port.proto != proto::ICMP {
        let apart = |t: &&Tuple| tells_ports_apart(tables, t);
        if let Some(tuple) = tuples.iter().find(apart) {
            bail!(
                "the policies between {} and {} depend on {} ports: give --port",
                source.name,
                to.name,
                proto_name(tuple.proto)
            );
        }
    }
    Ok(tuples.iter().map(|tuple| connection(tables, tuple)).collect())
}

fn by_service(
    tables: &Desired,
    source: &Place,
    service: &Place,
    port: &Port,
) -> anyhow::Result<(Vec<Frontend>, Vec<Connection>)> {
    let mut frontends: Vec<Frontend> = Vec::new();
    let mut connections = Vec::new();
    for (src, dst) in pairs(source, service)? {
        let asked = tuple(src, dst, port);
        let found = look_up::endpoints(tables, &asked, sender(tables, &src));
        if found == Err(Verdict::NotService) {
            // A port of the host that has the address.
            connections.push(connection(tables, &asked));
            continue;
        }
        let refused = match &found {
            Ok(_) => String::new(),
            Err(Verdict::NoSuchPort) => {
                let all = ends::ports(tables, service);
                format!("it has no such port, only {}", ends::port_list(&all))
            }
            Err(Verdict::NoEndpoint) => "it has no usable endpoint".to_owned(),
            Err(Verdict::NoLocalEndpoint) => {
                "it is for endpoints of this node only (Local traffic policy), and there is none".to_owned()
            }
            Err(Verdict::UnallocatedAddress) => {
                "no Service has this address of a ServiceCIDR, so packets to it are dropped".to_owned()
            }
            Err(Verdict::Unanswerable) => "processes of this node reach it by TCP and UDP only".to_owned(),
            Err(Verdict::SourceNotInRanges) => {
                "it serves only the clients of its loadBalancerSourceRanges".to_owned()
            }
            Err(other) => other.name().to_owned(),
        };
        let counter = found.as_ref().err().map_or("", |verdict| verdict.name());
        let endpoints = found.unwrap_or_default();
        let frontend = Frontend {
            service: service.name.clone(),
            address: dst.to_string(),
            port: if port.number == 0 { proto_name(asked.proto).into_owned() } else { port.to_string() },
            endpoints: endpoints.len(),
            refused,
            counter,
        };
        if !frontends.contains(&frontend) {
            frontends.push(frontend);
        }
        let translated = endpoints.into_iter().map(|(dst, dst_port)| Tuple { dst, dst_port, ..asked });
        connections.extend(translated.map(|tuple| to_endpoint(tables, &tuple)));
    }
    Ok((frontends, connections))
}

/// Every source with every destination of its family.
fn pairs(source: &Place, to: &Place) -> anyhow::Result<Vec<(Addr, Addr)>> {
    let of = |src: &Addr| {
        let src = *src;
        let same = to.addrs.iter().filter(move |dst| dst.is_v4() == src.is_v4());
        same.map(move |dst| (src, *dst))
    };
    let pairs: Vec<_> = source.addrs.iter().flat_map(of).collect();
    if pairs.is_empty() {
        let family = |place: &Place| place.addrs.first().map_or(Family::V6, Addr::family).name();
        bail!(
            "{} has {} only and {} has {} only: there is no way between them",
            source.name,
            family(source),
            to.name,
            family(to)
        );
    }
    Ok(pairs)
}

fn tuple(src: Addr, dst: Addr, port: &Port) -> Tuple {
    let proto = if port.proto == proto::ICMP && !dst.is_v4() { proto::ICMPV6 } else { port.proto };
    Tuple { src, dst, dst_port: port.number, proto, ..Tuple::default() }
}

/// Whether the answer depends on the port.
fn tells_ports_apart(tables: &Desired, tuple: &Tuple) -> bool {
    if is_node(tables, &tuple.src) || is_node(tables, &tuple.dst) || tuple.src == tuple.dst {
        return false;
    }
    let has_ports = |set: PolicySetId, direction: u32| {
        let of = |set| Prefix { data: Ports { set, ..Ports::default() }, len: 0 };
        let mut all = tables.port_class.range(of(set)..of(set.next()));
        all.any(|(p, _)| u32::from(p.data.direction) == direction && p.data.proto == tuple.proto)
    };
    [(tuple.src, direction::EGRESS), (tuple.dst, direction::INGRESS)].iter().any(|(addr, direction)| {
        let policy = tables.endpoints.get(addr).map(|endpoint| endpoint.policy);
        policy
            .is_some_and(|p| [p.set, p.audit].iter().any(|&set| set.is_some() && has_ports(set, *direction)))
    })
}

fn connection(tables: &Desired, tuple: &Tuple) -> Connection {
    let judged = match is_node(tables, &tuple.src) {
        // Programs never judge what the node itself sends.
        true => Judged {
            egress: Side::Exempt,
            ingress: Side::Exempt,
            audited_egress: Side::Exempt,
            audited_ingress: Side::Exempt,
        },
        false => judge(tables, tuple),
    };
    let opinion = |side, direction| opinion(tables, side, tuple, direction);
    let differing = |side: Side, audited: Side, direction| {
        (side.passes() != audited.passes()).then(|| opinion(audited, direction))
    };
    Connection {
        allowed: judged.passes(),
        source: End { pod: names::pod(tables, &tuple.src), address: tuple.src.to_string() },
        destination: End { pod: names::pod(tables, &tuple.dst), address: destination(tuple) },
        egress: opinion(judged.egress, direction::EGRESS),
        ingress: opinion(judged.ingress, direction::INGRESS),
        audited_egress: differing(judged.egress, judged.audited_egress, direction::EGRESS),
        audited_ingress: differing(judged.ingress, judged.audited_ingress, direction::INGRESS),
    }
}

/// The same to an endpoint of a Service: what no policy can be asked about does not reach an isolated pod's link.
fn to_endpoint(tables: &Desired, tuple: &Tuple) -> Connection {
    let connection = connection(tables, tuple);
    let isolates =
        |link: u32| tables.link_policy.get(&link).is_some_and(|flags| flags & policy_flags::ISOLATED_IN != 0);
    let links = tables.backends.values().filter(|b| (b.addr, b.port) == (tuple.dst, tuple.dst_port));
    let is_hidden = links.map(|backend| backend.ifindex).any(|link| link != 0 && isolates(link));
    if !connection.allowed
        || !is_hidden
        || tables.endpoints.contains_key(&tuple.dst)
        || is_node(tables, &tuple.src)
    {
        return connection;
    }
    Connection { allowed: false, ingress: Opinion::NotJudged, ..connection }
}

fn destination(tuple: &Tuple) -> String {
    let proto = proto_name(tuple.proto);
    match tuple.dst_port {
        0 => format!("{} {proto}", tuple.dst),
        port => format!("{}/{proto}", socket_text(tuple.dst, port)),
    }
}

fn opinion(tables: &Desired, side: Side, tuple: &Tuple, direction: u32) -> Opinion {
    match side {
        Side::Exempt if tuple.src == tuple.dst => Opinion::Itself,
        Side::Exempt => Opinion::Node,
        Side::NotIsolated => Opinion::NotIsolated,
        Side::Allowed(allow) => allowed(tables, allow, direction),
        Side::Denied { set } => Opinion::Denied { policies: names::isolating(tables, set, direction) },
        Side::NoPod => {
            let addr = if direction == direction::INGRESS { &tuple.dst } else { &tuple.src };
            let flags = tables.endpoints.get(addr).map_or(0, |endpoint| endpoint.policy.flags);
            if flags & policy_flags::PENDING != 0 {
                Opinion::Pending
            } else if tables.pod_names.contains_key(addr) {
                Opinion::OtherNode
            } else {
                Opinion::NoPod
            }
        }
    }
}

fn allowed(tables: &Desired, allow: Allow, direction: u32) -> Opinion {
    let key = RuleKey { policy: allow.policy, direction, rule: allow.rule };
    let yaml = tables.rules.get(&key).map(|rule| whole(rule.yaml.as_str()));
    Opinion::Allowed {
        policy: names::policy(tables, allow.policy),
        rule: format!("spec.{}[{}]", names::direction_name(direction), allow.rule),
        yaml: yaml.unwrap_or_default(),
    }
}

/// The text of a rule, with a note if it may have been cut.
fn whole(yaml: &str) -> String {
    // The text is cut at a character, which takes up to four bytes.
    let cut = yaml.len() + 4 > size_of::<RuleText>();
    if cut { format!("{}\n... (too long for the map rules)", yaml.trim_end()) } else { yaml.to_owned() }
}

fn is_node(tables: &Desired, addr: &Addr) -> bool {
    look_up::is_own_to_node(*addr)
        || tables.endpoints.get(addr).is_some_and(|endpoint| endpoint.policy.flags & policy_flags::NODE != 0)
}

/// How a connection from this address reaches the node's Services.
fn sender(tables: &Desired, addr: &Addr) -> Sender {
    if is_node(tables, addr) {
        return Sender::Node;
    }
    if tables.endpoints.contains_key(addr) { Sender::Pod } else { Sender::Wire }
}

/// Fails if this node judges none of the connections: `allowed` would mean nothing.
fn check_that_it_is_ours(connections: &[Connection]) -> anyhow::Result<()> {
    let elsewhere = |c: &Connection| c.egress.is_elsewhere() && c.ingress.is_elsewhere();
    let Some(first) = connections.first().filter(|_| connections.iter().all(elsewhere)) else {
        return Ok(());
    };
    let (source, destination) = (first.source.name(), first.destination.name());
    if first.egress == Opinion::NoPod && first.ingress == Opinion::NoPod {
        bail!("neither {source} nor {destination} is a known pod, so no policy judges this");
    }
    bail!(
        "neither {source} nor {destination} is a pod of this node, and each node judges its own: run `lbr why` \
         where one of them runs"
    )
}
