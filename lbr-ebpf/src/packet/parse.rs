//! From the bytes of a packet to [`Packet`].

use lbr_common::addr::Addr;
use lbr_common::conntrack::sctp;
use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Effect, Verdict};

use super::bytes::Bytes;
use super::skb::{ETH_LEN, Skb};
use super::{Packet, Part};
use crate::step::{self, Encoded as _, Step};

/// EtherType of IPv4, as on the wire.
const ETH_P_IP: u16 = 0x0800u16.to_be();
/// EtherType of IPv6, as on the wire.
const ETH_P_IPV6: u16 = 0x86ddu16.to_be();
/// EtherTypes of VLAN tags (802.1Q, 802.1ad) that are still in the packet, as on the wire.
const ETH_P_VLAN: [u16; 2] = [0x8100u16.to_be(), 0x88a8u16.to_be()];

/// IPv6 extension headers (RFC 8200, 4).
pub(crate) const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTH: u8 = 51;
pub(crate) const DEST_OPTIONS: u8 = 60;
/// More than any sender has a reason for: RFC 8504, 5.3 lets a receiver set a limit.
const MAX_EXTENSION_HEADERS: usize = 8;

/// IPv4 header without options.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv4 {
    version_ihl: u8,
    _tos: u8,
    total_len: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    proto: u8,
    pub(crate) sum: u16,
    pub(crate) src: [u8; 4],
    pub(crate) dst: [u8; 4],
}

/// IPv6 header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ipv6 {
    version_class: u8,
    _class_flow: [u8; 3],
    payload_len: u16,
    next: u8,
    hop_limit: u8,
    pub(crate) src: [u8; 16],
    pub(crate) dst: [u8; 16],
}

/// First eight bytes of a transport header, which is all that an ICMP error must quote (RFC 792).
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct L4 {
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    _rest: [u8; 4],
}

/// First eight bytes of an ICMP or ICMPv6 header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Icmp {
    kind: u8,
    _code: u8,
    _sum: u16,
    /// Identifier of an echo.
    id: u16,
    _rest: u16,
}

/// First fourteen bytes of a TCP header: up to its flags.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    src_port: u16,
    dst_port: u16,
    seq: [u8; 4],
    ack: [u8; 4],
    /// Length of the header in words of four bytes, in the upper half.
    offset: u8,
    flags: u8,
}

/// Common header of an SCTP packet (RFC 9260, 3.1), and the start of its first chunk.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sctp {
    src_port: u16,
    dst_port: u16,
    tag: [u8; 4],
    _sum: u32,
    chunk: u8,
    _flags: u8,
    _len: u16,
}

/// Reads the headers of the packet in `skb`.
#[inline(always)]
pub(crate) fn parse(skb: Skb, packet: &mut Packet) -> Result<(), Verdict> {
    if skb.vlan_id() != 0 {
        return Err(Verdict::VlanTagged);
    }
    parse_ip(skb, skb.protocol(), packet)
}

step::global! {
    /// The same again, after the program has changed the packet.
    pub(crate) fn parse_again(skb: Skb, packet: &mut Packet) -> Step = parse as packet_parse_again;
}

/// The same for a packet of this EtherType.
#[inline(always)]
pub(crate) fn parse_ip(skb: impl Bytes, kind: u16, packet: &mut Packet) -> Result<(), Verdict> {
    match kind {
        ETH_P_IP => parse_v4(skb, packet),
        ETH_P_IPV6 => parse_v6(skb, packet),
        other if other == ETH_P_VLAN[0] || other == ETH_P_VLAN[1] => Err(Verdict::VlanTagged),
        _ => Err(Verdict::NotIp),
    }
}

/// An IP header without options, and what follows it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Begin<I> {
    ip: I,
    src_port: u16,
}

/// Whether it may be UDP from such a port: for most packets that are not, one look says so. UDP behind extension headers of
/// IPv6 is not found.
#[inline(always)]
pub(crate) fn may_be_udp_from(skb: Skb, is_such: impl Fn(u16) -> bool) -> bool {
    const NO_OPTIONS: u8 = 0x45;
    match skb.protocol() {
        ETH_P_IP => skb.load::<Begin<Ipv4>>(ETH_LEN).is_ok_and(|Begin { ip, src_port }| {
            ip.proto == proto::UDP && (ip.version_ihl != NO_OPTIONS || is_such(u16::from_be(src_port)))
        }),
        ETH_P_IPV6 => skb
            .load::<Begin<Ipv6>>(ETH_LEN)
            .is_ok_and(|Begin { ip, src_port }| ip.next == proto::UDP && is_such(u16::from_be(src_port))),
        _ => false,
    }
}

/// Whether an IP packet lacks the header before it, so that what looks like its IP header is not.
#[inline(always)]
pub(crate) fn lacks_link_header(skb: Skb) -> bool {
    matches!(skb.protocol(), ETH_P_IP | ETH_P_IPV6) && !skb.has_link_header()
}

