//! The maps and verdicts as text without numbers, so that two runs can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use lbr_agent::desired::Desired;
use lbr_common::addr::Addr;
use lbr_common::id::{BackendId, ServiceId};
use lbr_common::link::link_flags;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{
    Backend, Frontend, FrontendKey, SlotKey, SourceRange, frontend_flags, peer_flags, scope, set,
};
use lbr_common::text::extent;
use lbr_common::user::{proto_name, socket_text};
use lbr_common::verdict::{Effect, Verdict};

/// One line for each frontend, link, rejected object, and part that an object lacks:
///
/// ```text
/// 10.96.0.10 *
/// 10.96.0.10:80/TCP default/web:http -> 10.244.0.2:8080@5 10.244.0.3:8080 10.244.0.4:8080(draining)
/// 10.96.0.10:81/TCP default/web:admin (local) -> none
/// 192.0.2.1 * (open)
/// 192.0.2.1:30080/TCP default/web:http (wire differs) -> 10.244.0.2:8080 10.244.1.2:8080
/// 192.0.2.1:30080/TCP by wire default/web:http (local) -> 10.244.0.2:8080
/// 127.0.0.1:30080/TCP on the node default/web:http (affinity 10800) -> 10.244.0.2:8080 10.244.1.2:8080
/// range default/web:http 10.0.0.0/8
/// service cidr 10.96.0.0/12
/// uplink 900 192.0.2.1 ::
/// link 5 peer direct
/// rejected Service default/zoo spec.ports[0].port
/// limited Service default/zoo spec.externalIPs[0]
/// orphan ...
/// ```
///
/// `*` stands for the other ports of an address, which are the node's where it is `(open)`, `@5` for the pod link by
/// which the backend is reached, `(local)` for a frontend that drops when it has no backend, `(ranges)` and `(ranges
/// and the node)` for one that only these clients may use, `(direct)` for one whose backends on other nodes answer
/// clients directly, unless they are `inside`. An entry that nothing leads to is an `orphan`.
pub fn tables(tables: &Desired) -> BTreeSet<String> {
    let mut draining: BTreeMap<ServiceId, Vec<&Backend>> = BTreeMap::new();
    for backend in tables.backends.values().filter(|b| b.sets == 0) {
        draining.entry(backend.service).or_default().push(backend);
    }
    for backends in draining.values_mut() {
        backends.sort_by_key(|b| (b.addr, b.port));
    }
    let mut lines: BTreeSet<String> = orphans(tables);
    for (key, frontend) in &tables.frontends {
        lines.insert(frontend_line(tables, key, frontend, &draining));
    }
    lines.extend(tables.source_ranges.keys().map(|range| range_line(tables, range)));
    lines.extend(tables.peers.iter().flat_map(|(block, flags)| peer_lines(tables, block, *flags)));
    lines.extend(tables.service_cidrs.keys().map(|block| {
        let bits = block.len - Block::FAMILY_BITS;
        format!("service cidr {}", block_text(Addr { bytes: block.data.addr }, bits))
    }));
    lines
        .extend(tables.uplinks.iter().map(|(index, link)| format!("uplink {index} {} {}", link.v4, link.v6)));
    for (index, link) in &tables.links {
        let mut line = format!("link {index}");
        for (flag, word) in [(link_flags::PEER, " peer"), (link_flags::ROUTED, " direct")] {
            if link.flags & flag != 0 {
                line.push_str(word);
            }
        }
        lines.insert(line);
    }
    for record in tables.rejected.values() {
        let word = if record.extent == extent::LIMITED { "limited" } else { "rejected" };
        let line = format!("{word} {} {}", record.object.as_str(), record.field.as_str());
        lines.insert(line.trim_end().to_owned());
    }
    lines
}

fn frontend_line(
    tables: &Desired,
    key: &FrontendKey,
    frontend: &Frontend,
    draining: &BTreeMap<ServiceId, Vec<&Backend>>,
) -> String {
    let scope = match key.scope {
        scope::EXTERNAL => "by wire ",
        scope::HOST_LOCAL => "on the node ",
        _ => "",
    };
    let has = |flag| frontend.flags & flag != 0;
    if has(frontend_flags::WILDCARD) {
        let rest = match (has(frontend_flags::PASS_UNMATCHED), has(frontend_flags::HOST)) {
            (true, true) => " (open)",
            (true, false) => " (ports only)",
            _ => "",
        };
        return format!("{} {scope}*{rest}", key.addr);
    }
    let (socket, proto) = (socket_text(key.addr, key.port), proto_name(key.proto));
    let mut line = format!("{socket}/{proto} {scope}{}", service_text(tables, frontend.service));
    let in_ranges = has(frontend_flags::HOST_IN_RANGES);
    for (is_so, word) in [
        (has(frontend_flags::LOCAL_ONLY), " (local)"),
        (has(frontend_flags::EXTERNAL_DIFFERS), " (wire differs)"),
        (has(frontend_flags::RANGES) && !in_ranges, " (ranges)"),
        (has(frontend_flags::RANGES) && in_ranges, " (ranges and the node)"),
        (has(frontend_flags::BIND_ONLY), " (bind only)"),
    ] {
        line.push_str(if is_so { word } else { "" });
    }
    if has(frontend_flags::DSR) {
        line.push_str(if has(frontend_flags::DSR_IPIP) { " (direct, tunneled)" } else { " (direct)" });
    }
    if frontend.maglev.is_some() {
        line.push_str(" (maglev)");
    }
    if frontend.affinity != 0 {
        let _ = write!(line, " (affinity {})", frontend.affinity);
    }
    line.push_str(" ->");
    let slots = (0..frontend.count).map(|slot| frontend.slot(slot));
    let backends = slots.map(|k| tables.slots.get(&k).and_then(|s| tables.backends.get(&s.backend)));
    let draining = draining.get(&frontend.service).into_iter().flatten().copied().map(Some);
    let backends: Vec<_> = backends.chain(draining).collect();
    if backends.is_empty() {
        line.push_str(" none");
    }
    for backend in backends {
        line.push(' ');
        line.push_str(&backend.map_or_else(|| "missing".to_owned(), backend_text));
    }
    line
}

