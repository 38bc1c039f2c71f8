//! The first packet of a flow: both its entries, with a reply tuple that no other flow has.

mod from_wire;
mod host;
mod plain;
mod snat;
mod store;
mod to_service;

pub(crate) use self::from_wire::from_wire;
pub(crate) use self::host::from_host;
pub(crate) use self::plain::{beside_service, plain};
pub(crate) use self::to_service::to_service;

use aya_ebpf::helpers::generated as helper;
use lbr_common::conntrack::{State, stamp};
use lbr_common::flow::flow_flags;
use lbr_common::id::{BackendId, ServiceId};
use lbr_common::policy::policy_flags;
use lbr_common::service::Backend;
use lbr_common::verdict::{Hook, Verdict};

use super::now;
use crate::packet::Packet;
use crate::policy::query::Query;
use crate::scratch::{Draft, Meta};
use crate::step::Step;
use crate::{maps, policy};

/// First source port that stands in for one that is taken. Above Linux' default ephemeral range
/// (`ip_local_port_range`: 32768 to 60999), so that it does not meet a port that the client chose itself.
const SPARE_PORTS_FROM: u16 = 61_000;
const SPARE_PORTS: u16 = u16::MAX - SPARE_PORTS_FROM;

/// A source port that stands in for one that is taken.
#[inline(always)]
fn spare_port(hash: u32, attempt: u32) -> u16 {
    SPARE_PORTS_FROM + ((hash >> 8).wrapping_add(attempt.wrapping_mul(0x9e5)) % u32::from(SPARE_PORTS)) as u16
}

/// What a flow is begun with, besides its tuples and what is known of the packet.
struct Terms {
    service: ServiceId,
    backend: BackendId,
    /// Redirect targets of the client's packets and of the answers.
    redirect_to: u32,
    twin_redirect_to: u32,
    flags: u32,
}

impl Terms {
    /// Those of a flow without a Service.
    #[inline(always)]
    const fn plain(flags: u32) -> Self {
        Self {
            service: ServiceId::NONE,
            backend: BackendId::NONE,
            redirect_to: 0,
            twin_redirect_to: 0,
            flags,
        }
    }
}

/// Index of the slot that is next in this CPU's ring, when it has given so many.
#[inline(always)]
fn next_slot(taken: u32) -> u32 {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { helper::bpf_get_smp_processor_id() };
    let slots = maps::ring_slots().max(1);
    cpu.wrapping_mul(slots).wrapping_add(taken % slots)
}

/// Makes `Draft::flow`, whose tuple is there already, the entry of the client's packets: the one constructor of a flow.
#[inline(always)]
fn draft_flow(packet: &Packet, meta: &Meta, query: &Query, draft: &mut Draft, terms: &Terms) {
    let now = now();
    let sees_replies = terms.flags & flow_flags::DSR == 0;
    let slot = next_slot(draft.slots_taken);
    let flow = &mut draft.flow;
    flow.last_seen = now;
    flow.service = terms.service;
    flow.backend = terms.backend;
    flow.redirect_to = terms.redirect_to;
    flow.epoch = meta.epoch;
    flow.flags = terms.flags;
    flow.twin_redirect_to = terms.twin_redirect_to;
    flow.audited = query.audited();
    flow.state = State::first(packet.segment(), sees_replies) as u32;
    flow.proof = stamp(now);
    flow.slot = slot;
    // Its source was looked at where the packet is, and its destination is what policies were asked about.
    flow.in_ifindex = match meta.hook {
        Hook::ToPod => meta.entered_by,
        Hook::ToNetdev => 0,
        _ => meta.ifindex,
    };
    flow.out_ifindex = query.receiver_link;
}

/// Judges the connection from the client of the packet to `backend`. The client was looked up before, as the sender.
#[inline(always)]
fn judge_backend(packet: &Packet, meta: &Meta, query: &mut Query, backend: &Backend) -> Step {
    query.tuple = packet.tuple;
    query.tuple.dst = backend.addr;
    query.tuple.dst_port = backend.port;
    policy::look_up_receiver(meta, query);
    policy::judge(meta, query)?;
    // A pod of this node of which nothing else is known: no program would meet the packet again.
    if query.receiver.flags == 0
        && backend.ifindex != 0
        && policy::link_at(backend.ifindex, meta.generation) & policy_flags::ISOLATED_IN != 0
    {
        return Err(Verdict::NotJudged);
    }
    Ok(())
}
