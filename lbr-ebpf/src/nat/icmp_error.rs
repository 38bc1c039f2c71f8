//! ICMP and ICMPv6 errors about translated packets: translated together with the packet that they quote, so
//! that path-MTU discovery and "port unreachable" work across a translation (RFC 5508, 4).

use lbr_common::addr::Addr;
use lbr_common::checksum::Diff;
use lbr_common::flow::BY_ROUTE;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Hook, Verdict};

use crate::conntrack;
use crate::forward::route;
use crate::nat::{self, ICMP_SUM, UDP_SUM};
use crate::packet::inner::{self, Inner};
use crate::packet::skb::{HelperFailed, Skb, Sum};
use crate::packet::{Packet, Part};
use crate::policy::query::Query;
use crate::policy::{self, source};
use crate::scratch::{Decision, Meta, Way};
use crate::service;
use crate::step::{self, Found, Step};

/// An ICMP error has eight bytes before the packet that it quotes.
const ICMP_HEADER: u32 = 8;

/// More than a host or router puts into an error (RFC 1812, 4.3.2.3; RFC 4443, 2.4 c): a longer one is no related error,
/// and carries no data past a policy.
const MOST_V4: u32 = 576;
const MOST_V6: u32 = 1280;

step::global! {
    /// Translates the ICMP error at hand, if it is related to a flow, and fills the decision. Else says why not.
    pub(crate) fn translate(
        skb: Skb, packet: &Packet, inner: &mut Inner, meta: &Meta, query: &mut Query, decision: &mut Decision,
        way: &mut Way
    ) -> Step = translate_error as icmp_error_translate;
}

#[inline(always)]
fn translate_error(
    skb: Skb,
    packet: &Packet,
    inner: &mut Inner,
    meta: &Meta,
    query: &mut Query,
    decision: &mut Decision,
    way: &mut Way,
) -> Step {
    if translate_related(skb, packet, inner, meta, query, decision, way)? {
        Ok(())
    } else {
        Err(untracked(packet, meta, query))
    }
}

/// An unrelated error is judged as any packet without ports, except to a Service: no host has that address,
/// and the answer to an error must not be an error (RFC 1122, 3.2.2).
#[inline(always)]
fn untracked(packet: &Packet, meta: &Meta, query: &mut Query) -> Verdict {
    if service::owns_address(&packet.tuple.dst) {
        return Verdict::Unanswerable;
    }
    if is_at_uplink(meta) {
        // Judged at the pod's link, if it is for a pod.
        return Verdict::NotService;
    }
    if meta.hook == Hook::ToPod && meta.entered_by == 0 {
        return Verdict::Node;
    }
    match judge_untracked(packet, meta, query) {
        Ok(()) => Verdict::NotService,
        Err(verdict) => verdict,
    }
}

/// Judges an error that is related to no flow, as any packet without ports.
#[inline(always)]
fn judge_untracked(packet: &Packet, meta: &Meta, query: &mut Query) -> Step {
    if meta.hook == Hook::ToPod {
        source::check_forwarded(packet, meta, query)?;
    }
    query.tuple = packet.tuple;
    policy::look_up_ends(meta, query);
    policy::judge(meta, query)
}

/// The quoted packet travelled the other way, so the flow that the error belongs to is that of the quoted
/// packet's reversed tuple. False: it belongs to none.
#[inline(always)]
fn translate_related(
    skb: Skb,
    packet: &Packet,
    inner: &mut Inner,
    meta: &Meta,
    query: &mut Query,
    decision: &mut Decision,
    way: &mut Way,
) -> Found {
    // A redirect is sent by a node to a bridged pod whose backend is on the same bridge. It is true for the backend only:
    // translated, it would lead whatever the pod sends to the Service to the link address of one backend.
    if packet.is_redirect()
        || !read_quoted(skb, packet, inner)
        || !fits_quoted(packet, &inner.packet.tuple, meta)
    {
        return Ok(false);
    }
    query.tuple = inner.packet.tuple.reversed();
    if !conntrack::peek(meta, query, decision)? {
        return Ok(meta.hook == Hook::ToPod && is_translated(&inner.packet.tuple, meta, query, decision)?);
    }
    if is_at_uplink(meta) && !decision.is_external {
        return Ok(false);
    }
    if decision.is_no_nat {
        return Ok(true);
    }
    if decision.redirect_to == BY_ROUTE && meta.hook != Hook::ToNetdev {
        route::find(skb, packet, meta, way, &decision.to.dst, 0)?;
    }
    rewrite(skb, packet, inner, decision, way)?;
    Ok(true)
}

