//! Follows a packet that begins a connection to a Service, by the steps of the programs in user space.
//!
//! Does the same look-ups in the same order as the kernel object, on tables that are plain data: for tests of compiled
//! tables, and for `lbr why`, which sends no packet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use lbr_common::addr::Addr;
use lbr_common::maglev::{self, MaglevKey};
use lbr_common::policy::{Block, Prefix};
use lbr_common::select::{self, Seeds};
use lbr_common::service::{Frontend, FrontendKey, SourceRange, frontend_flags, scope};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::Verdict;

use crate::desired::Desired;

use crate::table::starts_with;

/// Where a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A pod of this node.
    Pod,
    /// A client outside of this node.
    Wire,
    /// A process of the node.
    Node,
}

/// Where a new connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The verdict on its first packet.
    pub verdict: Verdict,
    /// Address and port of the backend, if the verdict is [`Verdict::ToBackend`].
    pub backend: Option<(Addr, u16)>,
}

/// Looks up a new connection, without session affinity: only the kernel remembers a client's last backend.
pub fn resolve(tables: &Desired, tuple: &Tuple, sender: Sender, seeds: Seeds) -> Resolved {
    let frontend = match find(tables, tuple, sender) {
        Ok(frontend) => frontend,
        Err(verdict) => return Resolved { verdict, backend: None },
    };
    let in_slot = |slot| tables.slots.get(&frontend.slot(slot)).map(|slot| slot.backend);
    let chosen = if frontend.maglev.is_none() {
        in_slot(select::slot(select::hash(tuple, seeds.flow), frontend.count))
    } else {
        let slot = select::slot(maglev::hash(tuple, seeds.maglev), maglev::SLOTS);
        tables.maglev.get(&MaglevKey::of(&frontend, slot)).and_then(|part| part.backend(slot))
    };
    // A count that is just being lowered may reach a slot that is gone: the first slot takes its place.
    let chosen = chosen.or_else(|| in_slot(0));
    match chosen.and_then(|id| tables.backends.get(&id)) {
        Some(b) => Resolved { verdict: Verdict::ToBackend, backend: Some((b.addr, b.port)) },
        None => Resolved { verdict: Verdict::BackendMissing, backend: None },
    }
}

/// Every endpoint that a new connection may go to, each once, in order; or why it goes nowhere.
pub fn endpoints(tables: &Desired, tuple: &Tuple, sender: Sender) -> Result<BTreeSet<(Addr, u16)>, Verdict> {
    let frontend = find(tables, tuple, sender)?;
    let slots = (0..frontend.count).filter_map(|slot| tables.slots.get(&frontend.slot(slot)));
    let backends = slots.filter_map(|slot| tables.backends.get(&slot.backend));
    let endpoints: BTreeSet<_> = backends.map(|b| (b.addr, b.port)).collect();
    if endpoints.is_empty() { Err(Verdict::BackendMissing) } else { Ok(endpoints) }
}

/// The frontend with endpoints, or why there is none.
fn find(tables: &Desired, tuple: &Tuple, sender: Sender) -> Result<Frontend, Verdict> {
    let scope =
        if sender == Sender::Node && is_own_to_node(tuple.dst) { scope::HOST_LOCAL } else { scope::ANY };
    let key = FrontendKey {
        addr: tuple.dst,
        port: tuple.dst_port,
        proto: tuple.proto,
        scope,
        ..FrontendKey::default()
    };
    // The agent writes this entry of an address last.
    let whole_address = FrontendKey { port: 0, proto: 0, ..key };
    let unmatched = match tables.frontends.get(&whole_address) {
        None if is_unallocated(tables, &tuple.dst) => return Err(Verdict::UnallocatedAddress),
        None => return Err(Verdict::NotService),
        Some(whole) if whole.flags & frontend_flags::PASS_UNMATCHED != 0 => Verdict::NotService,
        Some(_) => Verdict::NoSuchPort,
    };
    if sender == Sender::Node && !matches!(tuple.proto, proto::TCP | proto::UDP) {
        // No socket is connected with any other protocol, and its packets to a ClusterIP do not leave the node.
        let is_of_host = unmatched == Verdict::NotService;
        return Err(if is_of_host { Verdict::NotService } else { Verdict::Unanswerable });
    }
    // Protocol 0 without a port would find the entry of the whole address.
    const OTHERS: u32 = frontend_flags::WILDCARD | frontend_flags::BIND_ONLY;
    let of_port = |key| tables.frontends.get(key).filter(|f| f.flags & OTHERS == 0);
    let mut frontend = of_port(&key).ok_or(unmatched)?;
    if sender == Sender::Wire && frontend.flags & frontend_flags::EXTERNAL_DIFFERS != 0 {
        frontend = of_port(&FrontendKey { scope: scope::EXTERNAL, ..key }).ok_or(unmatched)?;
    }
    if frontend.flags & frontend_flags::RANGES != 0 && !serves(tables, frontend, &tuple.src, sender) {
        return Err(Verdict::SourceNotInRanges);
    }
    match frontend {
        frontend if frontend.count > 0 => Ok(*frontend),
        frontend if frontend.flags & frontend_flags::LOCAL_ONLY != 0 => Err(Verdict::NoLocalEndpoint),
        _ => Err(Verdict::NoEndpoint),
    }
}

/// Whether a frontend with source ranges serves this client.
fn serves(tables: &Desired, frontend: &Frontend, client: &Addr, sender: Sender) -> bool {
    if sender == Sender::Node {
        return frontend.flags & frontend_flags::HOST_IN_RANGES != 0;
    }
    let first = |service| Prefix { data: SourceRange { service, client: [0; 16] }, len: 0 };
    let mut ranges = tables.source_ranges.range(first(frontend.service)..first(frontend.service.next()));
    ranges
        .any(|(range, _)| starts_with(&client.bytes, &range.data.client, range.len - SourceRange::FIXED_BITS))
}

/// Whether it is an address of a ServiceCIDR that no Service has: packets to it are dropped.
pub fn is_unallocated(tables: &Desired, addr: &Addr) -> bool {
    let whole = FrontendKey { addr: *addr, ..FrontendKey::default() };
    !tables.frontends.contains_key(&whole) && is_service_address(tables, addr)
}

/// Whether only a Service has this address, so that no packet from elsewhere has it as its source.
pub fn is_service_source(tables: &Desired, addr: &Addr) -> bool {
    const OF_HOSTS: u32 = frontend_flags::PASS_UNMATCHED | frontend_flags::HOST;
    let whole = tables.frontends.get(&FrontendKey { addr: *addr, ..FrontendKey::default() });
    is_service_address(tables, addr) || whole.is_some_and(|whole| whole.flags & OF_HOSTS == 0)
}

/// Whether only a Service may have this address.
fn is_service_address(tables: &Desired, addr: &Addr) -> bool {
    let key = Block::of(addr);
    tables.service_cidrs.keys().any(|block| {
        block.data.family == key.family
            && starts_with(&key.addr, &block.data.addr, block.len - Block::FAMILY_BITS)
    })
}

/// Whether only the node itself has this address: loopback, or unspecified, which stands for it.
pub fn is_own_to_node(addr: Addr) -> bool {
    let ip = IpAddr::from(addr);
    ip.is_loopback() || ip.is_unspecified()
}

#[cfg(test)]
mod tests;
