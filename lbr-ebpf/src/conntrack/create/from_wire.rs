//! From elsewhere, by an uplink, to a Service.

use lbr_common::flow::{BY_ROUTE, flow_flags};
use lbr_common::id::BackendId;
use lbr_common::select;
use lbr_common::service::{Backend, backend_flags, frontend_flags};
use lbr_common::verdict::Verdict;

use super::super::redirect_target;
use super::snat;
use super::store::{NEVER, store, store_original};
use super::{Terms, draft_flow, judge_backend, spare_port};
use crate::forward::route;
use crate::maps;
use crate::packet::Packet;
use crate::packet::skb::Skb;
use crate::policy::query::Query;
use crate::scratch::{Draft, Dsr, Meta, Way};
use crate::service::{self, affinity, dsr};
use crate::step::{self, Step};

/// Attempts to find another source port for a client whose own one leads to the same backend already.
const PORT_ATTEMPTS: u32 = 8;

step::global! {
    /// Begins a flow from the client of the packet, which was looked up as the sender before, to a backend of
    /// `Draft::frontend`. A backend on this node sees the client's address. One on another node
    /// sees this node's, so that its answers come back here (SNAT), unless that node answers directly.
    pub(crate) fn from_wire(
        skb: Skb, packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft, dsr: &Dsr, way: &mut Way
    ) -> Step = begin_from_wire as conntrack_begin_from_wire;
}

#[inline(always)]
fn begin_from_wire(
    skb: Skb,
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    draft: &mut Draft,
    dsr: &Dsr,
    way: &mut Way,
) -> Step {
    let hash = select::hash(&packet.tuple, maps::hash_seed());
    let (id, backend) = if dsr.backend.is_some() {
        (dsr.backend, service::backend(dsr.backend).ok_or(Verdict::BackendMissing)?)
    } else {
        let frontend = &draft.frontend;
        let slot = service::slot(hash, &packet.tuple, frontend);
        affinity::choose(frontend, &packet.tuple.src, slot)?
    };
    judge_backend(packet, meta, query, backend)?;
    draft.flow.to = query.tuple;
    if backend.flags & backend_flags::HERE != 0 {
        draft_flow(packet, meta, query, draft, &terms(id, backend, 0));
        return store_with_own_port(packet, meta, draft, hash);
    }
    if dsr.backend.is_some() {
        // It has moved away: a packet of direct server return is never sent to a third node.
        return Err(Verdict::BackendMissing);
    }
    let flags = draft.frontend.flags;
    let is_dsr_ipip = flags & frontend_flags::DSR_IPIP != 0;
    let may_be_dsr = flags & frontend_flags::DSR != 0 && !service::is_in_cluster(&packet.tuple.src);
    let room = if may_be_dsr { dsr::room(skb, packet, is_dsr_ipip) } else { None };
    route::find(skb, packet, meta, way, &backend.addr, room.unwrap_or(0))?;
    if room.is_some() {
        let flags = flow_flags::DSR | if is_dsr_ipip { flow_flags::DSR_IPIP } else { 0 };
        draft_flow(packet, meta, query, draft, &terms(id, backend, flags));
        return store_original(packet, draft).map(|_| ());
    }
    draft.flow.to.src = *route::own_address(packet, way).ok_or(Verdict::NoRoute)?;
    draft_flow(packet, meta, query, draft, &terms(id, backend, 0));
    snat::find_port(packet, meta, draft, hash)
}

/// Stores the draft with the client's own port, unless that leads to the same backend already.
#[inline(always)]
fn store_with_own_port(packet: &Packet, meta: &Meta, draft: &mut Draft, hash: u32) -> Step {
    let mut attempt = 0;
    while attempt < PORT_ATTEMPTS {
        if attempt > 0 {
            draft.flow.to.src_port = spare_port(hash, attempt);
        }
        if store(packet, meta, draft, 0, NEVER)? {
            return Ok(());
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
}

/// What all these flows have besides their tuples.
#[inline(always)]
fn terms(id: BackendId, backend: &Backend, flags: u32) -> Terms {
    let redirect_to = redirect_target(backend, flow_flags::EXTERNAL);
    let flags = flags | flow_flags::EXTERNAL;
    Terms { service: backend.service, backend: id, redirect_to, twin_redirect_to: BY_ROUTE, flags }
}
