//! The maps' content as rows of `lbr show`, one type for each subject. Tables and JSON are both made of these.

pub(super) mod policy;
pub(super) mod uplinks;

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbr_common::addr::Addr;
use lbr_common::flow::{Flow, flow_flags};
use lbr_common::id::{BackendId, ServiceId};
use lbr_common::link::link_flags;
use lbr_common::service::{Backend, Frontend, FrontendKey, frontend_flags, scope};
use lbr_common::text::extent;
use lbr_common::tuple::Tuple;
use lbr_common::user::{proto_name, socket_text};
use serde::Serialize;

use crate::desired::Desired;

/// A frontend and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ServiceRow {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port_name: String,
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) service_id: u32,
    /// Endpoints that take new connections.
    pub(super) endpoints: Vec<String>,
    /// Endpoints that keep their connections and take no new ones.
    pub(super) draining: Vec<String>,
    pub(super) local_only: bool,
    /// Which clients it serves: all if empty, `wire` for packets that come in by the wire, `node` for processes of the
    /// node, which reach it at a loopback address.
    pub(super) scope: &'static str,
    /// Seconds for which session affinity keeps a client at its endpoint; 0: no affinity.
    pub(super) affinity: u32,
    /// How clients outside reach endpoints on other nodes: `snat`, `dsr` or `dsr-ipip`.
    pub(super) forwarding: &'static str,
    /// How endpoints are chosen: `random`, or `maglev`.
    pub(super) algorithm: &'static str,
    /// Serves only clients in its source ranges.
    pub(super) source_ranges: bool,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct BackendRow {
    pub(super) id: u32,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port_name: String,
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    pub(super) state: &'static str,
    /// Interface that packets are redirected into; empty: the stack routes them.
    pub(super) link: String,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct FlowRow {
    pub(super) protocol: String,
    pub(super) client: String,
    pub(super) frontend: String,
    pub(super) backend: String,
    pub(super) service: String,
    /// Seconds since the client's last packet, exact to a second.
    pub(super) idle_seconds: u64,
    pub(super) state: &'static str,
    pub(super) hairpin: bool,
    pub(super) backend_id: u32,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LinkRow {
    pub(super) ifindex: u32,
    pub(super) name: String,
    /// `direct`: answers go straight into it; `stack`: through a bridge or the like.
    pub(super) path: &'static str,
    /// `ready`; `pending`: the pod behind it is not known yet, so no policy holds for it.
    pub(super) state: &'static str,
}

/// [`RejectedRow::state`] of what is in force but for a field.
pub(super) const LIMITED: &str = "limited";

/// An object that is not in force, or lacks a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RejectedRow {
    /// `rejected`: not in force as it is written; `limited`: in force but for the field.
    pub(super) state: &'static str,
    pub(super) object: String,
    pub(super) origin: String,
    pub(super) field: String,
    pub(super) reason: String,
}

/// Frontends in order of Service, then address.
pub(super) fn services(tables: &Desired) -> Vec<ServiceRow> {
    let draining = draining(tables);
    // The unspecified address leads to the same as loopback, which has a row, or nowhere.
    let frontends = tables.frontends.iter().filter(|(key, f)| {
        f.flags & frontend_flags::WILDCARD == 0 && !IpAddr::from(key.addr).is_unspecified()
    });
    let mut rows: Vec<_> =
        frontends.map(|(key, frontend)| service_row(tables, &draining, key, frontend)).collect();
    rows.sort_by(|a, b| (&a.namespace, &a.name, &a.port_name).cmp(&(&b.namespace, &b.name, &b.port_name)));
    rows
}

fn service_row(
    tables: &Desired,
    draining: &BTreeMap<ServiceId, Vec<String>>,
    key: &FrontendKey,
    frontend: &Frontend,
) -> ServiceRow {
    let service = frontend.service;
    let slots = (0..frontend.count).filter_map(|slot| tables.slots.get(&frontend.slot(slot)));
    let backends = slots.filter_map(|slot| tables.backends.get(&slot.backend));
    let name = tables.services.get(&service).copied().unwrap_or_default();
    ServiceRow {
        namespace: name.namespace.as_str().to_owned(),
        name: name.name.as_str().to_owned(),
        port_name: name.port.as_str().to_owned(),
        address: key.addr.to_string(),
        port: key.port,
        protocol: proto_name(key.proto).into_owned(),
        service_id: service.id,
        endpoints: backends.map(|backend| socket_text(backend.addr, backend.port)).collect(),
        draining: draining.get(&service).cloned().unwrap_or_default(),
        local_only: frontend.flags & frontend_flags::LOCAL_ONLY != 0,
        scope: match key.scope {
            scope::EXTERNAL => "wire",
            scope::HOST_LOCAL => "node",
            _ => "",
        },
        affinity: frontend.affinity,
        algorithm: if frontend.maglev.is_none() { "random" } else { "maglev" },
        source_ranges: frontend.flags & frontend_flags::RANGES != 0,
        forwarding: forwarding(frontend.flags),
    }
}

/// As in the annotation of the Service.
fn forwarding(flags: u32) -> &'static str {
    match (flags & frontend_flags::DSR != 0, flags & frontend_flags::DSR_IPIP != 0) {
        (false, _) => "snat",
        (true, false) => "dsr",
        (true, true) => "dsr-ipip",
    }
}

