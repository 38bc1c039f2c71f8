//! Answers a packet with ICMP or ICMPv6 "port unreachable", so that its sender hears "connection refused" at
//! once: the packet itself is cut, quoted and sent back into the pod that it came from. A SYN is answered with a
//! reset instead (see `reset.rs`).

use lbr_common::addr::Addr;
use lbr_common::checksum::fold16;
use lbr_common::link::link_flags;
use lbr_common::tuple::proto;

use crate::maps::LINKS;
use crate::packet::{Packet, Part};
use crate::reset;
use crate::scratch::Scratch;
use crate::skb::{self, ETH_LEN, HelperFailed, MAX_QUOTE, Skb};

/// Destination unreachable, port unreachable: RFC 792.
const UNREACHABLE_V4: [u8; 2] = [3, 3];
/// Destination unreachable, port unreachable: RFC 4443, 3.1.
const UNREACHABLE_V6: [u8; 2] = [1, 4];
/// IP header and ICMP header in front of the quoted packet.
const ADDED_V4: u32 = 28;
const ADDED_V6: u32 = 48;
/// Transport header that is quoted: all of TCP's without options. The kernel does not cut a packet before a
/// checksum that it still has to fill in (TCP: byte 18), and UDP has no more.
const QUOTED_L4: u32 = 20;
const TTL: u8 = 64;

#[repr(C)]
#[derive(Clone, Copy)]
struct AnswerV4 {
    version_ihl_tos: [u8; 2],
    total_len: u16,
    id_fragment: [u16; 2],
    ttl_proto: [u8; 2],
    sum: u16,
    src: [u16; 2],
    dst: [u16; 2],
    icmp: Icmp,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct AnswerV6 {
    version_flow: [u16; 2],
    payload_len: u16,
    next_hops: [u8; 2],
    src: [u16; 8],
    dst: [u16; 8],
    icmp: Icmp,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Icmp {
    kind: [u8; 2],
    sum: u16,
    unused: [u16; 2],
}

/// No action: the packet must not, or can not, be answered.
pub(crate) const NOT_ANSWERED: i32 = i32::MIN;

/// Sends the answer to the packet at hand. Returns the action, or [`NOT_ANSWERED`].
#[inline(never)]
pub(crate) fn answer(skb: Skb, work: &mut Scratch) -> i32 {
    let packet = &work.packet;
    if packet.part == Part::Later || packet.is_icmp_error() || !can_be_answered(&packet.tuple.src) {
        return NOT_ANSWERED;
    }
    let built =
        if reset::fits(packet) { reset::build(skb, packet) } else { build(skb, packet, &mut work.quote) };
    match built {
        Ok(()) => back_into_pod(skb),
        Err(HelperFailed) => NOT_ANSWERED,
    }
}

/// RFC 1122, 3.2.2 and RFC 4443, 2.4 (e): not to a group, and not to nobody.
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
fn build(skb: Skb, packet: &Packet, quote: &mut [u32; MAX_QUOTE / 4]) -> Result<(), HelperFailed> {
    // 1. Cut to what is quoted: whole words, so that the checksum helper takes it.
    let l4_len = (skb.len() - packet.l4).min(QUOTED_L4) & !3;
    let quoted_len = packet.l4 + l4_len - packet.l3;
    if quoted_len >= MAX_QUOTE as u32 {
        return Err(HelperFailed);
    }
    skb.truncate(packet.l3 + quoted_len)?;
    let quoted = skb.sum(packet.l3, quoted_len, quote)?;
    // 2. Room for the new headers, and back to the sender.
    let added = if packet.is_v4 { ADDED_V4 } else { ADDED_V6 };
    skb.make_room(added)?;
    skb.turn_around()?;
    // 3. The headers.
    if packet.is_v4 {
        store_v4(skb, packet, quoted, quoted_len)
    } else {
        store_v6(skb, packet, quoted, quoted_len)
    }
}

#[inline(always)]
fn store_v4(skb: Skb, packet: &Packet, quoted: u64, quoted_len: u32) -> Result<(), HelperFailed> {
    let mut icmp = Icmp { kind: UNREACHABLE_V4, sum: 0, unused: [0; 2] };
    icmp.sum = !fold16(quoted + u64::from(u16::from_ne_bytes(icmp.kind)));
    let mut answer = AnswerV4 {
        version_ihl_tos: [0x45, 0],
        total_len: ((ADDED_V4 + quoted_len) as u16).to_be(),
        id_fragment: [0, 0],
        ttl_proto: [TTL, proto::ICMP],
        sum: 0,
        src: packet.tuple.dst.v4_halves(),
        dst: packet.tuple.src.v4_halves(),
        icmp,
    };
    answer.sum = !fold16(
        u64::from(u16::from_ne_bytes(answer.version_ihl_tos))
            + u64::from(answer.total_len)
            + u64::from(u16::from_ne_bytes(answer.ttl_proto))
            + u64::from(answer.src[0])
            + u64::from(answer.src[1])
            + u64::from(answer.dst[0])
            + u64::from(answer.dst[1]),
    );
    skb.store(ETH_LEN, &answer)
}

#[inline(always)]
fn store_v6(skb: Skb, packet: &Packet, quoted: u64, quoted_len: u32) -> Result<(), HelperFailed> {
    let payload_len = size_of::<Icmp>() as u32 + quoted_len;
    let (src, dst) = (packet.tuple.dst.halves(), packet.tuple.src.halves());
    let mut icmp = Icmp { kind: UNREACHABLE_V6, sum: 0, unused: [0; 2] };
    let mut sum = quoted + u64::from(u16::from_ne_bytes(icmp.kind));
    sum += u64::from((payload_len as u16).to_be()) + u64::from(u16::from(proto::ICMPV6).to_be());
    let mut n = 0;
    while n < 8 {
        sum += u64::from(src[n]) + u64::from(dst[n]);
        n += 1;
    }
    icmp.sum = !fold16(sum);
    let answer = AnswerV6 {
        version_flow: [0x6000u16.to_be(), 0],
        payload_len: (payload_len as u16).to_be(),
        next_hops: [proto::ICMPV6, TTL],
        src,
        dst,
        icmp,
    };
    skb.store(ETH_LEN, &answer)
}
