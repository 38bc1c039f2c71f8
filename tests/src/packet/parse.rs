//! Reads packets.

use std::net::SocketAddr;

use super::checksum::{crc32c, pseudo_sum, sum};
use super::headers::number;
use super::network::{be16, be32, ipv4, ipv6};

/// TCP flags (RFC 9293).
pub mod flags {
    /// No more data from this side.
    pub const FIN: u8 = 1;
    /// First segment of a side.
    pub const SYN: u8 = 2;
    /// Aborts the connection.
    pub const RST: u8 = 4;
    /// The receiver should deliver the data.
    pub const PSH: u8 = 8;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 16;
}

/// Types of SCTP chunks (RFC 9260, 3.2).
pub mod chunk {
    /// Data.
    pub const DATA: u8 = 0;
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// The server's answer to it.
    pub const INIT_ACK: u8 = 2;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// The client's second packet.
    pub const COOKIE_ECHO: u8 = 10;
    /// The last packet of an association.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification.
    pub id: u32,
    /// In bytes.
    pub offset: usize,
    /// More fragments follow.
    pub more: bool,
}

/// The header behind the IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// See [`flags`].
        flags: u8,
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
    },
    /// UDP.
    Udp,
    /// SCTP.
    Sctp {
        /// Verification tag.
        tag: u32,
        /// Type of the first chunk.
        chunk: u8,
    },
    /// ICMP or ICMPv6 that quotes a packet.
    IcmpError {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Fifth to eighth byte: the MTU of "packet too big", for instance.
        rest: u32,
        /// The quoted packet.
        quoted: Box<Parsed>,
    },
    /// Any other ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Fifth to eighth byte: identifier and sequence number of an echo.
        rest: u32,
    },
    /// Another protocol, or a fragment that is not the first.
    Other,
    /// The transport header is incomplete.
    Cut,
}

/// A parsed packet.
#[derive(Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Source and destination link address, if there is a link header.
    pub macs: Option<([u8; 6], [u8; 6])>,
    /// VLAN tags, outermost first.
    pub vlans: Vec<u16>,
    /// Source, with port 0 where there is none.
    pub src: SocketAddr,
    /// Destination, with port 0 where there is none.
    pub dst: SocketAddr,
    /// TTL, or hop limit.
    pub ttl: u8,
    /// Protocol of the transport header.
    pub protocol: u8,
    /// IPv4 options.
    pub options: Vec<u8>,
    /// Numbers of the IPv6 extension headers, in order.
    pub exts: Vec<u8>,
    /// Its place, if it is a fragment.
    pub fragment: Option<Fragment>,
    /// The transport header.
    pub transport: Transport,
    /// The data behind the transport header.
    pub payload: Vec<u8>,
    pub(super) wrong: Vec<String>,
}

impl Parsed {
    /// Reads a frame, from the link header on.
    pub fn frame(bytes: &[u8]) -> Result<Self, String> {
        let array = |at: usize| -> Option<[u8; 6]> { bytes.get(at..at + 6)?.try_into().ok() };
        let (dst, src) = array(0).zip(array(6)).ok_or("no link header")?;
        let (mut at, mut vlans) = (12, Vec::new());
        while be16(bytes, at)? == 0x8100 {
            vlans.push(be16(bytes, at + 2)? & 0x0fff);
            at += 4;
        }
        match be16(bytes, at)? {
            0x0800 | 0x86dd => {}
            other => return Err(format!("EtherType {other:#06x} is not IP")),
        }
        let packet = Self::ip(&bytes[at + 2..])?;
        Ok(Self { macs: Some((src, dst)), vlans, ..packet })
    }

    /// Reads a packet, from the IP header on.
    pub fn ip(bytes: &[u8]) -> Result<Self, String> {
        let mut packet = match bytes.first().map(|b| b >> 4) {
            Some(4) => ipv4(bytes)?,
            Some(6) => ipv6(bytes)?,
            other => return Err(format!("IP version {other:?}")),
        };
        packet.0.transport(packet.1, packet.2);
        Ok(packet.0)
    }

    /// Whether every checksum that can be checked is right, including those in a quoted packet.
    pub fn checksums_ok(&self) -> bool {
        self.checksum_errors().is_empty()
    }

    /// The wrong checksums, and their errors.
    pub fn checksum_errors(&self) -> Vec<String> {
        let mut errors = self.wrong.clone();
        if let Transport::IcmpError { quoted, .. } = &self.transport {
            errors.extend(quoted.checksum_errors().into_iter().map(|e| format!("quoted {e}")));
        }
        errors
    }

    /// Forgets wrong checksums, so that packets can be compared without them.
    pub fn forgive(&mut self) {
        self.wrong.clear();
    }