/// The same at an uplink, where malformed packets of others pass. An address that stands for another one does not.
#[inline(always)]
pub(crate) fn parse_at_uplink(skb: Skb, packet: &mut Packet) -> Step {
    parse(skb, packet).map_err(|verdict| match verdict {
        Verdict::Martian => verdict,
        _ if verdict.effect() == Effect::Pass => verdict,
        _ => Verdict::NotService,
    })
}

#[inline(always)]
fn parse_v4(skb: impl Bytes, packet: &mut Packet) -> Result<(), Verdict> {
    let ip: Ipv4 = skb.load(ETH_LEN).map_err(|_| Verdict::Malformed)?;
    read_v4(&ip, ETH_LEN, packet)?;
    let total = u32::from(u16::from_be(ip.total_len));
    // A super-packet of more than 64 KiB carries 0 here (kernel commit b1a78b9b9886).
    if total != 0 && (total < packet.l4 - ETH_LEN || total > skb.len() - ETH_LEN) {
        return Err(Verdict::Malformed);
    }
    packet.end = if total == 0 { skb.len() } else { ETH_LEN + total };
    read_l4(skb, packet)
}

#[inline(always)]
fn parse_v6(skb: impl Bytes, packet: &mut Packet) -> Result<(), Verdict> {
    let ip: Ipv6 = skb.load(ETH_LEN).map_err(|_| Verdict::Malformed)?;
    let payload = ETH_LEN + size_of::<Ipv6>() as u32;
    let len = u32::from(u16::from_be(ip.payload_len));
    // A jumbogram or super-packet carries 0 here (RFC 2675).
    if len > skb.len() - payload {
        return Err(Verdict::Malformed);
    }
    read_v6(skb, &ip, ETH_LEN, packet)?;
    packet.end = if len == 0 { skb.len() } else { payload + len };
    read_l4(skb, packet)
}

/// The network header of an IPv4 packet, also of one that an ICMP error quotes.
#[inline(always)]
pub(crate) fn read_v4(ip: &Ipv4, l3: u32, packet: &mut Packet) -> Result<(), Verdict> {
    let header_len = u32::from(ip.version_ihl & 0x0f) * 4;
    if ip.version_ihl >> 4 != 4 || header_len < size_of::<Ipv4>() as u32 {
        return Err(Verdict::Malformed);
    }
    let fragment = u16::from_be(ip.fragment);
    packet.tuple = tuple(Addr::v4(ip.src), Addr::v4(ip.dst), ip.proto);
    packet.l3 = l3;
    packet.l4 = l3 + header_len;
    packet.fragment_id = u32::from(u16::from_be(ip.id));
    packet.ip_sum = ip.sum;
    packet.hop_limit = ip.ttl;
    packet.flags = 0;
    packet.part = part(fragment & 0x1fff, fragment & 0x2000 != 0);
    packet.is_v4 = true;
    packet.may_be_fragmented = fragment & 0x4000 == 0;
    Ok(())
}

/// The network headers of an IPv6 packet, also of one that an ICMP error quotes.
#[inline(always)]
pub(crate) fn read_v6(skb: impl Bytes, ip: &Ipv6, l3: u32, packet: &mut Packet) -> Result<(), Verdict> {
    if ip.version_class >> 4 != 6 {
        return Err(Verdict::Malformed);
    }
    packet.tuple = tuple(Addr::v6(ip.src), Addr::v6(ip.dst), ip.next);
    // It would be the IPv4 host's, in every map (RFC 4291, 2.5.5.2; RFC 6890: not valid as either address).
    if packet.tuple.src.is_v4() || packet.tuple.dst.is_v4() {
        return Err(Verdict::Martian);
    }
    packet.l3 = l3;
    packet.l4 = l3 + size_of::<Ipv6>() as u32;
    packet.fragment_id = 0;
    packet.ip_sum = 0;
    packet.hop_limit = ip.hop_limit;
    packet.flags = 0;
    packet.part = Part::Whole;
    packet.is_v4 = false;
    packet.may_be_fragmented = false;
    if matches!(ip.next, proto::TCP | proto::UDP | proto::ICMPV6) {
        return Ok(());
    }
    Step::decode(skip_extensions(skb, packet))
}

/// Walks over IPv6 extension headers up to the transport header.
#[inline(never)]
fn skip_extensions(skb: impl Bytes, packet: &mut Packet) -> u32 {
    walk_extensions(skb, packet).encode()
}

