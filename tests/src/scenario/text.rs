//! The maps and verdicts as text without numbers, so that two runs can be compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use lbr_agent::desired::Desired;
use lbr_common::addr::Addr;
use lbr_common::link::link_flags;
use lbr_common::service::{Backend, Frontend, FrontendKey, frontend_flags};
use lbr_common::user::{proto_name, socket_text};
use lbr_common::verdict::{Effect, Verdict};

/// One line for each frontend, link and rejected object:
///
/// ```text
/// 10.96.0.10 *
/// 10.96.0.10:80/TCP default/web:http -> 10.244.0.2:8080@5 10.244.0.3:8080 10.244.0.4:8080(draining)
/// 10.96.0.10:81/TCP default/web:admin (local) -> none
/// link 5 peer direct
/// rejected Service default/zoo spec.ports[0]
/// orphan ...
/// ```
///
/// `*` stands for the rest of the ports of an address, `@5` for the pod link that the backend is reached by,
/// `(local)` for a frontend that drops when it has no backend. What nothing leads to is an `orphan`.
pub fn tables(tables: &Desired) -> BTreeSet<String> {
    let mut draining: BTreeMap<u32, Vec<&Backend>> = BTreeMap::new();
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
    for (index, link) in &tables.links {
        let mut line = format!("link {index}");
        for (flag, word) in [(link_flags::PEER, " peer"), (link_flags::DIRECT, " direct")] {
            if link.flags & flag != 0 {
                line.push_str(word);
            }
        }
        lines.insert(line);
    }
    for record in tables.rejected.values() {
        let line = format!("rejected {} {}", record.object.as_str(), record.field.as_str());
        lines.insert(line.trim_end().to_owned());
    }
    lines
}

fn frontend_line(
    tables: &Desired,
    key: &FrontendKey,
    frontend: &Frontend,
    draining: &BTreeMap<u32, Vec<&Backend>>,
) -> String {
    if frontend.flags & frontend_flags::ADDRESS != 0 {
        return format!("{} *", key.addr);
    }
    let mut line = format!("{}/{} ", socket_text(key.addr, key.port), proto_name(key.proto));
    match tables.services.get(&frontend.service) {
        Some(name) => {
            let _ = write!(line, "{}/{}", name.namespace.as_str(), name.name.as_str());
            if !name.port.as_str().is_empty() {
                let _ = write!(line, ":{}", name.port.as_str());
            }
        }
        None => line.push_str("without-name"),
    }
    if frontend.flags & frontend_flags::LOCAL_ONLY != 0 {
        line.push_str(" (local)");
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

fn backend_text(backend: &Backend) -> String {
    let link = if backend.link == 0 { String::new() } else { format!("@{}", backend.link) };
    let state = if backend.sets == 0 { "(draining)" } else { "" };
    format!("{}{link}{state}", socket_text(backend.addr, backend.port))
}

/// What no frontend leads to: nothing of the kind may be left.
fn orphans(tables: &Desired) -> BTreeSet<String> {
    let counts: BTreeMap<u32, u32> = tables.frontends.values().map(|f| (f.service, f.count)).collect();
    let slots = tables.slots.keys().filter(|k| counts.get(&k.service).is_none_or(|c| k.slot >= *c));
    let used: BTreeSet<u32> = tables.slots.values().map(|s| s.backend).collect();
    let backends = tables.backends.iter().filter(|(id, b)| {
        let drains = b.sets == 0;
        !counts.contains_key(&b.service) || used.contains(id) == drains
    });
    let names = tables.services.iter().filter(|(id, _)| !counts.contains_key(id));
    slots
        .map(|k| format!("orphan slot {k:?}"))
        .chain(backends.map(|(id, b)| format!("orphan backend {id} {b:?}")))
        .chain(names.map(|(id, n)| format!("orphan name {id} {}", n.name.as_str())))
        .collect()
}

/// `to 10.244.0.2:8080`, `refused no_endpoint`, `dropped no_local_endpoint`, `passed no_service`.
pub fn verdict(verdict: Verdict, backend: Option<(Addr, u16)>) -> String {
    match (verdict.effect(), backend) {
        (Effect::Translate, Some((addr, port))) => format!("to {}", socket_text(addr, port)),
        (Effect::Translate, None) => format!("translated {}", verdict.name()),
        (Effect::Refuse, _) => format!("refused {}", verdict.name()),
        (Effect::Drop, _) => format!("dropped {}", verdict.name()),
        (Effect::Pass, _) => format!("passed {}", verdict.name()),
    }
}
