//! From a destination to a backend: frontends, slots, backends.

use lbr_common::addr::Addr;
use lbr_common::select;
use lbr_common::service::{Backend, Frontend, FrontendKey, frontend_flags, scope};
use lbr_common::verdict::Verdict;

use crate::maps::{BACKENDS, FRONTENDS, SLOTS};

/// The frontend that `to:port` belongs to, if it has anything to offer.
///
/// The address alone is asked first: most packets that come this far are for no Service, and one look-up says
/// so.
#[inline(always)]
pub(crate) fn frontend(to: &Addr, port: u16, proto: u8) -> Result<Frontend, Verdict> {
    if !owns_address(to) {
        return Err(Verdict::NoService);
    }
    let key = FrontendKey { addr: *to, port, proto, scope: scope::ANY, _pad: 0 };
    // SAFETY: the entry is copied at once; the agent replaces entries whole.
    let frontend = *(unsafe { FRONTENDS.get(key) }).ok_or(Verdict::NoSuchPort)?;
    if frontend.count > 0 {
        Ok(frontend)
    } else if frontend.flags & frontend_flags::ADDRESS != 0 {
        // Protocol 0, which has no ports: what was found is the entry for the whole address.
        Err(Verdict::NoSuchPort)
    } else if frontend.flags & frontend_flags::LOCAL_ONLY != 0 {
        Err(Verdict::NoLocalEndpoint)
    } else {
        Err(Verdict::NoEndpoint)
    }
}

/// Whether the address as a whole is a Service's.
#[inline(always)]
pub(crate) fn owns_address(addr: &Addr) -> bool {
    let key = FrontendKey { addr: *addr, port: 0, proto: 0, scope: scope::ANY, _pad: 0 };
    FRONTENDS.get_ptr(key).is_some()
}

/// The backend in a slot of a frontend.
///
/// When the agent takes a backend away it lowers the count before it removes the last slot; a packet that
/// read the old count in between finds no slot, and takes the first one, which is there as long as any is.
#[inline(always)]
pub(crate) fn backend_in_slot(frontend: &Frontend, slot: u32) -> Result<(u32, &'static Backend), Verdict> {
    let id =
        slot_backend(frontend, slot).or_else(|| slot_backend(frontend, 0)).ok_or(Verdict::BackendMissing)?;
    Ok((id, backend(id).ok_or(Verdict::BackendMissing)?))
}

/// The slot for a connection.
#[inline(always)]
pub(crate) fn slot(hash: u32, frontend: &Frontend) -> u32 {
    select::slot(hash, frontend.count)
}

/// The backend with this id.
#[inline(always)]
pub(crate) fn backend(id: u32) -> Option<&'static Backend> {
    // SAFETY: valid for the run of the program; the agent replaces entries whole, and an entry that it removes
    // is freed after an RCU grace period.
    unsafe { BACKENDS.get(id) }
}

#[inline(always)]
fn slot_backend(frontend: &Frontend, slot: u32) -> Option<u32> {
    // SAFETY: as in `backend`.
    unsafe { SLOTS.get(frontend.slot(slot)) }.map(|slot| slot.backend)
}
