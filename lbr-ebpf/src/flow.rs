//! The flow of a packet: found, checked, or begun. See `lbr_common::flow` for what an entry means.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use lbr_common::flow::{Flow, IDLE_NS, TOUCH_INTERVAL_NS, flow_flags};
use lbr_common::link::link_flags;
use lbr_common::select;
use lbr_common::service::{Backend, Frontend};
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::Verdict;

use crate::maps::{self, FLOWS, LINKS};
use crate::packet::{Packet, tcp_flags};
use crate::scratch::{Decision, Scratch};
use crate::service;

/// A TCP connection without packets for this long gives way (RFC 5382, REQ-5: not below 2 h 4 min).
const TCP_IDLE_NS: u64 = 7_500 * 1_000_000_000;

/// First source port that stands in for one that is taken. Above Linux' default ephemeral range
/// (`ip_local_port_range`: 32768 to 60999), so that it does not meet a port that the client chose itself.
const SPARE_PORTS_FROM: u16 = 61_000;
const SPARE_PORTS: u16 = u16::MAX - SPARE_PORTS_FROM;
/// Attempts to find a free tuple: first other backends, then other source ports.
const BACKEND_ATTEMPTS: u32 = 4;
const ATTEMPTS: u32 = 16;

/// The flow that this packet belongs to, brought up to date with it; false if it has none or begins anew.
#[inline(always)]
pub(crate) fn find(packet: &Packet, decision: &mut Decision) -> bool {
    let Some(entry) = FLOWS.get_ptr_mut(&packet.tuple) else { return false };
    // SAFETY: entries live until the program ends (the map is freed after an RCU grace period). The kernel
    // may hand an evicted entry to another flow meanwhile: the fields are read once, and what is written
    // (time, flags, epoch) costs that flow at most one look at its backend.
    let flow = unsafe { &mut *entry };
    let is_reply = flow.flags & flow_flags::REPLY != 0;

    let begins_anew = !is_reply && packet.is_syn() && is_over(flow);
    let epoch = maps::epoch();
    if begins_anew || (flow.epoch != epoch && !refresh(packet, flow, epoch)) {
        return false;
    }
    let now = now();
    if now.wrapping_sub(flow.last_seen) > TOUCH_INTERVAL_NS {
        flow.last_seen = now;
        restore_twin(&packet.tuple, flow);
    }
    if packet.tuple.proto == proto::TCP && packet.flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
        flow.flags |= if packet.flags & tcp_flags::RST != 0 { flow_flags::RST } else { flow_flags::FIN };
    }
    *decision = Decision { to: flow.to, link: flow.link, is_reply };
    true
}

/// The flow that packets with this tuple belong to, without touching it.
#[inline(always)]
pub(crate) fn peek(tuple: &Tuple) -> Option<Decision> {
    let entry = FLOWS.get_ptr(tuple)?;
    // SAFETY: as in `find`.
    let flow = unsafe { &*entry };
    Some(Decision { to: flow.to, link: flow.link, is_reply: flow.flags & flow_flags::REPLY != 0 })
}

/// Looks whether what a flow was begun with is still there, since the agent says that something is not. False if
/// the flow has to move to another backend: datagrams, and a SYN (nothing is established yet). A TCP connection
/// keeps its backend whatever becomes of it. A link that is gone is left to the stack, which knows where the
/// address is now.
#[inline(never)]
fn refresh(packet: &Packet, flow: &mut Flow, epoch: u32) -> bool {
    if flow.flags & flow_flags::REPLY == 0 {
        let goes_back = flow.flags & flow_flags::HAIRPIN != 0;
        match service::backend(flow.backend).filter(|b| b.leads_to(&flow.to)) {
            Some(backend) if !goes_back => flow.link = backend.link,
            None if packet.tuple.proto != proto::TCP || packet.is_syn() => return false,
            None if !goes_back => flow.link = 0,
            _ => {}
        }
    }
    flow.link = if_there(flow.link);
    flow.twin_link = if_there(flow.twin_link);
    flow.epoch = epoch;
    true
}

/// The link, or 0 if it is none (any more) that lbr puts packets into.
#[inline(always)]
fn if_there(link: u32) -> u32 {
    if link != 0 && LINKS.get_ptr(link).is_some() { link } else { 0 }
}

/// Whether a TCP connection has ended: reset, or closed by both sides. One that is half closed still delivers.
#[inline(always)]
fn is_over(flow: &Flow) -> bool {
    if flow.to.proto != proto::TCP {
        return false;
    }
    // SAFETY: as in `find`. Where the other direction was evicted, this one's word has to do.
    let twin = FLOWS.get_ptr(flow.twin_key()).map_or(flow_flags::FIN, |twin| unsafe { (*twin).flags });
    (flow.flags | twin) & flow_flags::RST != 0 || flow.flags & twin & flow_flags::FIN != 0
}