/// Whether the error is one that the quoted packet can have caused: addressed to its sender, not longer than errors are,
/// and if a pod sends it, by the pod that the packet was addressed to.
#[inline(always)]
fn fits_quoted(error: &Packet, quoted: &Tuple, meta: &Meta) -> bool {
    let most = if error.is_v4 { MOST_V4 } else { MOST_V6 };
    error.tuple.dst == quoted.src
        && error.end - error.l3 <= most
        && (meta.hook != Hook::FromPod || error.tuple.src == quoted.dst)
}

#[inline(always)]
fn is_at_uplink(meta: &Meta) -> bool {
    matches!(meta.hook, Hook::FromNetdev | Hook::ToNetdev)
}

/// Whether the error was translated already: where a pod of this node sent it, it quotes what another one sent to a
/// Service; where it met the node that sends a client's packets here, it quotes the answer of a pod.
#[inline(always)]
fn is_translated(quoted: &Tuple, meta: &Meta, query: &mut Query, decision: &mut Decision) -> Found {
    query.tuple = *quoted;
    let found = conntrack::peek(meta, query, decision)?;
    Ok(found && !decision.is_no_nat && (!decision.is_reply || decision.is_external))
}

/// Reads the headers of the quoted packet. An unreadable one belongs to no flow.
#[inline(always)]
fn read_quoted(skb: Skb, error: &Packet, inner: &mut Inner) -> bool {
    inner::read(skb, error, inner, error.l4 + ICMP_HEADER).is_ok() && inner.packet.part != Part::Later
}

step::global! {
    /// Rewrites the error and what it quotes.
    fn rewrite(skb: Skb, packet: &Packet, inner: &Inner, decision: &Decision, way: &Way) -> Step
        = rewrite_both as icmp_error_rewrite;
}

#[inline(always)]
fn rewrite_both(skb: Skb, error: &Packet, inner: &Inner, decision: &Decision, way: &Way) -> Step {
    let quoted = &inner.packet;
    let own = own_source(error, &quoted.tuple, decision, way);
    try_rewrite(skb, error, quoted, &decision.to, &own).map_err(|HelperFailed| Verdict::RewriteFailed)
}

/// Makes the quoted packet what its sender sent, and the error's own addresses those of the flow.
#[inline(always)]
fn try_rewrite(
    skb: Skb,
    outer: &Packet,
    quoted: &Packet,
    to: &Tuple,
    own: &Addr,
) -> Result<(), HelperFailed> {
    let was = &quoted.tuple;
    let sent = to.reversed();

    // 1. The quoted IP header. With IPv4 its checksum changes against the addresses: no change in sum.
    let addrs = nat::write_addresses(skb, quoted, &sent.src, &sent.dst)?;
    let mut covered = if quoted.is_v4 { Diff::NONE } else { addrs };

    // 2. The quoted ports, and UDP's checksum (TCP's lies beyond the eight bytes that are always quoted, and receivers do not check it).
    skb.store(quoted.l4, &[sent.src_port.to_be(), sent.dst_port.to_be()])?;
    let ports = nat::ports_diff(was, &sent);
    covered = covered.and(ports);
    if was.proto == proto::UDP {
        let old: u16 = skb.load(quoted.l4 + UDP_SUM)?;
        if old != 0 {
            let new = addrs.and(ports).apply(old);
            skb.store(quoted.l4 + UDP_SUM, &new)?;
            covered = covered.half(old, new);
        }
    }

    // 3. The ICMP checksum covers all of that, and with IPv6 the error's own addresses.
    let sum_at = outer.l4 + ICMP_SUM;
    skb.fix_sum(sum_at, covered.fold32(), Sum::Covered, false)?;
    let addrs = nat::write_addresses(skb, outer, own, &to.dst)?;
    if !outer.is_v4 {
        skb.fix_sum(sum_at, addrs.fold32(), Sum::PseudoV6, false)?;
    }
    Ok(())
}

/// The source address that the error leaves with. A router on the way keeps its own; an end of the connection has its
/// address translated like that of any other packet of the flow. What is sent on to a backend on another node comes from
/// this one: addresses from outside are not expected on the way between nodes (RFC 3704, 2.2).
#[inline(always)]
fn own_source(error: &Packet, quoted: &Tuple, decision: &Decision, way: &Way) -> Addr {
    let is_sent_on = decision.redirect_to == BY_ROUTE && !decision.is_reply;
    if is_sent_on && let Some(node) = route::own_address(error, way) {
        return *node;
    }
    let own = error.tuple.src;
    if own == quoted.dst { decision.to.src } else { own }
}
