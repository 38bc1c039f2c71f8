//! ICMP and ICMPv6 errors about translated packets: translated together with the packet that they quote, so
//! that path-MTU discovery and "port unreachable" work across a translation (RFC 5508, 4).

use lbr_common::checksum::Diff;
use lbr_common::flow::BY_ROUTE;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Hook, Verdict};

use crate::conntrack;
use crate::forward::route;
use crate::nat::{self, ICMP_SUM, UDP_SUM};
use crate::packet::inner;
use crate::packet::skb::{HelperFailed, Skb, Sum};
use crate::packet::{Packet, Part};
use crate::policy::{self, source};
use crate::scratch::Scratch;
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
    pub(crate) fn translate(skb: Skb, work: &mut Scratch) -> Step = translate_error as icmp_error_translate;
}

#[inline(always)]
fn translate_error(skb: Skb, work: &mut Scratch) -> Step {
    if translate_related(skb, work)? { Ok(()) } else { Err(untracked(work)) }
}

/// An unrelated error is judged as any packet without ports, except to a Service: no host has that address,
/// and the answer to an error must not be an error (RFC 1122, 3.2.2).
#[inline(always)]
fn untracked(work: &mut Scratch) -> Verdict {
    if service::owns_address(&work.packet.tuple.dst) {
        return Verdict::Unanswerable;
    }
    if is_at_uplink(work) {
        // Judged at the pod's link, if it is for a pod.
        return Verdict::NotService;
    }
    if work.hook == Hook::ToPod && work.entered_by == 0 {
        return Verdict::Node;
    }
    match judge_untracked(work) {
        Ok(()) => Verdict::NotService,
        Err(verdict) => verdict,
    }
}

/// Judges an error that is related to no flow, as any packet without ports.
#[inline(always)]
fn judge_untracked(work: &mut Scratch) -> Step {
    if work.hook == Hook::ToPod {
        source::check_forwarded(work)?;
    }
    work.query.tuple = work.packet.tuple;
    policy::look_up_ends(work);
    policy::judge(work)
}

/// The quoted packet travelled the other way, so the flow that the error belongs to is that of the quoted
/// packet's reversed tuple. False: it belongs to none.
#[inline(always)]
fn translate_related(skb: Skb, work: &mut Scratch) -> Found {
    // A redirect is sent by a node to a bridged pod whose backend is on the same bridge. It is true for the backend only:
    // translated, it would lead whatever the pod sends to the Service to the link address of one backend.
    if work.packet.is_redirect() || !read_quoted(skb, work) || !fits_quoted(work) {
        return Ok(false);
    }
    work.query.tuple = work.inner.tuple.reversed();
    if !conntrack::peek(work)? {
        return Ok(work.hook == Hook::ToPod && is_translated(work)?);
    }
    if is_at_uplink(work) && !work.decision.is_external {
        return Ok(false);
    }
    if work.decision.is_no_nat {
        return Ok(true);
    }
    if work.decision.redirect_to == BY_ROUTE && work.hook != Hook::ToNetdev {
        let to = work.decision.to.dst;
        route::find(skb, work, &to)?;
    }
    rewrite(skb, work)?;
    Ok(true)
}

/// Whether the error is one that the quoted packet can have caused: addressed to its sender, not longer than errors are,
/// and if a pod sends it, by the pod that the packet was addressed to.
#[inline(always)]
fn fits_quoted(work: &Scratch) -> bool {
    let (error, quoted) = (&work.packet, &work.inner.tuple);
    let most = if error.is_v4 { MOST_V4 } else { MOST_V6 };
    error.tuple.dst == quoted.src
        && error.end - error.l3 <= most
        && (work.hook != Hook::FromPod || error.tuple.src == quoted.dst)
}

#[inline(always)]
fn is_at_uplink(work: &Scratch) -> bool {
    matches!(work.hook, Hook::FromNetdev | Hook::ToNetdev)
}

/// Whether the error was translated already: where a pod of this node sent it, it quotes what another one sent to a
/// Service; where it met the node that sends a client's packets here, it quotes the answer of a pod.
#[inline(always)]
fn is_translated(work: &mut Scratch) -> Found {
    work.query.tuple = work.inner.tuple;
    let found = conntrack::peek(work)?;
    Ok(found && !work.decision.is_no_nat && (!work.decision.is_reply || work.decision.is_external))
}

/// Reads the headers of the quoted packet. An unreadable one belongs to no flow.
#[inline(always)]
fn read_quoted(skb: Skb, work: &mut Scratch) -> bool {
    let outer = &work.packet;
    inner::read(skb, outer, outer.l4 + ICMP_HEADER, &mut work.inner).is_ok() && work.inner.part != Part::Later
}

step::global! {
    /// Rewrites the error and what it quotes.
    fn rewrite(skb: Skb, work: &mut Scratch) -> Step = rewrite_both as icmp_error_rewrite;
}

#[inline(always)]
fn rewrite_both(skb: Skb, work: &mut Scratch) -> Step {
    set_own_addresses(work);
    try_rewrite(skb, &work.packet, &work.inner, &work.decision.to, &work.error)
        .map_err(|HelperFailed| Verdict::RewriteFailed)
}

/// Makes the quoted packet what its sender sent, and the error's own addresses those of the flow.
#[inline(always)]
fn try_rewrite(
    skb: Skb,
    outer: &Packet,
    quoted: &Packet,
    to: &Tuple,
    own: &Tuple,
) -> Result<(), HelperFailed> {
    let was = &quoted.tuple;
    let sent = to.reversed();

    // 1. The quoted IP header. With IPv4 its checksum changes against the addresses: no change in sum.
    let addrs = nat::write_addresses(skb, quoted, &sent)?;
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
    let addrs = nat::write_addresses(skb, outer, own)?;
    if !outer.is_v4 {
        skb.fix_sum(sum_at, addrs.fold32(), Sum::PseudoV6, false)?;
    }
    Ok(())
}

/// Writes the addresses that the error leaves with to `Scratch::error`. A router on the way keeps its own as the source;
/// an end of the connection has its address translated like that of any other packet of the flow. What is sent on to a
/// backend on another node comes from this one: addresses from outside are not expected on the way between nodes (RFC
/// 3704, 2.2).
#[inline(always)]
fn set_own_addresses(work: &mut Scratch) {
    let to = &work.decision.to;
    work.error.src =
        if work.packet.tuple.src == work.inner.tuple.dst { to.src } else { work.packet.tuple.src };
    work.error.dst = to.dst;
    if work.decision.redirect_to == BY_ROUTE
        && !work.decision.is_reply
        && let Some(node) = route::own_address(work)
    {
        work.error.src = node;
    }
}
