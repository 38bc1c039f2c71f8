//! From the EndpointSlices of a Service to the backends of one of its ports.

use std::collections::BTreeMap;

use lbr_common::addr::{Addr, Family};
use lbr_common::service::set;

use super::topology::Reach;
use crate::model::{Endpoint, EndpointSlice, ServicePort};
use crate::node::here::Here;

/// Address and port.
pub(super) type Target = (Addr, u16);

/// The endpoints of a Service port in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// Endpoints that take new connections, by set. Empty for sets that are not wanted.
    pub(super) sets: [Vec<Target>; SETS],
    /// Endpoints of these sets, and terminating ones that still serve while others are ready: these keep the
    /// connections that they have.
    pub(super) backends: BTreeMap<Target, Chosen>,
    /// Whether there is a usable endpoint anywhere, on this node or not.
    pub(super) anywhere: bool,
}

/// One of the backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Bits of the sets that it is in.
    pub(super) sets: u8,
    /// On this node.
    pub(super) here: bool,
}

impl Choice {
    /// How many endpoints a set has.
    pub(super) fn count(&self, set: u32) -> u32 {
        let targets = self.sets.get(set as usize);
        targets.map_or(0, |targets| u32::try_from(targets.len()).unwrap_or(u32::MAX))
    }
}

/// `set::CLUSTER` and `set::LOCAL`.
const SETS: usize = 2;

/// One address and port that slices name for a Service port.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    addr: Addr,
    port: u16,
    endpoint: &'a Endpoint,
}

impl Candidate<'_> {
    fn is_leaving(&self) -> bool {
        let endpoint = self.endpoint;
        !endpoint.ready && endpoint.serving && endpoint.terminating
    }
}

/// The backends of a Service port in one family. `wanted`: bits of the sets that are used.
pub(super) fn choose(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    family: Family,
    wanted: u8,
    here: &Here<'_>,
) -> Choice {
    let all = merge(slices, port, family);
    let reach = Reach::new(all.iter().map(|c| c.endpoint).filter(|e| e.ready), here);
    let mut choice =
        Choice { anywhere: all.iter().any(|c| c.endpoint.ready || c.is_leaving()), ..Choice::default() };
    for (number, set) in [set::CLUSTER, set::LOCAL].into_iter().enumerate() {
        if wanted & set::bit(set) == 0 {
            continue;
        }
        let in_scope = |c: &&Candidate<'_>| set == set::CLUSTER || here.is(&c.endpoint.node);
        let near = |c: &&Candidate<'_>| set == set::LOCAL || reach.covers(c.endpoint);
        let ready: Vec<_> = all.iter().filter(in_scope).filter(|c| c.endpoint.ready).filter(near).collect();
        let leaving: Vec<_> = all.iter().filter(in_scope).filter(|c| c.is_leaving()).collect();
        let mut add = |candidate: &Candidate<'_>, bit: u8| {
            let target = (candidate.addr, candidate.port);
            let here = here.has_endpoint(candidate.addr.into(), &candidate.endpoint.node);
            let chosen = choice.backends.entry(target).or_insert(Chosen { sets: 0, here });
            chosen.sets |= bit;
            target
        };
        for candidate in &leaving {
            add(candidate, 0);
        }
        // Without a ready endpoint, terminating ones that still serve take new connections.
        let active = if ready.is_empty() { leaving } else { ready };
        choice.sets[number] = active.iter().map(|candidate| add(candidate, set::bit(set))).collect();
    }
    choice
}

/// Addresses of the ready endpoints of a Service port on this node.
pub(super) fn ready_here(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    family: Family,
    here: &Here<'_>,
) -> Vec<Addr> {
    let all = merge(slices, port, family);
    all.iter().filter(|c| c.endpoint.ready && here.is(&c.endpoint.node)).map(|c| c.addr).collect()
}

/// The endpoints of all slices. The port number comes from each slice: a named target port may be another number in
/// other pods.
fn merge<'a>(slices: &[&'a EndpointSlice], port: &ServicePort, family: Family) -> Vec<Candidate<'a>> {
    let mut all: Vec<Candidate<'a>> = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for p in ports {
            let candidates =
                slice.endpoints.iter().map(|e| Candidate { addr: e.addr.into(), port: p.port, endpoint: e });
            all.extend(candidates.filter(|c| c.addr.family() == family));
        }
    }
    // An address can be in two slices: while an endpoint moves between them, or because a pod got the address of one
    // that still terminates. The one that does not terminate counts.
    let rank = |e: &Endpoint| (e.terminating, !e.ready, !e.serving);
    all.sort_by_key(|c| (c.addr, c.port, rank(c.endpoint)));
    all.dedup_by_key(|c| (c.addr, c.port));
    all
}
