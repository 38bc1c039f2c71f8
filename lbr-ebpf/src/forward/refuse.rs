//! Answers a packet with ICMP or ICMPv6 "port unreachable", so that its sender hears "connection refused" at
//! once: the packet itself is cut, quoted and sent back into the pod that it came from. A SYN is answered with a
//! reset instead (see `reset.rs`).

use lbr_common::addr::Addr;
use lbr_common::checksum::fold16;
use lbr_common::link::link_flags;
use lbr_common::tuple::proto;
use lbr_common::verdict::Verdict;

use crate::forward::reset;
use crate::forward::route;
use crate::maps::LINKS;
use crate::packet::ip_header::{self, Header};
use crate::packet::skb::{self, HelperFailed, MAX_QUOTE, Skb};
use crate::packet::{Packet, Part};
use crate::scratch::Way;
use crate::step::{self, Found};

/// Type and code of an error.
type Kind = [u8; 2];
/// Destination unreachable, port unreachable: RFC 792; RFC 4443, 3.1.
const PORT_UNREACHABLE: (Kind, Kind) = ([3, 3], [1, 4]);
/// Fragmentation needed: RFC 1191, 4. Packet too big: RFC 4443, 3.2.
const TOO_BIG: (Kind, Kind) = ([3, 4], [2, 0]);
/// Time exceeded: RFC 792; RFC 4443, 3.3.
const TIME_EXCEEDED: (Kind, Kind) = ([11, 0], [3, 0]);
/// Transport header that is quoted: all of TCP's without options. The kernel does not cut a packet before a
/// checksum that it still has to fill in (TCP: byte 18), and UDP has no more.
const QUOTED_L4: u32 = 20;

/// Header of an ICMP or ICMPv6 error; the quoted packet follows.
#[repr(C)]
#[derive(Clone, Copy)]
struct Icmp {
    kind: Kind,
    sum: u16,
    /// Zero and the MTU where it matters.
    rest: [u16; 2],
}

/// Sends the answer to the packet at hand, and returns the action. None: a packet of this kind gets no answer.
#[inline(always)]
pub(crate) fn answer(skb: Skb, packet: &Packet, way: &mut Way, verdict: Verdict) -> Option<i32> {
    match make_answer(skb, packet, way, verdict as u32) {
        Ok(true) => Some(back_into_pod(skb)),
        _ => None,
    }
}

step::global! {
    /// Makes the packet at hand the answer to it, for the sake of a verdict. False: a packet of this kind gets no answer.
    fn make_answer(skb: Skb, packet: &Packet, way: &mut Way; verdict: u32) -> Found
        = turn_into_answer as refuse_answer;
}

#[inline(always)]
fn turn_into_answer(skb: Skb, packet: &Packet, way: &mut Way, verdict: u32) -> Found {
    let (kinds, mtu) = match step::verdict(verdict) {
        Verdict::TooBig | Verdict::NeedsFragmentation => (TOO_BIG, route::mtu(way)),
        Verdict::HopLimit => (TIME_EXCEEDED, 0),
        _ => (PORT_UNREACHABLE, 0),
    };
    if packet.part == Part::Later
        || packet.is_reset()
        || packet.is_icmp_error()
        || !can_be_answered(&packet.tuple.src)
    {
        return Ok(false);
    }
    let kind = if packet.is_v4 { kinds.0 } else { kinds.1 };
    let built = if kinds == PORT_UNREACHABLE && reset::fits(packet) {
        reset::build(skb, packet)
    } else {
        build(skb, packet, kind, mtu, &mut way.quote)
    };
    Ok(built.is_ok())
}

/// RFC 1122, 3.2.2 and RFC 4443, 2.4 (e): not to a group, and not to the unspecified address.
#[inline(always)]
fn can_be_answered(src: &Addr) -> bool {
    if src.is_v4() {
        let first = src.v4_octets()[0];
        first != 0 && first != 127 && first < 224
    } else {
        src.bytes[0] != 0xff && *src != Addr::UNSPECIFIED
    }
}

#[inline(always)]
fn back_into_pod(skb: Skb) -> i32 {
    let ifindex = skb.ifindex();
    // SAFETY: valid for the run of the program; the agent replaces entries whole.
    let has_peer =
        LINKS.get_ptr(ifindex).is_some_and(|link| unsafe { (*link).flags } & link_flags::PEER != 0);
    if has_peer { skb.redirect_peer(ifindex) } else { skb::redirect(ifindex) }
}

#[inline(always)]
fn build(
    skb: Skb,
    packet: &Packet,
    kind: Kind,
    mtu: u16,
    quote: &mut [u32; MAX_QUOTE / 4],
) -> Result<(), HelperFailed> {
    // 1. Cut to what is quoted: whole words, so that the checksum helper takes it.
    let l4_len = (skb.len() - packet.l4).min(QUOTED_L4) & !3;
    let quoted_len = packet.l4 + l4_len - packet.l3;
    if quoted_len >= MAX_QUOTE as u32 {
        return Err(HelperFailed);
    }
    skb.truncate(packet.l3 + quoted_len)?;
    let quoted = skb.sum(packet.l3, quoted_len, quote)?;
    // 2. Room for the new headers.
    let icmp_len = size_of::<Icmp>() as u32;
    skb.make_room(ip_header::len(packet) + icmp_len)?;
    // 3. The headers, back to the sender. Only ICMPv6 takes the addresses into its sum.
    let proto = if packet.is_v4 { proto::ICMP } else { proto::ICMPV6 };
    let header = Header::answer(packet, proto, icmp_len + quoted_len);
    let pseudo = if packet.is_v4 { 0 } else { header.pseudo_sum(false) };
    let rest = [0, mtu.to_be()];
    let sum = !fold16(pseudo + quoted + u64::from(u16::from_ne_bytes(kind)) + u64::from(rest[1]));
    header.store_answer(skb, packet.is_v4, &Icmp { kind, sum, rest })
}
