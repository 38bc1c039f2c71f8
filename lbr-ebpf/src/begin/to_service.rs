//! From a pod of this node to a Service.

use lbr_common::flow::flow_flags;
use lbr_common::link::link_flags;
use lbr_common::policy::policy_flags;
use lbr_common::select;
use lbr_common::service::Backend;
use lbr_common::verdict::Verdict;

use super::spare_port;
use super::store::{is_stored, store};
use crate::maps::{self, LINKS};
use crate::scratch::Scratch;
use crate::step::{self, check};
use crate::{affinity, flow, policy, service};

/// Attempts to find a free tuple: first other backends, then other source ports.
const BACKEND_ATTEMPTS: u32 = 4;
const ATTEMPTS: u32 = 16;

step::global! {
    /// Begins a flow from the client of the packet to a backend of `Scratch::frontend`: fills the decision and returns
    /// [`Verdict::ToBackend`], or says why not. `source` was asked before, and so the sender is known.
    pub(crate) fn to_service(work: &mut Scratch, ifindex: u32) -> Verdict = begin_to_service as flow_begin_to_service;
}

/// Usually the first attempt does. Others are for a client port that already leads to the same backend by
/// another frontend: the answers could not be told apart, so another backend is tried, then another port.
#[inline(always)]
fn begin_to_service(work: &mut Scratch, ifindex: u32) -> Verdict {
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        match try_backend(work, ifindex, attempt) {
            Verdict::NoService => attempt += 1,
            verdict => return verdict,
        }
    }
    Verdict::PortsExhausted
}

step::global! {
    /// One attempt. [`Verdict::ToBackend`]; [`Verdict::NoService`]: the answers could not be told from another flow's; or
    /// why it can not be.
    fn try_backend(work: &mut Scratch, ifindex: u32, attempt: u32) -> Verdict = begin_to_backend as flow_begin_to_backend;
}

#[inline(always)]
fn begin_to_backend(work: &mut Scratch, ifindex: u32, attempt: u32) -> Verdict {
    match store_to_backend(work, ifindex, attempt) {
        Ok(true) => Verdict::ToBackend,
        Ok(false) => Verdict::NoService,
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn store_to_backend(work: &mut Scratch, ifindex: u32, attempt: u32) -> Result<bool, Verdict> {
    let frontend = &work.frontend;
    let hash = select::hash(&work.packet.tuple, maps::hash_seed());
    let first = service::slot(hash, &work.packet.tuple, frontend);
    // Where the client has a backend of its own, it is the port that gives way.
    let is_free = frontend.affinity == 0 && frontend.maglev == 0;
    let (slot, port) = if attempt == 0 || (attempt < BACKEND_ATTEMPTS && is_free) {
        ((first + attempt) % service::slots(frontend).max(1), work.packet.tuple.src_port)
    } else {
        (first, spare_port(hash, attempt))
    };
    let (id, backend) = affinity::choose(frontend, &work.packet.tuple.src, slot)?;
    work.judged.tuple = work.packet.tuple;
    work.judged.tuple.dst = backend.addr;
    work.judged.tuple.dst_port = backend.port;
    policy::meet_receiver(work);
    check(policy::judge(work))?;
    // A pod of this node of which nothing else is known: no program would meet the packet again.
    if work.judged.receiver.flags == 0
        && backend.link != 0
        && policy::link_at(backend.link, work.generation) & policy_flags::ISOLATED_IN != 0
    {
        return Err(Verdict::NotJudged);
    }
    plan(work, id, backend, port, ifindex);
    if !is_stored(store(work, attempt, 0))? {
        return Ok(false);
    }
    flow::decide(&mut work.decision, &work.flow);
    work.decision.is_new = true;
    Ok(true)
}

/// Both entries of a flow to `backend`, in `work`.
#[inline(always)]
fn plan(work: &mut Scratch, id: u32, backend: &Backend, port: u16, ifindex: u32) {
    let key = &work.packet.tuple;
    // SAFETY: valid for the run of the program; the agent replaces entries whole.
    let link_flags = LINKS.get_ptr(ifindex).map_or(0, |link| unsafe { (*link).flags });
    let own_link = if link_flags & link_flags::PEER != 0 { ifindex } else { 0 };
    let hairpin = backend.addr == key.src;
    let flow = &mut work.flow;
    // A pod takes no packet from its own address, so to itself it comes from the frontend's, which leads
    // the answer back here.
    flow.to.src = if hairpin { key.dst } else { key.src };
    flow.to.dst = backend.addr;
    flow.to.src_port = port;
    flow.to.dst_port = backend.port;
    flow.to.proto = key.proto;
    flow.last_seen = flow::now();
    flow.service = backend.service;
    flow.backend = id;
    flow.epoch = work.epoch;
    flow.audited = work.judged.audited();
    flow.from = ifindex;
    if hairpin {
        flow.flags = flow_flags::HAIRPIN;
        flow.link = own_link;
        flow.twin_link = own_link;
    } else {
        flow.flags = 0;
        flow.link = backend.link;
        flow.twin_link = if link_flags & link_flags::DIRECT != 0 { ifindex } else { 0 };
    }
}
