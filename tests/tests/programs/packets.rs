//! The packets of conversations.

use std::net::{IpAddr, SocketAddr};

use lbr_common::tuple::{Tuple, proto};
use lbr_tests::packet::{Packet, chunk, flags};

use super::world::{SCTP, TCP};

/// The sequence number of every SYN and SYN/ACK here. So the same number acknowledges either of them.
const ISN: u32 = 7_000;
/// The number that acknowledges a SYN or a SYN/ACK.
pub(crate) const ACKNOWLEDGED: u32 = ISN + 1;

/// A TCP segment of an established connection, an SCTP packet of an association, or a datagram, with some payload.
pub(crate) fn packet(proto: u8, src: SocketAddr, dst: SocketAddr) -> Packet {
    let packet = match proto {
        TCP => segment(src, dst, flags::ACK),
        SCTP => Packet::sctp(src, dst, chunk::DATA).tags(0, ACKNOWLEDGED),
        _ => Packet::udp(src, dst),
    };
    packet.payload(b"an odd payload!")
}

/// A segment after the handshake, of either side.
pub(crate) fn segment(src: SocketAddr, dst: SocketAddr, flags: u8) -> Packet {
    Packet::tcp(src, dst, flags).numbers(ACKNOWLEDGED, ACKNOWLEDGED)
}

/// First segment of a connection.
pub(crate) fn syn(src: SocketAddr, dst: SocketAddr) -> Packet {
    Packet::tcp(src, dst, flags::SYN).numbers(ISN, 0).tcp_options(&[2, 4, 5, 180])
}

/// The server's answer to it.
pub(crate) fn syn_ack(src: SocketAddr, dst: SocketAddr) -> Packet {
    Packet::tcp(src, dst, flags::SYN | flags::ACK).numbers(ISN, ACKNOWLEDGED).tcp_options(&[2, 4, 5, 180])
}

/// The first packet of a conversation: a SYN, an INIT or a datagram.
pub(crate) fn opening(proto: u8, src: SocketAddr, dst: SocketAddr) -> Packet {
    match proto {
        TCP => syn(src, dst),
        SCTP => Packet::sctp(src, dst, chunk::INIT).tags(ACKNOWLEDGED, 0),
        _ => packet(proto, src, dst),
    }
}

/// The answer to it: a SYN/ACK, an INIT ACK or a datagram.
pub(crate) fn answering(proto: u8, src: SocketAddr, dst: SocketAddr) -> Packet {
    match proto {
        TCP => syn_ack(src, dst),
        SCTP => Packet::sctp(src, dst, chunk::INIT_ACK).tags(ACKNOWLEDGED, ACKNOWLEDGED),
        _ => packet(proto, src, dst),
    }
}

/// Identifier of the echo of [`first_packet`].
pub(crate) const ECHO_ID: u16 = 7;

/// The first packet of a connection of any protocol, with this data at its end.
pub(crate) fn first_packet(tuple: &Tuple, data: &[u8]) -> Packet {
    let (src, dst): (IpAddr, IpAddr) = (tuple.src.into(), tuple.dst.into());
    let (from, to) = (SocketAddr::new(src, tuple.src_port), SocketAddr::new(dst, tuple.dst_port));
    match tuple.proto {
        proto::TCP => syn(from, to).payload(data),
        proto::UDP => Packet::udp(from, to).payload(data),
        proto::SCTP => opening(SCTP, from, to).payload(data),
        proto::ICMP | proto::ICMPV6 => Packet::echo(src, dst, ECHO_ID, 1).payload(data),
        other => Packet::raw(src, dst, other).payload(&[b"whatever", data].concat()),
    }
}

/// Makes a packet of a protocol between two ends.
type Make = fn(u8, SocketAddr, SocketAddr) -> Packet;

/// The packets of client and server in turn: the opening and its answer, then one packet each.
pub(crate) const TURNS: [[Make; 2]; 2] = [[opening, answering], [packet, packet]];
