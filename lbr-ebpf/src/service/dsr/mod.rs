//! Direct server return: what goes to a backend on another node keeps the client's address and carries the frontend's,
//! so that the node of the backend can answer in its name. Every packet does, fragments too.
//!
//! In one of two forms, as the frontend has it: the packet is addressed to the backend, and the frontend is an option of
//! it (`option.rs`); or it stays as it is, and travels in a packet of the nodes' own (`tunnel.rs`). The backend's node
//! takes both.
//!
//! What such a packet says is believed only if its destination is a backend here whose service answers directly, by a
//! frontend that this node knows; of a port of nodes the address is not compared, since it may be any node's. A
//! forged option makes answers to the attacker come from an address that the attacker chooses, which gains nothing. A
//! forged tunnel would choose the client's address too, so tunnels are accepted from nodes only.

mod option;
mod tunnel;

use lbr_common::addr::Addr;
use lbr_common::id::ServiceId;
use lbr_common::policy::policy_flags;
use lbr_common::service::{Backend, Slot, SlotKey, backend_flags, frontend_flags, set};
use lbr_common::tuple::proto;
use lbr_common::verdict::Verdict;

use crate::conntrack;
use crate::maps::SLOTS;
use crate::packet::fragments;
use crate::packet::inner::Inner;
use crate::packet::skb::Skb;
use crate::packet::{self, Packet, Part};
use crate::policy;
use crate::policy::query::Query;
use crate::scratch::{Decision, Dsr, Meta, Way};
use crate::service::{self, Origin};
use crate::step::{self, Found, Step};

/// Where `127.0.0.1` and `::1` serve a port, all addresses of nodes do.
const LOOPBACK_V4: Addr = Addr::v4([127, 0, 0, 1]);
const LOOPBACK_V6: Addr = Addr::from_words([0, 0, 0, 1u32.to_be()]);

/// Backends of one service on a node that are looked through: more than a node has pods.
const MOST_HERE: u32 = 256;

/// How much the packet grows by when the frontend is put into it, if that fits.
#[inline(always)]
pub(crate) fn room(skb: Skb, packet: &Packet, is_dsr_ipip: bool) -> Option<u32> {
    if is_dsr_ipip { Some(tunnel::len(packet)) } else { option::room(skb, packet) }
}

/// Puts the frontend into the packet at hand, as its flow says. With an option it was rewritten before.
#[inline(always)]
pub(crate) fn wrap(skb: Skb, packet: &Packet, decision: &Decision, way: &Way) -> Step {
    if decision.is_dsr_ipip { tunnel::wrap(skb, packet, decision, way) } else { option::wrap(skb, packet) }
}

/// Decapsulates a DSR packet, or removes its option, and addresses it to the frontend again. Other packets, and those
/// whose claim is not believed, stay as they are.
#[inline(always)]
pub(crate) fn unwrap(
    skb: Skb,
    packet: &mut Packet,
    inner: &mut Inner,
    meta: &Meta,
    query: &mut Query,
    dsr: &mut Dsr,
) -> Step {
    let may_have_option = matches!(packet.tuple.proto, proto::TCP | proto::UDP);
    let may_be_tunnel = matches!(packet.tuple.proto, proto::IPV4 | proto::IPV6);
    if may_have_option && option::take_out(skb, packet, meta, query, dsr)? {
        packet::parse_again(skb, packet)?;
        option::address(skb, packet, dsr)?;
    } else if may_be_tunnel && tunnel::take_out(skb, packet, inner, meta, query, dsr)? {
        packet::parse_again(skb, packet)?;
    }
    Ok(())
}

step::global! {
    /// Whether the packet at hand may have been sent to the frontend in `Dsr::claim`: that must be one whose backends
    /// answer directly, and the packet's destination (any port of it, if it has none) one of them on this node. Then
    /// notes which.
    fn is_believed(packet: &Packet, meta: &Meta, query: &mut Query, dsr: &mut Dsr) -> Found
        = believe as dsr_is_believed;
}

#[inline(always)]
fn believe(packet: &Packet, meta: &Meta, query: &mut Query, dsr: &mut Dsr) -> Found {
    Ok(may_have_been_sent(packet, meta, query, dsr))
}

#[inline(always)]
fn may_have_been_sent(packet: &Packet, meta: &Meta, query: &mut Query, dsr: &mut Dsr) -> bool {
    let frontend = dsr.claim;
    if packet.part == Part::Later {
        // It was for the first fragment.
        return fragments::is_known(packet, &frontend.dst);
    }
    let to = &packet.tuple;
    if let Some(backend) = conntrack::backend_of(&frontend, to) {
        dsr.backend = backend;
        return true;
    }
    if service::is_martian(&frontend.dst) || lives_here(&frontend.dst, meta, query) {
        return false;
    }
    let client = Origin::External(&frontend.src);
    let known = match service::frontend(&frontend.dst, frontend.dst_port, frontend.proto, client) {
        Err(Verdict::NotService) => {
            let loopback = if frontend.dst.is_v4() { &LOOPBACK_V4 } else { &LOOPBACK_V6 };
            service::frontend(loopback, frontend.dst_port, frontend.proto, Origin::Host)
        }
        known => known,
    };
    let Ok(known) = known else { return false };
    if known.flags & frontend_flags::DSR == 0 {
        return false;
    }
    choose_here(packet, dsr, known.service)
}

/// Chooses the backend of a service on this node that packets with the destination of the one at hand reach, or if that
/// has no port, one that has its address. False: there is none, or not among the first [`MOST_HERE`].
#[inline(always)]
fn choose_here(packet: &Packet, dsr: &mut Dsr, service: ServiceId) -> bool {
    let mut slot = 0;
    while slot < MOST_HERE {
        match choose_slot(packet, dsr, service.id, slot) {
            Ok(false) => slot += 1,
            found => return found.is_ok(),
        }
    }
    false
}

step::global! {
    /// Chooses the backend in this slot if it is the one. False: it is another one; [`Verdict::BackendMissing`]: there are
    /// no more.
    fn choose_slot(packet: &Packet, dsr: &mut Dsr; service: u32, slot: u32) -> Found
        = choose_if_it_is as dsr_choose_slot;
}

#[inline(always)]
fn choose_if_it_is(packet: &Packet, dsr: &mut Dsr, service: u32, slot: u32) -> Found {
    let to = &packet.tuple;
    // SAFETY: the entry is copied at once.
    let slot = unsafe { SLOTS.get(&SlotKey { service: ServiceId { id: service }, set: set::LOCAL, slot }) };
    let Some(&Slot { backend: id }) = slot else { return Err(Verdict::BackendMissing) };
    let is_it = |b: &Backend| b.leads_to(to) || (to.dst_port == 0 && b.addr == to.dst);
    if !service::backend(id).is_some_and(|b| b.flags & backend_flags::HERE != 0 && is_it(b)) {
        return Ok(false);
    }
    dsr.backend = id;
    Ok(true)
}

/// Whether the address that answers would come from is a pod's of this node.
#[inline(always)]
fn lives_here(addr: &Addr, meta: &Meta, query: &mut Query) -> bool {
    policy::endpoint(addr, meta.generation, &mut query.sender);
    query.sender.flags & policy_flags::POD != 0
}