fn service_text(tables: &Desired, id: ServiceId) -> String {
    let Some(name) = tables.services.get(&id) else { return "without-name".to_owned() };
    let text = format!("{}/{}", name.namespace.as_str(), name.name.as_str());
    if name.port.as_str().is_empty() { text } else { format!("{text}:{}", name.port.as_str()) }
}

fn range_line(tables: &Desired, range: &Prefix<SourceRange>) -> String {
    let client = block_text(Addr { bytes: range.data.client }, range.len - SourceRange::FIXED_BITS);
    let used = tables
        .frontends
        .values()
        .any(|f| f.service == range.data.service && f.flags & frontend_flags::RANGES != 0);
    let orphan = if used { "" } else { "orphan " };
    format!("{orphan}range {} {client}", service_text(tables, range.data.service))
}

/// The map always has the other nodes: they get a line only where a frontend needs them.
fn peer_lines(tables: &Desired, block: &Prefix<Block>, flags: u32) -> impl Iterator<Item = String> {
    let peer = block_text(Addr { bytes: block.data.addr }, block.len - Block::FAMILY_BITS);
    let uses = |flag: u32| tables.frontends.values().any(|f| f.flags & flag != 0);
    let orphan = if uses(frontend_flags::DSR) { "" } else { "orphan " };
    let node = flags & peer_flags::NODE != 0 && uses(frontend_flags::DSR_IPIP);
    let in_cluster = flags & peer_flags::IN_CLUSTER != 0;
    let lines =
        [node.then(|| format!("node {peer}")), in_cluster.then(|| format!("{orphan}in-cluster {peer}"))];
    lines.into_iter().flatten()
}

/// An IPv4 address has 96 bits before it.
fn block_text(addr: Addr, bits: u32) -> String {
    format!("{addr}/{}", if addr.is_v4() { bits.saturating_sub(96) } else { bits })
}

fn backend_text(backend: &Backend) -> String {
    let link = if backend.ifindex == 0 { String::new() } else { format!("@{}", backend.ifindex) };
    let state = if backend.sets == 0 { "(draining)" } else { "" };
    format!("{}{link}{state}", socket_text(backend.addr, backend.port))
}

/// Entries that no frontend leads to; there must be none.
fn orphans(tables: &Desired) -> BTreeSet<String> {
    let mut counts: BTreeMap<(ServiceId, u32), u32> = BTreeMap::new();
    for frontend in tables.frontends.values() {
        let count = counts.entry((frontend.service, frontend.set)).or_default();
        *count = frontend.count.max(*count);
    }
    let services: BTreeSet<ServiceId> = counts.keys().map(|(service, _)| *service).collect();
    // What other nodes send on by direct server return chooses from the local set.
    let direct: BTreeSet<ServiceId> =
        tables.frontends.values().filter(|f| f.flags & frontend_flags::DSR != 0).map(|f| f.service).collect();
    let is_for_direct = |k: &SlotKey| k.set == set::LOCAL && direct.contains(&k.service);
    let is_reached = |k: &SlotKey| counts.get(&(k.service, k.set)).is_some_and(|count| k.slot < *count);
    let slots = tables.slots.keys().filter(|k| !is_reached(k) && !is_for_direct(k));
    let used: BTreeSet<BackendId> = tables.slots.values().map(|s| s.backend).collect();
    let backends = tables.backends.iter().filter(|(id, b)| {
        let drains = b.sets == 0;
        !services.contains(&b.service) || used.contains(id) == drains
    });
    let names = tables.services.iter().filter(|(id, _)| !services.contains(id));
    slots
        .map(|k| format!("orphan slot {k:?}"))
        .chain(backends.map(|(id, b)| format!("orphan backend {id} {b:?}")))
        .chain(names.map(|(id, n)| format!("orphan name {id} {}", n.name.as_str())))
        .collect()
}

/// `to 10.244.0.2:8080`, `refused no_endpoint`, `dropped no_local_endpoint`, `passed not_service`.
pub fn verdict(verdict: Verdict, backend: Option<(Addr, u16)>) -> String {
    match (verdict.effect(), backend) {
        (Effect::Translate, Some((addr, port))) => format!("to {}", socket_text(addr, port)),
        (Effect::Translate, None) => format!("translated {}", verdict.name()),
        (Effect::Refuse, _) => format!("refused {}", verdict.name()),
        (Effect::Drop, _) => format!("dropped {}", verdict.name()),
        (Effect::Pass, _) => format!("passed {}", verdict.name()),
    }
}
