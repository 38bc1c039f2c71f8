//! What the programs do with a packet that begins a connection to a Service, step by step in user space.
//!
//! The same lookups in the same order as the kernel object, on tables that are plain data: for tests of what
//! was compiled, and to answer "where would this connection go" without sending a packet.

use std::collections::BTreeSet;

use lbr_common::addr::Addr;
use lbr_common::select;
use lbr_common::service::{Frontend, FrontendKey, frontend_flags};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Verdict;

use crate::desired::Desired;

/// Where a new connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What happens to it.
    pub verdict: Verdict,
    /// Address and port of the backend, if the verdict is [`Verdict::ToBackend`].
    pub backend: Option<(Addr, u16)>,
}

/// Looks up a new connection. `seed` is that of [`select::hash`].
pub fn resolve(tables: &Desired, tuple: &Tuple, seed: u64) -> Resolved {
    let frontend = match find(tables, tuple) {
        Ok(frontend) => frontend,
        Err(verdict) => return Resolved { verdict, backend: None },
    };
    let slot_number = select::slot(select::hash(tuple, seed), frontend.count);
    let slot = |slot| tables.slots.get(&frontend.slot(slot));
    // A count that is just being lowered may reach a slot that is gone: the first one stands in.
    let slot = slot(slot_number).or_else(|| slot(0));
    match slot.and_then(|slot| tables.backends.get(&slot.backend)) {
        Some(b) => Resolved { verdict: Verdict::ToBackend, backend: Some((b.addr, b.port)) },
        None => Resolved { verdict: Verdict::BackendMissing, backend: None },
    }
}

/// Every place that a new connection may go to, each once, in order; or why it goes nowhere.
pub fn endpoints(tables: &Desired, tuple: &Tuple) -> Result<BTreeSet<(Addr, u16)>, Verdict> {
    let frontend = find(tables, tuple)?;
    let slots = (0..frontend.count).filter_map(|slot| tables.slots.get(&frontend.slot(slot)));
    let backends = slots.filter_map(|slot| tables.backends.get(&slot.backend));
    let endpoints: BTreeSet<_> = backends.map(|b| (b.addr, b.port)).collect();
    if endpoints.is_empty() { Err(Verdict::BackendMissing) } else { Ok(endpoints) }
}

/// The frontend that leads somewhere, or why there is none.
fn find(tables: &Desired, tuple: &Tuple) -> Result<Frontend, Verdict> {
    let key =
        FrontendKey { addr: tuple.dst, port: tuple.dst_port, proto: tuple.proto, ..FrontendKey::default() };
    let whole_address = FrontendKey { port: 0, proto: 0, ..key };
    // An address comes into force with this entry, which is written last.
    if !tables.frontends.contains_key(&whole_address) {
        return Err(Verdict::NoService);
    }
    match tables.frontends.get(&key) {
        Some(frontend) if frontend.count > 0 => Ok(*frontend),
        None => Err(Verdict::NoSuchPort),
        // Protocol 0, which has no ports, finds the entry of the whole address.
        Some(frontend) if frontend.flags & frontend_flags::ADDRESS != 0 => Err(Verdict::NoSuchPort),
        Some(frontend) if frontend.flags & frontend_flags::LOCAL_ONLY != 0 => Err(Verdict::NoLocalEndpoint),
        Some(_) => Err(Verdict::NoEndpoint),
    }
}
