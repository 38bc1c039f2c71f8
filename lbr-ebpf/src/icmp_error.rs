//! ICMP and ICMPv6 errors about translated packets: translated together with the packet that they quote, so
//! that path-MTU discovery and "port unreachable" work across a translation (RFC 5508, 4).

use lbr_common::checksum::Diff;
use lbr_common::flow::BY_ROUTE;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Hook, Verdict};

use crate::nat::{self, ICMP_SUM, UDP_SUM};
use crate::packet::{Packet, Part};
use crate::scratch::Scratch;
use crate::skb::{HelperFailed, Skb, Sum};
use crate::step::{self, DONE, check};
use crate::{flow, inside, policy, route, service};

/// An ICMP error has eight bytes before the packet that it quotes.
const ICMP_HEADER: u32 = 8;

step::global! {
    /// Translates the ICMP error at hand, fills the decision and returns [`Verdict::IcmpError`], or says why not.
    pub(crate) fn translate(skb: Skb, work: &mut Scratch) -> Verdict = translate_error as icmp_error_translate;
}

#[inline(always)]
fn translate_error(skb: Skb, work: &mut Scratch) -> Verdict {
    match try_translate(skb, work) {
        Ok(()) => Verdict::IcmpError,
        Err(Verdict::NoService) => untracked(skb, work),
        Err(verdict) => verdict,
    }
}

/// An error that belongs to no living flow is judged as any packet without ports, except to a Service: nobody is there,
/// and the answer to an error must not be an error (RFC 1122, 3.2.2).
#[inline(always)]
fn untracked(skb: Skb, work: &mut Scratch) -> Verdict {
    if service::owns_address(&work.packet.tuple.dst) {
        return Verdict::Unanswerable;
    }
    if is_at_uplink(work) {
        // Judged at the pod's link, if it is for a pod.
        return Verdict::NoService;
    }
    if work.hook == Hook::ToPod && skb.entered_by() == 0 {
        return Verdict::Node;
    }
    work.judged.tuple = work.packet.tuple;
    policy::meet_sender(work);
    policy::meet_receiver(work);
    match policy::judge(work) {
        DONE => Verdict::NoService,
        verdict => verdict,
    }
}

/// The quoted packet travelled the other way, so the flow that the error belongs to is that of the quoted
/// packet's reversed tuple.
#[inline(always)]
fn try_translate(skb: Skb, work: &mut Scratch) -> Result<(), Verdict> {
    // A node sends it to a bridged pod whose backend is on the same bridge. It is true for the backend only:
    // translated, it would lead whatever the pod sends to the Service to the link address of one backend.
    if work.packet.is_redirect() {
        return Err(Verdict::NoService);
    }
    // A quotation that can not be read belongs to nobody.
    read_quoted(skb, &work.packet, &mut work.quoted).map_err(|_| Verdict::NoService)?;
    work.judged.tuple = work.quoted.tuple.reversed();
    if flow::peek(work) != DONE {
        return if work.hook == Hook::ToPod && is_translated(work) {
            Ok(())
        } else {
            Err(Verdict::NoService)
        };
    }
    if is_at_uplink(work) && !work.decision.is_wire {
        return Err(Verdict::NoService);
    }
    if work.decision.is_plain {
        return Ok(());
    }
    if work.decision.link == BY_ROUTE && work.hook != Hook::ToNetdev {
        let to = work.decision.to.dst;
        check(route::find(skb, work, &to))?;
    }
    check(rewrite(skb, work))
}

#[inline(always)]
fn is_at_uplink(work: &Scratch) -> bool {
    matches!(work.hook, Hook::FromNetdev | Hook::ToNetdev)
}

/// Whether the error was translated already: where a pod of this node sent it, it quotes what another one sent to a
/// Service; where it met the node that sends a client's packets here, it quotes the answer of a pod.
#[inline(always)]
fn is_translated(work: &mut Scratch) -> bool {
    work.judged.tuple = work.quoted.tuple;
    flow::peek(work) == DONE && !work.decision.is_plain && (!work.decision.is_reply || work.decision.is_wire)
}

/// The headers of the quoted packet.
#[inline(always)]
fn read_quoted(skb: Skb, outer: &Packet, quoted: &mut Packet) -> Result<(), Verdict> {
    inside::read(skb, outer, outer.l4 + ICMP_HEADER, quoted)?;
    if quoted.part == Part::Later { Err(Verdict::NoService) } else { Ok(()) }
}

step::global! {
    /// Rewrites the error and what it quotes.
    fn rewrite(skb: Skb, work: &mut Scratch) -> Verdict = rewrite_both as icmp_error_rewrite;
}

#[inline(always)]
fn rewrite_both(skb: Skb, work: &mut Scratch) -> Verdict {
    set_own_addresses(work);
    match try_rewrite(skb, &work.packet, &work.quoted, &work.decision.to, &work.judged.tuple) {
        Ok(()) => DONE,
        Err(HelperFailed) => Verdict::RewriteFailed,
    }
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

    // 2. The quoted ports, and UDP's checksum (TCP's is beyond what must be quoted, and nobody reads it).
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

/// Writes the error's own addresses afterwards to `Judged::tuple`. A router on the way keeps its own as the source; an
/// end of the connection has its address translated like that of any other packet of the flow. What is sent on to a
/// backend on another node comes from this one: who is outside is not expected to speak by the way between nodes (RFC
/// 3704, 2.2).
#[inline(always)]
fn set_own_addresses(work: &mut Scratch) {
    let (was, to) = (&work.quoted.tuple, &work.decision.to);
    let own = &mut work.judged.tuple;
    own.src = if work.packet.tuple.src == was.dst { to.src } else { work.packet.tuple.src };
    own.dst = if work.packet.tuple.dst == was.src { to.dst } else { work.packet.tuple.dst };
    if work.decision.link == BY_ROUTE
        && !work.decision.is_reply
        && let Some(node) = route::own_address(work)
    {
        work.judged.tuple.src = node;
    }
}