fn draining(tables: &Desired) -> BTreeMap<ServiceId, Vec<String>> {
    let mut draining: BTreeMap<ServiceId, Vec<String>> = BTreeMap::new();
    for backend in tables.backends.values().filter(|b| b.sets == 0) {
        draining.entry(backend.service).or_default().push(socket_text(backend.addr, backend.port));
    }
    draining
}

/// Backends in order of Service, then address. `link_name` names an interface.
pub(super) fn backends(tables: &Desired, link_name: impl Fn(u32) -> String) -> Vec<BackendRow> {
    let row = |(&id, backend): (&BackendId, &Backend)| {
        let name = tables.services.get(&backend.service).copied().unwrap_or_default();
        BackendRow {
            id: id.id,
            namespace: name.namespace.as_str().to_owned(),
            name: name.name.as_str().to_owned(),
            port_name: name.port.as_str().to_owned(),
            address: backend.addr.to_string(),
            port: backend.port,
            protocol: proto_name(backend.proto).into_owned(),
            state: if backend.sets == 0 { "draining" } else { "active" },
            link: if backend.ifindex == 0 { String::new() } else { link_name(backend.ifindex) },
        }
    };
    let mut rows: Vec<_> = tables.backends.iter().map(row).collect();
    rows.sort_by_cached_key(|r| {
        (r.namespace.clone(), r.name.clone(), r.port_name.clone(), r.address.clone(), r.port)
    });
    rows
}

/// Connections, the most recently used first. `now`: `CLOCK_MONOTONIC` in nanoseconds.
pub(super) fn flows(tables: &Desired, flows: &[(Tuple, Flow)], now: u64) -> Vec<FlowRow> {
    let row = |(key, flow): &(Tuple, Flow)| FlowRow {
        protocol: proto_name(key.proto).into_owned(),
        client: end(key.src, key.src_port),
        frontend: end(key.dst, key.dst_port),
        backend: end(flow.to.dst, flow.to.dst_port),
        service: service_text(tables, flow.service),
        idle_seconds: now.saturating_sub(flow.last_seen) / 1_000_000_000,
        state: flow.state().name(),
        hairpin: flow.flags & flow_flags::HAIRPIN != 0,
        backend_id: flow.backend.id,
    };
    let mut rows: Vec<_> = flows.iter().filter(|(_, f)| f.flags & flow_flags::REPLY == 0).map(row).collect();
    rows.sort_by(|a, b| {
        (a.idle_seconds, &a.client, &a.frontend).cmp(&(b.idle_seconds, &b.client, &b.frontend))
    });
    rows
}

/// Links in order of their index.
pub(super) fn links(tables: &Desired, link_name: impl Fn(u32) -> String) -> Vec<LinkRow> {
    let row = |(&ifindex, link): (&u32, &lbr_common::link::Link)| LinkRow {
        ifindex,
        name: link_name(ifindex),
        path: if link.flags & link_flags::ROUTED != 0 { "direct" } else { "stack" },
        state: policy::link_state(tables, ifindex),
    };
    tables.links.iter().map(row).collect()
}

/// What is not in force: whole objects first.
pub(super) fn rejected(tables: &Desired) -> Vec<RejectedRow> {
    let row = |r: &lbr_common::text::RejectedRecord| RejectedRow {
        state: if r.extent == extent::LIMITED { LIMITED } else { "rejected" },
        object: r.object.as_str().to_owned(),
        origin: r.origin.as_str().to_owned(),
        field: r.field.as_str().to_owned(),
        reason: r.reason.as_str().to_owned(),
    };
    tables.rejected.values().map(row).collect()
}

fn service_text(tables: &Desired, id: ServiceId) -> String {
    let Some(name) = tables.services.get(&id) else { return String::new() };
    let text = format!("{}/{}", name.namespace.as_str(), name.name.as_str());
    if name.port.as_str().is_empty() { text } else { format!("{text}:{}", name.port.as_str()) }
}

fn end(addr: Addr, port: u16) -> String {
    socket_text(addr, port)
}

