//! The first packet of a flow: both its entries, and a tuple whose answers can be told from others'.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use lbr_common::flow::{BY_ROUTE, Flow, IDLE_NS, flow_flags};
use lbr_common::link::link_flags;
use lbr_common::policy::policy_flags;
use lbr_common::select;
use lbr_common::service::{Backend, Frontend, backend_flags, frontend_flags};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::Verdict;

use crate::maps::{self, FLOWS, LINKS};
use crate::scratch::Scratch;
use crate::skb::Skb;
use crate::step::{DONE, check};
use crate::{affinity, dsr, flow, policy, route, service};

/// First source port that stands in for one that is taken. Above Linux' default ephemeral range
/// (`ip_local_port_range`: 32768 to 60999), so that it does not meet a port that the client chose itself.
const SPARE_PORTS_FROM: u16 = 61_000;
const SPARE_PORTS: u16 = u16::MAX - SPARE_PORTS_FROM;
/// Attempts to find a port for a backend on another node. Each is as good as the part of the ports that is free.
const SNAT_ATTEMPTS: u32 = 32;
/// For how long the port of a connection that has ended is left alone, as long as there are others: its backend still
/// waits for the client's last segment (LAST-ACK), and answers a SYN with that port such that the client asks again after
/// a second. Long enough for any client where ports are many, and for most where connections come fast.
const LONG_REST_NS: i64 = 2_000_000_000;
const REST_NS: i64 = 250_000_000;
/// The last attempts take one that rests, if one was met.
const RESTED_ATTEMPTS: u32 = SNAT_ATTEMPTS - 2;
/// Attempts to find a free tuple: first other backends, then other source ports.
const BACKEND_ATTEMPTS: u32 = 4;
const ATTEMPTS: u32 = 16;
/// The same without a Service.
const PLAIN_ATTEMPTS: u32 = 4;

/// Begins a flow from the client of the packet to a backend of `frontend`: fills the decision and returns
/// [`Verdict::ToBackend`], or says why not. `source` was asked before, and so the sender is known.
#[inline(never)]
pub(crate) fn to_service(ifindex: u32, frontend: &Frontend, work: &mut Scratch) -> Verdict {
    match try_to_service(ifindex, frontend, work) {
        Ok(()) => Verdict::ToBackend,
        Err(verdict) => verdict,
    }
}

