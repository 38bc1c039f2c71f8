//! From elsewhere, by the wire, to a Service.

use lbr_common::flow::{BY_ROUTE, flow_flags};
use lbr_common::policy::policy_flags;
use lbr_common::select;
use lbr_common::service::{Backend, Frontend, backend_flags, frontend_flags};
use lbr_common::verdict::Verdict;

use super::spare_port;
use super::store::{insert, is_stored, store};
use crate::maps;
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::step::{self, check};
use crate::{affinity, dsr, flow, policy, route, service};

/// Attempts to find a port for a backend on another node. Each is as good as the part of the ports that is free.
const SNAT_ATTEMPTS: u32 = 32;
/// For how long the port of a connection that has ended is left alone, as long as there are others: its backend still
/// waits for the client's last segment (LAST-ACK), and answers a SYN with that port such that the client asks again after
/// a second. Long enough for any client where ports are many, and for most where connections come fast.
const LONG_REST_NS: i64 = 2_000_000_000;
const REST_NS: i64 = 250_000_000;
/// The last attempts take one that rests, if one was met.
const RESTED_ATTEMPTS: u32 = SNAT_ATTEMPTS - 2;

step::global! {
    /// Begins a flow from the client of the packet, who was looked up as the sender before, to a backend of
    /// `Scratch::frontend`: fills the decision and returns [`Verdict::ToBackend`], or says why not. A backend on this node
    /// sees the client's address. One on another node sees this node's, so that its answers come back here, unless that
    /// node answers directly.
    pub(crate) fn from_wire(skb: Skb, work: &mut Scratch) -> Verdict = begin_from_wire as flow_begin_from_wire;
}

#[inline(always)]
fn begin_from_wire(skb: Skb, work: &mut Scratch) -> Verdict {
    let frontend = work.frontend;
    match try_from_wire(skb, &frontend, work) {
        Ok(()) => Verdict::ToBackend,
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn try_from_wire(skb: Skb, frontend: &Frontend, work: &mut Scratch) -> Result<(), Verdict> {
    let hash = select::hash(&work.packet.tuple, maps::hash_seed());
    let (id, backend) = if work.chosen != 0 {
        (work.chosen, service::backend(work.chosen).ok_or(Verdict::BackendMissing)?)
    } else {
        let slot = service::slot(hash, &work.packet.tuple, frontend);
        affinity::choose(frontend, &work.packet.tuple.src, slot)?
    };
    work.judged.tuple = work.packet.tuple;
    work.judged.tuple.dst = backend.addr;
    work.judged.tuple.dst_port = backend.port;
    policy::meet_receiver(work);
    check(policy::judge(work))?;
    let is_here = backend.flags & backend_flags::HERE != 0;
    work.flow.to = work.judged.tuple;
    if is_here {
        let link = backend.link;
        let isolates = || policy::link_at(link, work.generation) & policy_flags::ISOLATED_IN != 0;
        if work.judged.receiver.flags == 0 && link != 0 && isolates() {
            return Err(Verdict::NotJudged);
        }
    } else {
        if work.chosen != 0 {
            // Moved away: it must not travel in circles.
            return Err(Verdict::BackendMissing);
        }
        let is_tunneled = frontend.flags & frontend_flags::TUNNELED != 0;
        let is_direct = frontend.flags & frontend_flags::DIRECT != 0
            && !service::is_inside(&work.packet.tuple.src)
            && dsr::makes_room(skb, work, is_tunneled);
        check(route::find(skb, work, &backend.addr))?;
        if is_direct {
            plan_from_wire(work, id, backend);
            work.flow.flags |= flow_flags::DIRECT | if is_tunneled { flow_flags::TUNNELED } else { 0 };
            insert(&work.packet.tuple, &work.flow)?;
            flow::decide(&mut work.decision, &work.flow);
            work.decision.is_new = true;
            return Ok(());
        }
        work.flow.to.src = route::own_address(work).ok_or(Verdict::NoRoute)?;
    }
    plan_from_wire(work, id, backend);
    let mut attempt = 0;
    while attempt < SNAT_ATTEMPTS {
        let mut rest = 0;
        if !is_here {
            (work.flow.to.src_port, rest) = snat_port(work, hash, attempt);
        } else if attempt > 0 {
            work.flow.to.src_port = spare_port(hash, attempt);
        }
        if is_stored(store(work, attempt, rest))? {
            flow::decide(&mut work.decision, &work.flow);
            work.decision.is_new = true;
            return Ok(());
        }
        attempt += 1;
    }
    Err(if is_here { Verdict::PortsExhausted } else { Verdict::SnatExhausted })
}

/// A port in the name of the node, and for how many nanoseconds it must have been at rest.
///
/// First one that is the client's own, so that a connection whose entries were evicted finds it again. Then one after the
/// other: the next one is the one that was not in use for the longest time.
#[inline(always)]
fn snat_port(work: &mut Scratch, hash: u32, attempt: u32) -> (u16, i64) {
    if attempt == 0 {
        work.resting_port = 0;
        return (maps::snat_port(hash >> 4), LONG_REST_NS);
    }
    if attempt >= RESTED_ATTEMPTS && work.resting_port != 0 {
        return (work.resting_port, 0);
    }
    work.next_port = work.next_port.wrapping_add(1);
    (maps::snat_port(work.next_port), REST_NS)
}

/// What both entries of such a flow have besides their tuples.
#[inline(always)]
fn plan_from_wire(work: &mut Scratch, id: u32, backend: &Backend) {
    let flow = &mut work.flow;
    flow.flags = flow_flags::WIRE;
    flow.last_seen = flow::now();
    flow.service = backend.service;
    flow.backend = id;
    flow.epoch = work.epoch;
    flow.audited = work.judged.audited();
    flow.from = 0;
    flow.link = flow::way_to(backend, flow_flags::WIRE);
    flow.twin_link = BY_ROUTE;
}
