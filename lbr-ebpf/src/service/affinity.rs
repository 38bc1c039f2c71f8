//! Clients that come back to the backend that they were at.

use aya_ebpf::bindings::BPF_ANY;
use lbr_common::addr::Addr;
use lbr_common::id::BackendId;
use lbr_common::service::{Affinity, AffinityKey, Backend, Frontend, set};
use lbr_common::verdict::Verdict;

use crate::conntrack;
use crate::maps::AFFINITY;
use crate::service;

const SECOND_NS: u64 = 1_000_000_000;

/// The backend for a new connection: the one of the client's last connection, if the frontend asks for that and it
/// still takes connections, else that in the slot. `client` is unspecified for the node's own processes.
#[inline(always)]
pub(crate) fn choose(
    frontend: &Frontend,
    client: &Addr,
    slot: u32,
) -> Result<(BackendId, &'static Backend), Verdict> {
    if frontend.affinity == 0 {
        return service::backend_in_slot(frontend, slot);
    }
    let key = AffinityKey { client: *client, service: frontend.service, _pad: 0 };
    let now = conntrack::now();
    let known = last(&key, frontend, now);
    let (id, backend) = match known.and_then(|id| Some((id, service::backend(id)?))) {
        Some((id, backend))
            if backend.service == frontend.service && backend.sets & set::bit(frontend.set) != 0 =>
        {
            (id, backend)
        }
        _ => service::backend_in_slot(frontend, slot)?,
    };
    // Without room the next connection is spread anew.
    let _ = AFFINITY.insert(&key, &Affinity { last_used: now, backend: id, _pad: 0 }, u64::from(BPF_ANY));
    Ok((id, backend))
}

/// Where the client's last connection went, unless that is too long ago.
#[inline(always)]
fn last(key: &AffinityKey, frontend: &Frontend, now: u64) -> Option<BackendId> {
    // SAFETY: the entry is copied at once.
    let last = *(unsafe { AFFINITY.get(key) })?;
    let age = (now.wrapping_sub(last.last_used) as i64).max(0) as u64;
    (age <= u64::from(frontend.affinity) * SECOND_NS).then_some(last.backend)
}