/// Usually the first attempt does. Others are for a client port that already leads to the same backend by
/// another frontend: the answers could not be told apart, so another backend is tried, then another port.
#[inline(always)]
fn try_to_service(ifindex: u32, frontend: &Frontend, work: &mut Scratch) -> Result<(), Verdict> {
    let hash = select::hash(&work.packet.tuple, maps::hash_seed());
    let first = service::slot(hash, &work.packet.tuple, frontend);
    // Where the client has a backend of its own, it is the port that gives way.
    let is_free = frontend.affinity == 0 && frontend.maglev == 0;
    let mut attempt = 0;
    while attempt < ATTEMPTS {
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
        if is_stored(store(work, attempt, 0))? {
            flow::decide(&mut work.decision, &work.flow);
            work.decision.is_new = true;
            return Ok(());
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
}

/// The same for a client that came by the wire, who was looked up as the sender before. A backend on this node sees
/// the client's address. One on another node sees this node's, so that its answers come back here, unless that node
/// answers directly.
#[inline(never)]
pub(crate) fn from_wire(skb: Skb, frontend: &Frontend, work: &mut Scratch) -> Verdict {
    match try_from_wire(skb, frontend, work) {
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

/// Begins a flow without a Service, if one end is a pod that the agent knows: fills the decision and returns
/// [`DONE`]. [`Verdict::NoService`]: nobody asks for it. [`Verdict::Node`]: to the node itself. Else why not. `source`
/// was asked before, as above.
///
/// A TCP packet that opens nothing belongs to a connection that is older than the flow (the agent is new here, or
/// the kernel evicted the entry): it may go on if a connection in either direction would be allowed.
#[inline(never)]
pub(crate) fn plain(from: u32, work: &mut Scratch) -> Verdict {
    let verdict = judge_plain(from, work);
    if verdict != DONE {
        return verdict;
    }
    let ends = work.judged.sender.flags | work.judged.receiver.flags;
    if ends & policy_flags::NODE != 0 {
        return Verdict::Node;
    }
    if ends & policy_flags::POD == 0 {
        return Verdict::NoService;
    }
    store_plain(from, work)
}

/// The same for a client from elsewhere that has a flow to the same backend by a Service: whoever the backend is, a
/// process of the node too, the answers have to be told apart.
#[inline(never)]
pub(crate) fn beside_service(work: &mut Scratch) -> Verdict {
    let verdict = judge_plain(0, work);
    if verdict != DONE {
        return verdict;
    }
    work.flow.flags |= flow_flags::WIRE;
    store_plain(0, work)
}

/// Looks up the receiver, judges, and gives the flow its first flags.
#[inline(always)]
fn judge_plain(from: u32, work: &mut Scratch) -> Verdict {
    work.judged.tuple = work.packet.tuple;
    policy::meet_receiver(work);
    work.flow.flags = if work.judged.receiver.flags == 0 { flow_flags::NOBODY } else { 0 };
    if from == 0 && work.flow.flags != 0 && policy::isolates(work, policy_flags::ISOLATED_IN) {
        return Verdict::NotJudged;
    }
    let is_midflow = work.packet.tuple.proto == proto::TCP && !work.packet.is_syn();
    if is_midflow {
        work.flow.flags |= flow_flags::MIDFLOW;
    }
    flow::judge_either(work, is_midflow)
}

#[inline(always)]
fn store_plain(from: u32, work: &mut Scratch) -> Verdict {
    match try_plain(from, work) {
        Ok(()) => DONE,
        Err(verdict) => verdict,
    }
}

/// The tuple stays as it is, unless the answers could not be told from those of a flow to a Service that has
/// the same backend: then another source port stands in.
#[inline(always)]
fn try_plain(from: u32, work: &mut Scratch) -> Result<(), Verdict> {
    work.flow.flags |= flow_flags::PLAIN;
    let mut attempt = 0;
    while attempt < PLAIN_ATTEMPTS {
        let flow = &mut work.flow;
        flow.to = work.packet.tuple;
        if attempt > 0 {
            let hash = select::hash(&work.packet.tuple, maps::hash_seed());
            flow.to.src_port = spare_port(hash, attempt);
            flow.flags &= !flow_flags::PLAIN;
        }
        flow.last_seen = flow::now();
        flow.service = 0;
        flow.backend = 0;
        flow.link = 0;
        flow.twin_link = 0;
        flow.epoch = work.epoch;
        flow.audited = work.judged.audited();
        flow.from = from;
        if is_stored(store(work, attempt, 0))? {
            flow::decide(&mut work.decision, &work.flow);
            return Ok(());
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
}

/// A source port that stands in for one that is taken.
#[inline(always)]
fn spare_port(hash: u32, attempt: u32) -> u16 {
    SPARE_PORTS_FROM + ((hash >> 8).wrapping_add(attempt.wrapping_mul(0x9e5)) % u32::from(SPARE_PORTS)) as u16
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

/// Whether [`store`] did.
#[inline(always)]
fn is_stored(verdict: Verdict) -> Result<bool, Verdict> {
    match verdict {
        DONE => Ok(true),
        Verdict::NoService => Ok(false),
        verdict => Err(verdict),
    }
}

/// Stores both entries of a flow. [`DONE`]; [`Verdict::NoService`]: its answers could not be told from another flow's,
/// which lives, or ended less than `rest` nanoseconds ago; or why it can not be.
#[inline(never)]
fn store(work: &mut Scratch, attempt: u32, rest: i64) -> Verdict {
    match try_store(work, attempt, rest) {
        Ok(true) => DONE,
        Ok(false) => Verdict::NoService,
        Err(verdict) => verdict,
    }
}

#[inline(always)]
fn try_store(work: &mut Scratch, attempt: u32, rest: i64) -> Result<bool, Verdict> {
    let key = &work.packet.tuple;
    work.reply_key = work.flow.twin_key();
    work.flow.write_twin(key, &mut work.reply);
    // The answer's entry first: whoever sees the packet that follows finds it. The first attempt usually does; where
    // several are needed, to look is cheaper than to fail to insert.
    let mut existing = if attempt == 0 { None } else { FLOWS.get_ptr_mut(&work.reply_key) };
    if existing.is_none() && FLOWS.insert(&work.reply_key, &work.reply, u64::from(BPF_NOEXIST)).is_err() {
        // Another CPU was faster, or the kernel had no room.
        existing = Some(FLOWS.get_ptr_mut(&work.reply_key).ok_or(Verdict::FlowTableFull)?);
    }
    if let Some(existing) = existing {
        // SAFETY: as in `flow::find`.
        let existing = unsafe { &mut *existing };
        if existing.to != work.reply.to {
            let over = over_for(&work.reply_key, existing, work.reply.last_seen);
            if over < rest {
                if over != flow::ALIVE {
                    work.resting_port = work.flow.to.src_port;
                }
                return Ok(false);
            }
        }
        if !renew(existing, &work.reply) {
            insert(&work.reply_key, &work.reply)?;
        }
    }
    if let Some(existing) = FLOWS.get_ptr_mut(key) {
        // SAFETY: as in `flow::find`.
        if renew(unsafe { &mut *existing }, &work.flow) {
            return Ok(true);
        }
    }
    insert(key, &work.flow)?;
    Ok(true)
}

/// Begins an entry again in place if it already says the same; cheaper than to replace it.
#[inline(always)]
fn renew(existing: &mut Flow, new: &Flow) -> bool {
    if existing.to != new.to || existing.backend != new.backend || existing.link != new.link {
        return false;
    }
    existing.from = new.from;
    existing.flags = new.flags;
    existing.epoch = new.epoch;
    existing.audited = new.audited;
    existing.last_seen = new.last_seen;
    true
}

/// For how many nanoseconds a flow has been over, so that another may take its tuple, or [`flow::ALIVE`].
#[inline(always)]
fn over_for(key: &Tuple, flow: &Flow, now: u64) -> i64 {
    let idle = if flow.to.proto == proto::TCP { flow::TCP_IDLE_NS } else { IDLE_NS };
    let silence = flow::silence(flow, now);
    if silence > idle { silence as i64 } else { flow::over_for(key, flow, now) }
}

#[inline(always)]
fn insert(key: &Tuple, flow: &Flow) -> Result<(), Verdict> {
    FLOWS.insert(key, flow, u64::from(BPF_ANY)).map_err(|_| Verdict::FlowTableFull)
}