/// Puts the entry of the other direction back if the kernel evicted it. The look-up also marks it as used.
#[inline(never)]
fn restore_twin(key: &Tuple, flow: &Flow) {
    let twin_key = flow.twin_key();
    if FLOWS.get_ptr(twin_key).is_none() {
        // Fails only when another CPU was faster.
        let _ = FLOWS.insert(twin_key, flow.twin(key), u64::from(BPF_NOEXIST));
    }
}

/// Begins a flow from the client of the packet to a backend of `frontend`: fills the decision and returns
/// [`Verdict::ToBackend`], or says why not.
#[inline(never)]
pub(crate) fn begin(ifindex: u32, frontend: &Frontend, work: &mut Scratch) -> Verdict {
    match try_begin(ifindex, frontend, work) {
        Ok(()) => Verdict::ToBackend,
        Err(verdict) => verdict,
    }
}

/// Usually the first attempt does. Others are for a client port that already leads to the same backend by
/// another frontend: the answers could not be told apart, so another backend is tried, then another port.
#[inline(always)]
fn try_begin(ifindex: u32, frontend: &Frontend, work: &mut Scratch) -> Result<(), Verdict> {
    let hash = select::hash(&work.packet.tuple, maps::hash_seed());
    let first = service::slot(hash, frontend);
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        let (slot, port) = if attempt < BACKEND_ATTEMPTS {
            ((first + attempt) % frontend.count.max(1), work.packet.tuple.src_port)
        } else {
            let spare = (hash >> 8).wrapping_add(attempt.wrapping_mul(0x9e5)) % u32::from(SPARE_PORTS);
            (first, SPARE_PORTS_FROM + spare as u16)
        };
        let (id, backend) = service::backend_in_slot(frontend, slot)?;
        plan(work, id, &backend, port, ifindex);
        if store(work)? {
            work.decision = Decision { to: work.flow.to, link: work.flow.link, is_reply: false };
            return Ok(());
        }
        attempt += 1;
    }
    Err(Verdict::PortsExhausted)
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
    flow.last_seen = now();
    flow.service = backend.service;
    flow.backend = id;
    flow.epoch = maps::epoch();
    if hairpin {
        flow.flags = flow_flags::HAIRPIN;
        flow.link = own_link;
        flow.twin_link = own_link;
    } else {
        flow.flags = 0;
        flow.link = backend.link;
        flow.twin_link = if link_flags & link_flags::DIRECT != 0 { ifindex } else { 0 };
    }
    work.reply_key = work.flow.twin_key();
    work.reply = work.flow.twin(key);
}

/// Stores both entries of a flow; false if its answers could not be told from another flow's.
#[inline(always)]
fn store(work: &Scratch) -> Result<bool, Verdict> {
    let key = &work.packet.tuple;
    // The answer's entry first: whoever sees the packet that follows finds it.
    if FLOWS.insert(&work.reply_key, &work.reply, u64::from(BPF_NOEXIST)).is_err() {
        // Neither stored nor there: the kernel had no room.
        let existing = FLOWS.get_ptr_mut(&work.reply_key).ok_or(Verdict::FlowTableFull)?;
        // SAFETY: as in `find`.
        let existing = unsafe { &mut *existing };
        if existing.to != work.reply.to && !may_be_replaced(existing, work.reply.last_seen) {
            return Ok(false);
        }
        if !renew(existing, &work.reply) {
            insert(&work.reply_key, &work.reply)?;
        }
    }
    if let Some(existing) = FLOWS.get_ptr_mut(key) {
        // SAFETY: as in `find`.
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
    existing.flags = new.flags;
    existing.epoch = new.epoch;
    existing.last_seen = new.last_seen;
    true
}

/// Whether a flow is over, so that another may take its tuple.
#[inline(always)]
fn may_be_replaced(flow: &Flow, now: u64) -> bool {
    let idle = if flow.to.proto == proto::TCP { TCP_IDLE_NS } else { IDLE_NS };
    is_over(flow) || now.wrapping_sub(flow.last_seen) > idle
}

#[inline(always)]
fn insert(key: &Tuple, flow: &Flow) -> Result<(), Verdict> {
    FLOWS.insert(key, flow, u64::from(BPF_ANY)).map_err(|_| Verdict::FlowTableFull)
}

/// `CLOCK_MONOTONIC` in nanoseconds, exact to a timer tick: enough for ages in seconds, at a third of the
/// price.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}
