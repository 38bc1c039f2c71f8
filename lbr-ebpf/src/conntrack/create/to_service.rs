//! From a pod of this node to a Service.

use lbr_common::flow::flow_flags;
use lbr_common::id::BackendId;
use lbr_common::link::link_flags;
use lbr_common::select;
use lbr_common::service::Backend;
use lbr_common::verdict::Verdict;

use super::store::{NEVER, store};
use super::{Terms, draft_flow, judge_backend, spare_port};
use crate::maps::{self, LINKS};
use crate::packet::Packet;
use crate::policy::query::Query;
use crate::scratch::{Draft, Meta};
use crate::service::{self, affinity};
use crate::step::{self, Found, Step};

/// Attempts to find a free tuple: first other backends, then other source ports.
const BACKEND_ATTEMPTS: u32 = 4;
const ATTEMPTS: u32 = 16;

step::global! {
    /// Begins a flow from the client of the packet to a backend of `Draft::frontend`. The sender was looked up
    /// before.
    pub(crate) fn to_service(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step
        = begin_to_service as conntrack_begin_to_service;
}

/// Usually the first attempt does. Others are for a client port that already leads to the same backend by
/// another frontend, and so has the reply tuple: another backend is tried, then another port.
#[inline(always)]
fn begin_to_service(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step {
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        if try_backend(packet, meta, query, draft, attempt)? {
            return Ok(());
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
}

step::global! {
    /// One attempt. False: another flow has the reply tuple.
    fn try_backend(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft; attempt: u32) -> Found
        = begin_to_backend as conntrack_begin_to_backend;
}

#[inline(always)]
fn begin_to_backend(
    packet: &Packet,
    meta: &Meta,
    query: &mut Query,
    draft: &mut Draft,
    attempt: u32,
) -> Found {
    let frontend = &draft.frontend;
    let hash = select::hash(&packet.tuple, maps::hash_seed());
    let first = service::slot(hash, &packet.tuple, frontend);
    // Where the client has a backend of its own, it is the port that gives way.
    let is_free = frontend.affinity == 0 && frontend.maglev.is_none();
    let (slot, port) = if attempt == 0 || (attempt < BACKEND_ATTEMPTS && is_free) {
        ((first + attempt) % service::slots(frontend).max(1), packet.tuple.src_port)
    } else {
        (first, spare_port(hash, attempt))
    };
    let (id, backend) = affinity::choose(frontend, &packet.tuple.src, slot)?;
    judge_backend(packet, meta, query, backend)?;
    let terms = plan(packet, meta, draft, id, backend, port);
    draft_flow(packet, meta, query, draft, &terms);
    store(packet, meta, draft, 0, NEVER)
}

/// The tuple of a flow to `backend`, and its terms.
#[inline(always)]
fn plan(
    packet: &Packet,
    meta: &Meta,
    draft: &mut Draft,
    id: BackendId,
    backend: &Backend,
    port: u16,
) -> Terms {
    let key = &packet.tuple;
    let ifindex = meta.ifindex;
    // SAFETY: valid for the run of the program; the agent replaces entries whole.
    let link_flags = LINKS.get_ptr(ifindex).map_or(0, |link| unsafe { (*link).flags });
    let own_ifindex = if link_flags & link_flags::PEER != 0 { ifindex } else { 0 };
    let is_hairpin = backend.addr == key.src;
    let to = &mut draft.flow.to;
    // A pod takes no packet from its own address, so to itself it comes from the frontend's, which leads
    // the answer back here.
    to.src = if is_hairpin { key.dst } else { key.src };
    to.dst = backend.addr;
    to.src_port = port;
    to.dst_port = backend.port;
    to.proto = key.proto;
    to._pad = [0; 3];
    let (redirect_to, twin_redirect_to, flags) = if is_hairpin {
        (own_ifindex, own_ifindex, flow_flags::HAIRPIN)
    } else {
        (backend.ifindex, if link_flags & link_flags::ROUTED != 0 { ifindex } else { 0 }, 0)
    };
    Terms { service: backend.service, backend: id, redirect_to, twin_redirect_to, flags }
}
