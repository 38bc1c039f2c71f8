//! The five-tuple of a packet.

use crate::addr::Addr;

/// IP protocol numbers that lbr tells apart (IANA protocol numbers).
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// An IPv4 packet in another packet.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// An IPv6 packet in another packet.
    pub const IPV6: u8 = 41;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Source and destination of a packet. Key of `flows`, and what a flow's packets are rewritten to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port, host byte order; 0 where the protocol has none.
    pub src_port: u16,
    /// Destination port, host byte order; 0 where the protocol has none.
    pub dst_port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// Always zero: part of a hash key.
    pub _pad: [u8; 3],
}

impl Tuple {
    /// The tuple of a packet that answers this one.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto: self.proto,
            _pad: [0; 3],
        }
    }
}

const _: () = assert!(size_of::<Tuple>() == 40);