#[inline(always)]
fn walk_extensions(skb: impl Bytes, packet: &mut Packet) -> Step {
    for _ in 0..MAX_EXTENSION_HEADERS {
        let kind = packet.tuple.proto;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | AUTH | DEST_OPTIONS) {
            return Ok(());
        }
        // Next header, length, and for a fragment: offset, identification.
        let Ok(header) = skb.load::<[u8; 8]>(packet.l4) else { return Err(Verdict::Malformed) };
        packet.tuple.proto = header[0];
        let len = match kind {
            FRAGMENT => {
                let field = u16::from_be_bytes([header[2], header[3]]);
                packet.part = part(field >> 3, field & 1 != 0);
                packet.fragment_id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                if packet.part == Part::Later {
                    packet.l4 += 8;
                    return Ok(());
                }
                8
            }
            AUTH => (u32::from(header[1]) + 2) * 4,
            // Segments left: the destination is a stop on the way, not the end (RFC 8200, 4.4).
            ROUTING if header[3] != 0 => return Err(Verdict::RoutingHeader),
            _ => (u32::from(header[1]) + 1) * 8,
        };
        packet.l4 += len;
    }
    Err(Verdict::TooManyHeaders)
}

/// Ports and flags. Nothing to read for a later fragment and for protocols without ports.
#[inline(always)]
fn read_l4(skb: impl Bytes, packet: &mut Packet) -> Result<(), Verdict> {
    let is_later = packet.part == Part::Later;
    let header_len = match packet.tuple.proto {
        _ if is_later => 0,
        proto::TCP => 20,
        proto::SCTP => size_of::<Sctp>() as u32,
        proto::UDP => 8,
        proto::ICMP | proto::ICMPV6 => 8,
        _ => 0,
    };
    if packet.l4 + header_len > packet.end {
        return Err(Verdict::Malformed);
    }
    if is_later {
        return Ok(());
    }
    match packet.tuple.proto {
        proto::TCP => {
            let tcp: Tcp = skb.load(packet.l4).map_err(|_| Verdict::Malformed)?;
            set_ports(packet, tcp.src_port, tcp.dst_port);
            packet.flags = tcp.flags;
            packet.seq = u32::from_be_bytes(tcp.seq);
            packet.ack = u32::from_be_bytes(tcp.ack);
            packet.has_payload = packet.l4 + u32::from(tcp.offset >> 4) * 4 < packet.end;
        }
        proto::UDP => {
            let l4: L4 = skb.load(packet.l4).map_err(|_| Verdict::Malformed)?;
            set_ports(packet, l4.src_port, l4.dst_port);
        }
        proto::SCTP => read_sctp(skb, packet)?,
        proto::ICMP | proto::ICMPV6 => {
            let icmp: Icmp = skb.load(packet.l4).map_err(|_| Verdict::Malformed)?;
            set_echo(packet, &icmp);
        }
        _ => {}
    }
    Ok(())
}

/// Ports, and the first chunk in TCP's words.
#[inline(always)]
fn read_sctp(skb: impl Bytes, packet: &mut Packet) -> Result<(), Verdict> {
    let sctp: Sctp = skb.load(packet.l4).map_err(|_| Verdict::Malformed)?;
    set_ports(packet, sctp.src_port, sctp.dst_port);
    packet.flags = sctp::as_tcp_flags(sctp.chunk);
    packet.seq = 0;
    packet.ack = u32::from_be_bytes(sctp.tag);
    packet.has_payload = true;
    if sctp.chunk == sctp::INIT_ACK {
        let at = packet.l4 + size_of::<Sctp>() as u32;
        if at + size_of::<u32>() as u32 > packet.end {
            return Err(Verdict::Malformed);
        }
        let tag: [u8; 4] = skb.load(at).map_err(|_| Verdict::Malformed)?;
        packet.seq = u32::from_be_bytes(tag).wrapping_sub(1);
    }
    Ok(())
}

/// Type, and the identifier of an echo in place of a port: the source's in a request, the destination's in a
/// reply. So a reply has the reversed tuple of its request, and a request never that of another one.
#[inline(always)]
pub(crate) fn set_echo(packet: &mut Packet, icmp: &Icmp) {
    packet.flags = icmp.kind;
    let (request, reply) = if packet.is_v4 { (8, 0) } else { (128, 129) };
    if icmp.kind == request {
        packet.tuple.src_port = u16::from_be(icmp.id);
    } else if icmp.kind == reply {
        packet.tuple.dst_port = u16::from_be(icmp.id);
    }
}

/// Takes ports as they are in a header.
#[inline(always)]
pub(crate) fn set_ports(packet: &mut Packet, src: u16, dst: u16) {
    packet.tuple.src_port = u16::from_be(src);
    packet.tuple.dst_port = u16::from_be(dst);
}

#[inline(always)]
fn part(offset: u16, more: bool) -> Part {
    match (offset, more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    }
}

#[inline(always)]
fn tuple(src: Addr, dst: Addr, proto: u8) -> Tuple {
    Tuple { src, dst, src_port: 0, dst_port: 0, proto, _pad: [0; 3] }
}
