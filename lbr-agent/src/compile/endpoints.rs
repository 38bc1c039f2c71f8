//! From the EndpointSlices of a Service to the backends of one of its ports.

use std::collections::BTreeMap;

use lbr_common::addr::Addr;

use crate::model::{Endpoint, EndpointSlice, ObjectName, ServicePort, TrafficPolicy};

/// All slices, grouped by the Service they belong to; within a Service in order of their names.
pub(super) struct SlicesByService<'a>(Vec<&'a EndpointSlice>);

impl<'a> SlicesByService<'a> {
    pub(super) fn new(slices: &'a BTreeMap<ObjectName, EndpointSlice>) -> Self {
        let mut all: Vec<_> = slices.values().filter(|s| !s.service.is_empty()).collect();
        all.sort_by_key(|slice| owner(slice));
        Self(all)
    }

    pub(super) fn of(&self, service: &ObjectName) -> &[&'a EndpointSlice] {
        let name = (service.namespace.as_str(), service.name.as_str());
        let start = self.0.partition_point(|slice| owner(slice) < name);
        let rest = self.0.get(start..).unwrap_or_default();
        rest.get(..rest.partition_point(|slice| owner(slice) == name)).unwrap_or_default()
    }
}

fn owner(slice: &EndpointSlice) -> (&str, &str) {
    (&slice.name.namespace, &slice.service)
}

/// Addresses and ports, sorted.
type Targets = Vec<(Addr, u16)>;

/// What a Service port leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// Take new connections.
    pub(super) active: Targets,
    /// Terminating but still serving while others are ready: keep the connections that they have.
    pub(super) draining: Targets,
    /// Whether there is a usable endpoint anywhere, on this node or not.
    pub(super) anywhere: bool,
}

/// One address and port that slices name for a Service port.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    addr: Addr,
    port: u16,
    endpoint: &'a Endpoint,
}

/// The backends of a Service port in one family.
pub(super) fn choose(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    v4: bool,
    policy: TrafficPolicy,
    node: &str,
) -> Choice {
    let all = merge(slices, port, v4);
    let (active, draining) = select(&all, |_| true);
    let anywhere = !active.is_empty();
    let (active, draining) = match policy {
        TrafficPolicy::Cluster => (active, draining),
        TrafficPolicy::Local => select(&all, |e| e.node == node),
    };
    Choice { active, draining, anywhere }
}

/// What all slices together say. The port number comes from each slice: a named target port may be another
/// number in other pods.
fn merge<'a>(slices: &[&'a EndpointSlice], port: &ServicePort, v4: bool) -> Vec<Candidate<'a>> {
    let mut all: Vec<Candidate<'a>> = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for p in ports {
            let candidates =
                slice.endpoints.iter().map(|e| Candidate { addr: e.addr.into(), port: p.port, endpoint: e });
            all.extend(candidates.filter(|c| c.addr.is_v4() == v4));
        }
    }
    // An address can be in two slices: while an endpoint moves between them, or because a pod got the address
    // of one that still terminates. The living one counts.
    let rank = |e: &Endpoint| (e.terminating, !e.ready, !e.serving);
    all.sort_by_key(|c| (c.addr, c.port, rank(c.endpoint)));
    all.dedup_by_key(|c| (c.addr, c.port));
    all
}

/// Ready endpoints; without any, those that terminate but still serve (better than none). Terminating ones
/// that are not needed are draining.
fn select(all: &[Candidate<'_>], in_scope: impl Fn(&Endpoint) -> bool) -> (Targets, Targets) {
    let pick = |wanted: fn(&Endpoint) -> bool| -> Targets {
        let chosen = all.iter().filter(|c| in_scope(c.endpoint) && wanted(c.endpoint));
        chosen.map(|c| (c.addr, c.port)).collect()
    };
    let ready = pick(|e| e.ready);
    let leaving = pick(|e| !e.ready && e.serving && e.terminating);
    if ready.is_empty() { (leaving, Vec::new()) } else { (ready, leaving) }
}
