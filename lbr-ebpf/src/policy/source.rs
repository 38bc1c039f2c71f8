//! Whether a packet's source address belongs to where the packet came from.
//!
//! Each check also leaves what is known of the source in `Query::sender`.

use lbr_common::addr::Addr;
use lbr_common::policy::policy_flags;
use lbr_common::tuple::proto;
use lbr_common::verdict::Verdict;

use crate::maps::{self, LINKS};
use crate::packet::Packet;
use crate::policy;
use crate::policy::query::Query;
use crate::scratch::Meta;
use crate::service;
use crate::step::{self, Step};

/// Of a pod of this node, known or not.
const OWNED: u32 = policy_flags::POD | policy_flags::PENDING;

step::global! {
    /// The packet at hand was sent by the pod behind this link.
    ///
    /// Until the agent knows the pod behind a link, that link may use any address that belongs to no other link, node or
    /// Service. Link-local traffic, DHCP and neighbour discovery need none of the pod's addresses.
    pub(crate) fn check(packet: &Packet, meta: &Meta, query: &mut Query) -> Step
        = belongs_to_link as source_check;
}

#[inline(always)]
fn belongs_to_link(packet: &Packet, meta: &Meta, query: &mut Query) -> Step {
    let owner = sender_link(packet, meta, query);
    let flags = query.sender.flags;
    if owner == meta.ifindex && flags & OWNED != 0 {
        return Ok(());
    }
    let link = policy::link(meta);
    if flags & policy_flags::NODE == 0 && owner == 0 && is_of_link_only(packet) {
        // Policies are asked by address, and none has this one.
        let is_judged = link & policy_flags::ISOLATED_OUT != 0 && !needs_no_address(packet);
        return if is_judged { Err(Verdict::NotJudged) } else { Ok(()) };
    }
    let is_known = link & policy_flags::POD != 0;
    if !maps::checks_source() {
        // Without a verified source, egress policy does not apply: fail closed.
        return if link & policy_flags::ISOLATED_OUT != 0 { Err(Verdict::NotJudged) } else { Ok(()) };
    }
    // Behind a bridge, and not heard of yet: it may be this link's if that has no pod of its own.
    let may_be_ours = owner == 0 && flags & policy_flags::NODE == 0 && !is_known;
    if !may_be_ours {
        Err(Verdict::SpoofedSource)
    } else if service::is_service_source(&packet.tuple) {
        Err(Verdict::Martian)
    } else if flags & OWNED == 0 && maps::denies_pending() {
        Err(Verdict::PodPending)
    } else {
        Ok(())
    }
}

/// Whether a host may send it without an address of its own: from a link-local address to one or to a group (RFC 4291,
/// 2.5.6; RFC 3927), and DHCP and neighbour discovery before there is an address (RFC 2131, 4.1; RFC 4862, 5.4.2).
#[inline(always)]
fn is_of_link_only(packet: &Packet) -> bool {
    let tuple = &packet.tuple;
    if tuple.src == Addr::UNSPECIFIED || tuple.src == Addr::v4([0; 4]) {
        return needs_no_address(packet);
    }
    tuple.src.is_link_local() && (tuple.dst.is_link_local() || tuple.dst.is_group())
}

/// How a host gets an address, and finds its neighbours.
#[inline(always)]
fn needs_no_address(packet: &Packet) -> bool {
    const DHCP: (u16, u16) = (68, 67);
    const DHCP_V6: (u16, u16) = (546, 547);
    let tuple = &packet.tuple;
    let is_dhcp = |ports| tuple.proto == proto::UDP && (tuple.src_port, tuple.dst_port) == ports;
    if packet.is_v4 {
        is_dhcp(DHCP) && tuple.dst == Addr::v4([255; 4])
    } else {
        packet.is_of_link_scope() || (is_dhcp(DHCP_V6) && tuple.dst.is_group())
    }
}

step::global! {
    /// The packet at hand came in by an uplink: its source is neither the node's nor of one of its pods, nor a Service's.
    pub(crate) fn check_external(packet: &Packet, meta: &Meta, query: &mut Query) -> Step
        = is_external as source_check_external;
}

#[inline(always)]
fn is_external(packet: &Packet, meta: &Meta, query: &mut Query) -> Step {
    sender_link(packet, meta, query);
    if !maps::checks_source() {
        return Ok(());
    }
    if query.sender.flags & (OWNED | policy_flags::NODE) != 0 {
        return Err(Verdict::SpoofedSource);
    }
    if service::is_service_source(&packet.tuple) {
        return Err(Verdict::Martian);
    }
    Ok(())
}

step::global! {
    /// The packet at hand entered the node by another interface than the one that it leaves by now, to a pod: a source that
    /// is a local pod's came by that pod's link, or by the bridge that the link is a port of. The node's address is that of
    /// what it masquerades.
    pub(crate) fn check_forwarded(packet: &Packet, meta: &Meta, query: &mut Query) -> Step
        = is_forwarded as source_check_forwarded;
}

#[inline(always)]
fn is_forwarded(packet: &Packet, meta: &Meta, query: &mut Query) -> Step {
    let owner = sender_link(packet, meta, query);
    if !maps::checks_source() {
        return Ok(());
    }
    if is_local(query) && owner != 0 && !came_by(meta, owner) {
        return Err(Verdict::SpoofedSource);
    }
    if service::is_service_source(&packet.tuple) {
        return Err(Verdict::Martian);
    }
    Ok(())
}

/// Whether the packet entered the node by this interface or its bridge, or the node sent it.
#[inline(always)]
pub(crate) fn came_by(meta: &Meta, link: u32) -> bool {
    let entered_by = meta.entered_by;
    if entered_by == 0 || entered_by == link {
        return true;
    }
    // SAFETY: valid for the run of the program; the agent replaces entries whole.
    link != 0 && LINKS.get_ptr(link).is_some_and(|link| unsafe { (*link).master } == entered_by)
}

/// Whether the source, which was looked up before, is a pod's of this node.
#[inline(always)]
pub(crate) fn is_local(query: &Query) -> bool {
    query.sender.flags & OWNED != 0
}

#[inline(always)]
fn sender_link(packet: &Packet, meta: &Meta, query: &mut Query) -> u32 {
    policy::endpoint(&packet.tuple.src, meta.generation, &mut query.sender)
}
