//! From elsewhere, by an uplink, to a Service.

use lbr_common::flow::{BY_ROUTE, flow_flags};
use lbr_common::id::BackendId;
use lbr_common::select;
use lbr_common::service::{Backend, backend_flags, frontend_flags};
use lbr_common::verdict::Verdict;

use super::super::{decide, redirect_target};
use super::snat;
use super::store::{NEVER, store, store_original};
use super::{Terms, draft, judge_backend, spare_port};
use crate::forward::route;
use crate::maps;
use crate::packet::skb::Skb;
use crate::scratch::Scratch;
use crate::service::{self, affinity, dsr};
use crate::step::{self, Step};

/// Attempts to find another source port for a client whose own one leads to the same backend already.
const PORT_ATTEMPTS: u32 = 8;

step::global! {
    /// Begins a flow from the client of the packet, which was looked up as the sender before, to a backend of
    /// `Draft::frontend`, and fills the decision. A backend on this node sees the client's address. One on another node
    /// sees this node's, so that its answers come back here (SNAT), unless that node answers directly.
    pub(crate) fn from_wire(skb: Skb, work: &mut Scratch) -> Step = begin_from_wire as conntrack_begin_from_wire;
}

#[inline(always)]
fn begin_from_wire(skb: Skb, work: &mut Scratch) -> Step {
    let hash = select::hash(&work.packet.tuple, maps::hash_seed());
    let (id, backend) = if work.dsr.backend.is_some() {
        (work.dsr.backend, service::backend(work.dsr.backend).ok_or(Verdict::BackendMissing)?)
    } else {
        let frontend = &work.draft.frontend;
        let slot = service::slot(hash, &work.packet.tuple, frontend);
        affinity::choose(frontend, &work.packet.tuple.src, slot)?
    };
    judge_backend(work, backend)?;
    work.draft.flow.to = work.query.tuple;
    if backend.flags & backend_flags::HERE != 0 {
        return to_backend_here(work, id, backend, hash);
    }
    if work.dsr.backend.is_some() {
        // It has moved away: a packet of direct server return is never sent to a third node.
        return Err(Verdict::BackendMissing);
    }
    let flags = work.draft.frontend.flags;
    let is_dsr_ipip = flags & frontend_flags::DSR_IPIP != 0;
    let is_dsr = flags & frontend_flags::DSR != 0
        && !service::is_in_cluster(&work.packet.tuple.src)
        && dsr::makes_room(skb, work, is_dsr_ipip);
    route::find(skb, work, &backend.addr)?;
    if is_dsr {
        draft_wire(work, id, backend, flow_flags::DSR | if is_dsr_ipip { flow_flags::DSR_IPIP } else { 0 });
        store_original(work)?;
        return begun(work);
    }
    work.draft.flow.to.src = route::own_address(work).ok_or(Verdict::NoRoute)?;
    draft_wire(work, id, backend, 0);
    snat::find_port(work, hash)?;
    begun(work)
}

#[inline(always)]
fn to_backend_here(work: &mut Scratch, id: BackendId, backend: &Backend, hash: u32) -> Step {
    draft_wire(work, id, backend, 0);
    let mut attempt = 0;
    while attempt < PORT_ATTEMPTS {
        if attempt > 0 {
            work.draft.flow.to.src_port = spare_port(hash, attempt);
        }
        if store(work, 0, NEVER)? {
            return begun(work);
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
}

/// What all these flows have besides their tuples.
#[inline(always)]
fn draft_wire(work: &mut Scratch, id: BackendId, backend: &Backend, flags: u32) {
    let redirect_to = redirect_target(backend, flow_flags::EXTERNAL);
    let flags = flags | flow_flags::EXTERNAL;
    draft(
        work,
        &Terms { service: backend.service, backend: id, redirect_to, twin_redirect_to: BY_ROUTE, flags },
    );
}

#[inline(always)]
fn begun(work: &mut Scratch) -> Step {
    decide(&mut work.decision, &work.draft.flow);
    work.decision.is_new = true;
    Ok(())
}