#[cfg(test)]
mod tests {
    use lbr_common::conntrack::State;
    use lbr_common::service::{Slot, SlotKey, set};
    use lbr_common::text::{ServiceName, Text};
    use lbr_common::tuple::proto;

    use super::*;

    fn addr(last: u8) -> Addr {
        Addr::v4([10, 0, 0, last])
    }

    fn tables() -> Desired {
        let mut tables = Desired::default();
        let key = |port, proto| FrontendKey { addr: addr(100), port, proto, ..FrontendKey::default() };
        tables
            .frontends
            .insert(key(80, proto::TCP), Frontend { service: 1.into(), count: 1, ..Frontend::default() });
        let whole = Frontend { flags: frontend_flags::WILDCARD, ..Frontend::default() };
        tables.frontends.insert(key(0, 0), whole);
        tables.slots.insert(SlotKey { service: 1.into(), ..SlotKey::default() }, Slot { backend: 5.into() });
        let backend = Backend {
            addr: addr(2),
            port: 8080,
            proto: proto::TCP,
            service: 1.into(),
            ifindex: 9,
            sets: set::bit(set::CLUSTER),
            ..Backend::default()
        };
        tables.backends.insert(5.into(), backend);
        tables.backends.insert(6.into(), Backend { addr: addr(3), sets: 0, ifindex: 0, ..backend });
        let name =
            ServiceName { namespace: Text::new("default"), name: Text::new("web"), port: Text::new("http") };
        tables.services.insert(1.into(), name);
        tables
    }

    #[test]
    fn service_rows_leave_out_whole_addresses() {
        let rows = services(&tables());
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].name.as_str(), rows[0].port), ("web", 80));
        assert_eq!(rows[0].endpoints, ["10.0.0.2:8080"]);
        assert_eq!(rows[0].draining, ["10.0.0.3:8080"]);
    }

    #[test]
    fn service_rows_say_for_whom_they_are() {
        let mut tables = tables();
        let key = |addr, scope| FrontendKey { addr, port: 30080, proto: proto::TCP, scope, _pad: 0 };
        let node =
            Frontend { service: 1.into(), flags: frontend_flags::EXTERNAL_DIFFERS, ..Frontend::default() };
        let local = Frontend { flags: frontend_flags::LOCAL_ONLY | frontend_flags::RANGES, ..node };
        tables.frontends.extend([
            (key(addr(1), scope::ANY), node),
            (key(addr(1), scope::EXTERNAL), Frontend { affinity: 10, ..local }),
            (key(Addr::v4([127, 0, 0, 1]), scope::HOST_LOCAL), node),
            (key(Addr::v4([0; 4]), scope::HOST_LOCAL), node),
        ]);
        let rows = services(&tables);
        let rows: Vec<_> = rows.iter().filter(|r| r.port == 30080).collect();
        let short: Vec<_> = rows.iter().map(|r| (r.address.as_str(), r.scope, r.local_only)).collect();
        assert_eq!(
            short,
            [("10.0.0.1", "", false), ("10.0.0.1", "wire", true), ("127.0.0.1", "node", false)]
        );
        assert_eq!((rows[1].affinity, rows[1].source_ranges, rows[0].source_ranges), (10, true, false));
    }

    #[test]
    fn backend_rows_name_the_link() {
        let rows = backends(&tables(), |index| format!("veth{index}"));
        let short: Vec<_> = rows.iter().map(|r| (r.address.as_str(), r.state, r.link.as_str())).collect();
        assert_eq!(short, [("10.0.0.2", "active", "veth9"), ("10.0.0.3", "draining", "")]);
    }

    #[test]
    fn a_connection_is_one_row() {
        let key = Tuple {
            src: addr(1),
            dst: addr(100),
            src_port: 4000,
            dst_port: 80,
            proto: proto::TCP,
            ..Tuple::default()
        };
        let to = Tuple { dst: addr(2), dst_port: 8080, ..key };
        let (state, last_seen) = (State::FinReply as u32, 3_000_000_000);
        let flow = Flow { to, service: 1.into(), backend: 5.into(), last_seen, state, ..Flow::default() };
        let reply = flow.twin(&key);
        let rows = flows(&tables(), &[(key, flow), (flow.twin_key(), reply)], 8_500_000_000);
        assert_eq!(rows.len(), 1);
        let row = &rows[0];
        assert_eq!((row.client.as_str(), row.frontend.as_str()), ("10.0.0.1:4000", "10.0.0.100:80"));
        assert_eq!((row.backend.as_str(), row.service.as_str()), ("10.0.0.2:8080", "default/web:http"));
        assert_eq!((row.idle_seconds, row.state), (5, "fin_reply"));
    }
}
