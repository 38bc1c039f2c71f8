//! The parts of a packet, besides addresses and bytes.

use lbr_common::addr::Family;

use super::headers::number;

/// An IPv6 extension header. The data begins after its first two bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ext {
    /// Hop-by-hop options; padded.
    HopByHop(Vec<u8>),
    /// Destination options; padded.
    DestOpts(Vec<u8>),
    /// Routing header with its type and segments left; no addresses unless in `data`.
    Routing {
        /// Routing type; 2 and 4 are in use, 0 is forbidden.
        kind: u8,
        /// Number of its addresses that are still to be visited.
        segments_left: u8,
        /// From its fifth byte on.
        data: Vec<u8>,
    },
    /// A fragment header, whatever else the packet is. An atomic fragment: offset 0, more false.
    Fragment {
        /// Identification.
        id: u32,
        /// In bytes, a multiple of 8.
        offset: u16,
        /// More fragments follow.
        more: bool,
    },
}

impl Ext {
    pub(super) fn number(&self) -> u8 {
        match self {
            Self::HopByHop(_) => number::HOP_BY_HOP,
            Self::DestOpts(_) => number::DEST_OPTS,
            Self::Routing { .. } => number::ROUTING,
            Self::Fragment { .. } => number::FRAGMENT,
        }
    }

    pub(super) fn body(&self) -> Vec<u8> {
        match self {
            Self::HopByHop(bytes) | Self::DestOpts(bytes) => bytes.clone(),
            Self::Routing { kind, segments_left, data } => [&[*kind, *segments_left], &data[..]].concat(),
            Self::Fragment { id, offset, more } => {
                let field = (offset & 0xfff8 | u16::from(*more)).to_be_bytes();
                [&field[..], &id.to_be_bytes()].concat()
            }
        }
    }
}

/// The reason of an ICMP error. Type and code of both families follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No socket listens on the port.
    PortUnreachable,
    /// No route, or no such host.
    HostUnreachable,
    /// Larger than the next link's MTU: fragmentation needed, packet too big.
    TooBig {
        /// MTU of the next link.
        mtu: u16,
    },
    /// The hop limit has expired.
    TimeExceeded,
    /// There is a shorter way. ICMP only: with IPv6 it is a message of neighbour discovery.
    Redirect,
}

impl Reason {
    /// The eight bytes before the quoted packet, with a checksum of zero (RFC 792, RFC 4443).
    pub(super) fn header(self, family: Family) -> [u8; 8] {
        let (kind, code) = match (self, family) {
            (Self::PortUnreachable, Family::V4) => (3, 3),
            (Self::PortUnreachable, Family::V6) => (1, 4),
            (Self::HostUnreachable, Family::V4) => (3, 1),
            (Self::HostUnreachable, Family::V6) => (1, 3),
            (Self::TooBig { .. }, Family::V4) => (3, 4),
            (Self::TooBig { .. }, Family::V6) => (2, 0),
            (Self::TimeExceeded, Family::V4) => (11, 0),
            (Self::TimeExceeded, Family::V6) => (3, 0),
            (Self::Redirect, Family::V4) => (5, 1),
            (Self::Redirect, Family::V6) => (137, 0),
        };
        // IPv4 has the MTU in the last 16 bits, IPv6 in all 32 (RFC 1191, RFC 4443): the same bytes.
        let mtu = if let Self::TooBig { mtu } = self { mtu.to_be_bytes() } else { [0, 0] };
        [kind, code, 0, 0, 0, 0, mtu[0], mtu[1]]
    }
}