    /// The quoted packet of an ICMP error.
    pub fn quoted(&self) -> Option<&Self> {
        if let Transport::IcmpError { quoted, .. } = &self.transport { Some(quoted) } else { None }
    }

    /// Reads the data behind the IP header. `whole` is the length that the IP header claims.
    fn transport(&mut self, rest: &[u8], whole: usize) {
        let complete = rest.len() >= whole && self.fragment.is_none_or(|f| f.offset == 0 && !f.more);
        let rest = &rest[..rest.len().min(whole)];
        if self.fragment.is_some_and(|f| f.offset > 0) {
            self.payload = rest.to_vec();
            return;
        }
        let header = match self.protocol {
            number::TCP => self.tcp(rest),
            number::UDP => self.udp(rest),
            number::SCTP => self.sctp(rest),
            number::ICMP | number::ICMPV6 => self.icmp(rest),
            _ => Ok((Transport::Other, 0)),
        };
        let (transport, header_len) = header.unwrap_or((Transport::Cut, 0));
        let is_cut = transport == Transport::Cut;
        self.transport = transport;
        self.payload = rest.get(header_len..).unwrap_or_default().to_vec();
        if complete && !is_cut {
            self.check(rest);
        }
    }

    fn ports(&mut self, rest: &[u8]) -> Result<(), String> {
        self.src.set_port(be16(rest, 0)?);
        self.dst.set_port(be16(rest, 2)?);
        Ok(())
    }

    fn tcp(&mut self, rest: &[u8]) -> Result<(Transport, usize), String> {
        self.ports(rest)?;
        let (seq, ack) = (be32(rest, 4)?, be32(rest, 8)?);
        let field = be16(rest, 12)?;
        let header_len = usize::from(field >> 12) * 4;
        if header_len < 20 || rest.len() < header_len {
            return Err("TCP header cut".to_owned());
        }
        Ok((Transport::Tcp { flags: (field & 0x3f) as u8, seq, ack }, header_len))
    }

    fn udp(&mut self, rest: &[u8]) -> Result<(Transport, usize), String> {
        self.ports(rest)?;
        be32(rest, 4)?;
        Ok((Transport::Udp, 8))
    }

    fn sctp(&mut self, rest: &[u8]) -> Result<(Transport, usize), String> {
        self.ports(rest)?;
        let chunk = be16(rest, 12)?.to_be_bytes()[0];
        Ok((Transport::Sctp { tag: be32(rest, 4)?, chunk }, 12))
    }

    fn icmp(&mut self, rest: &[u8]) -> Result<(Transport, usize), String> {
        let [kind, code] = be16(rest, 0)?.to_be_bytes();
        let data = be32(rest, 4)?;
        let is_error = match self.protocol {
            // RFC 792: unreachable, quench, redirect, time exceeded, parameter problem.
            number::ICMP => [3, 4, 5, 11, 12].contains(&kind),
            // RFC 4443: errors are the numbers below 128.
            _ => kind < 128,
        };
        match Self::ip(&rest[8..]) {
            Ok(quoted) if is_error => {
                Ok((Transport::IcmpError { kind, code, rest: data, quoted: Box::new(quoted) }, 8))
            }
            _ => Ok((Transport::Icmp { kind, code, rest: data }, 8)),
        }
    }

    /// Checks the transport checksum of a whole packet.
    fn check(&mut self, rest: &[u8]) {
        if self.protocol == number::SCTP {
            let summed = crc32c(&[&rest[..8], &[0; 4], &rest[12..]].concat());
            let off = summed ^ u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]);
            if off != 0 {
                self.wrong.push(format!("SCTP checksum: off by {off:#010x}"));
            }
            return;
        }
        let (name, start) = match self.protocol {
            number::ICMP => ("ICMP", 0),
            number::TCP => ("TCP", self.pseudo(rest.len())),
            number::UDP if self.src.is_ipv4() && rest[6..8] == [0, 0] => return,
            number::UDP => ("UDP", self.pseudo(rest.len())),
            number::ICMPV6 => ("ICMPv6", self.pseudo(rest.len())),
            _ => return,
        };
        let total = sum(start, rest);
        if total != 0xffff {
            self.wrong.push(format!("{name} checksum: sum {total:#06x} instead of 0xffff"));
        }
        if self.protocol == number::UDP && rest[6..8] == [0, 0] {
            self.wrong.push("UDP checksum: zero, which IPv6 forbids".to_owned());
        }
    }

    fn pseudo(&self, len: usize) -> u32 {
        pseudo_sum(self.src.ip(), self.dst.ip(), self.protocol, len)
    }
}
