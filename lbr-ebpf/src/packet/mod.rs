//! A packet's headers, read once: what every later step works on.

pub(crate) mod bytes;
pub(crate) mod fragments;
pub(crate) mod frame;
pub(crate) mod inner;
pub(crate) mod ip_header;
mod parse;
pub(crate) mod skb;

pub(crate) use self::parse::{
    DEST_OPTIONS, HOP_BY_HOP, Icmp, Ipv4, Ipv6, L4, lacks_link_header, may_be_udp_from, parse, parse_again,
    parse_at_uplink, parse_ip, read_v4, read_v6, set_echo, set_ports,
};

use lbr_common::addr::Addr;
use lbr_common::conntrack::{Segment, has_handshake, tcp_flags};
use lbr_common::tuple::{Tuple, proto};

use crate::packet::skb::Segments;

/// Which part of a datagram a packet is.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The first fragment: has the transport header.
    First,
    /// A later fragment: has no ports.
    Later,
}

/// The headers of a packet.
#[repr(C)]
pub(crate) struct Packet {
    /// As it arrived. Ports are 0 where there are none, or not yet known ([`Part::Later`]).
    pub(crate) tuple: Tuple,
    /// Offset of the IP header.
    pub(crate) l3: u32,
    /// Offset of the transport header.
    pub(crate) l4: u32,
    /// Offset behind the last byte, as the IP header says: what follows is padding, and none of our business.
    /// Not set for a quoted packet, which is cut.
    pub(crate) end: u32,
    /// Identification of a fragmented datagram.
    pub(crate) fragment_id: u32,
    /// TCP: sequence number, host byte order. SCTP: one less than the tag in an INIT ACK, so that a verification tag
    /// acknowledges it as TCP's numbers do.
    pub(crate) seq: u32,
    /// TCP: acknowledgment number, host byte order. SCTP: verification tag.
    pub(crate) ack: u32,
    /// TCP: whether there is data behind the header. SCTP: set.
    pub(crate) has_payload: bool,
    /// IPv4 header checksum, memory order; 0 for IPv6.
    pub(crate) ip_sum: u16,
    /// TCP flags byte, for SCTP the one that stands for its first chunk ([`lbr_common::conntrack::sctp`]); the ICMP type for
    /// ICMP and ICMPv6.
    pub(crate) flags: u8,
    /// Time to live, hop limit.
    pub(crate) hop_limit: u8,
    pub(crate) part: Part,
    pub(crate) is_v4: bool,
    /// IPv4 without "don't fragment".
    pub(crate) may_be_fragmented: bool,
}

impl Packet {
    /// What it is to the state machine of its connection.
    #[inline(always)]
    pub(crate) fn segment(&self) -> Segment {
        if !has_handshake(self.tuple.proto) {
            Segment::Datagram
        } else if self.part == Part::Later {
            Segment::Ack
        } else {
            Segment::of_tcp(self.flags, self.has_payload)
        }
    }

    /// Opens a connection of TCP or SCTP.
    #[inline(always)]
    pub(crate) fn is_syn(&self) -> bool {
        matches!(self.segment(), Segment::Syn)
    }

    /// Resets a connection of TCP or SCTP.
    #[inline(always)]
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self.segment(), Segment::Rst)
    }

    /// Whether it can be the first packet of a conversation: a SYN, or anything of a protocol without handshake.
    #[inline(always)]
    pub(crate) fn can_begin(&self) -> bool {
        !has_handshake(self.tuple.proto) || self.is_syn()
    }

    /// Whether it does more than carry a connection on.
    #[inline(always)]
    pub(crate) fn turns(&self) -> bool {
        has_handshake(self.tuple.proto) && self.flags & tcp_flags::TURNS != 0
    }

    /// What becomes of the size of its segments where its headers grow.
    #[inline(always)]
    pub(crate) fn segments(&self) -> Segments {
        if self.tuple.proto == proto::TCP { Segments::Resized } else { Segments::Kept }
    }

    /// Neighbour discovery that no router has forwarded (RFC 4861, 6.1 and 7.1: hop limit 255), and multicast listener
    /// discovery for this link (RFC 2710, 3; RFC 3810, 5: hop limit 1, from a link-local or no address). With any other
    /// hop limit these types are messages like others.
    #[inline(always)]
    pub(crate) fn is_of_link_scope(&self) -> bool {
        if self.tuple.proto != proto::ICMPV6 || self.is_v4 || self.part != Part::Whole {
            return false;
        }
        match self.flags {
            133..=137 => self.hop_limit == 255,
            130..=132 | 143 => {
                let src = &self.tuple.src;
                self.hop_limit == 1 && (src.is_link_local() || *src == Addr::UNSPECIFIED)
            }
            _ => false,
        }
    }

    /// Of these, what only routers send: router advertisements and redirects.
    #[inline(always)]
    pub(crate) fn is_of_router(&self) -> bool {
        matches!(self.flags, 134 | 137)
    }

    /// "Send it there instead" (RFC 792).
    #[inline(always)]
    pub(crate) fn is_redirect(&self) -> bool {
        self.is_v4 && self.flags == 5
    }

    /// An error message of ICMP (RFC 792, RFC 4443 2.1), which quotes the packet that it is about.
    #[inline(always)]
    pub(crate) fn is_icmp_error(&self) -> bool {
        // A later fragment has no type to tell it by.
        if self.part == Part::Later {
            return false;
        }
        match self.tuple.proto {
            proto::ICMP if self.is_v4 => matches!(self.flags, 3 | 4 | 5 | 11 | 12),
            proto::ICMPV6 if !self.is_v4 => self.flags < 128,
            _ => false,
        }
    }
}
