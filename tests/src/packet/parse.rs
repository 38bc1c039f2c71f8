//! Reads packets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::checksum::{pseudo_sum, sum};
use super::headers::number;

/// TCP flags (RFC 9293).
pub mod flags {
    /// No more data from this side.
    pub const FIN: u8 = 1;
    /// First segment of a side.
    pub const SYN: u8 = 2;
    /// The connection is no more.
    pub const RST: u8 = 4;
    /// Hand the data on.
    pub const PSH: u8 = 8;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
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

/// What follows the IP header.
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
    /// ICMP or ICMPv6 that quotes a packet.
    IcmpError {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Fifth to eighth byte: the MTU of "packet too big", for instance.
        rest: u32,
        /// The packet in it.
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
    /// The transport header is not all there.
    Cut,
}

/// A packet, taken apart.
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
    /// If it is one.
    pub fragment: Option<Fragment>,
    /// The transport header.
    pub transport: Transport,
    /// What follows the transport header.
    pub payload: Vec<u8>,
    wrong: Vec<String>,
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

    /// Whether every checksum that can be judged is right, also in a quoted packet.
    pub fn checksums_ok(&self) -> bool {
        self.checksum_errors().is_empty()
    }

    /// Which checksums are wrong, and by what.
    pub fn checksum_errors(&self) -> Vec<String> {
        let mut errors = self.wrong.clone();
        if let Transport::IcmpError { quoted, .. } = &self.transport {
            errors.extend(quoted.checksum_errors().into_iter().map(|e| format!("quoted {e}")));
        }
        errors
    }

    /// Forgets wrong checksums, to compare packets apart from them.
    pub fn forgive(&mut self) {
        self.wrong.clear();
    }

    /// The quoted packet of an ICMP error.
    pub fn quoted(&self) -> Option<&Self> {
        if let Transport::IcmpError { quoted, .. } = &self.transport { Some(quoted) } else { None }
    }

    /// Reads what follows the IP header. `whole` is what the IP header promises.
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

    /// Judges the transport checksum of a whole packet.
    fn check(&mut self, rest: &[u8]) {
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

type Rest<'a> = (Parsed, &'a [u8], usize);

fn blank(src: IpAddr, dst: IpAddr, ttl: u8, protocol: u8) -> Parsed {
    Parsed {
        macs: None,
        vlans: Vec::new(),
        src: SocketAddr::new(src, 0),
        dst: SocketAddr::new(dst, 0),
        ttl,
        protocol,
        options: Vec::new(),
        exts: Vec::new(),
        fragment: None,
        transport: Transport::Other,
        payload: Vec::new(),
        wrong: Vec::new(),
    }
}

fn ipv4(bytes: &[u8]) -> Result<Rest<'_>, String> {
    let header_len = usize::from(bytes[0] & 15) * 4;
    if header_len < 20 || bytes.len() < header_len {
        return Err(format!("IPv4 header of {header_len} bytes in a packet of {}", bytes.len()));
    }
    let (src, dst) = (Ipv4Addr::from(be32(bytes, 12)?), Ipv4Addr::from(be32(bytes, 16)?));
    let mut packet = blank(src.into(), dst.into(), bytes[8], bytes[9]);
    packet.options = bytes[20..header_len].to_vec();
    let field = be16(bytes, 6)?;
    if field & 0x3fff != 0 {
        let (offset, more) = (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0);
        packet.fragment = Some(Fragment { id: be16(bytes, 4)?.into(), offset, more });
    }
    let total = sum(0, &bytes[..header_len]);
    if total != 0xffff {
        packet.wrong.push(format!("IPv4 checksum: sum {total:#06x} instead of 0xffff"));
    }
    let whole = usize::from(be16(bytes, 2)?).saturating_sub(header_len);
    Ok((packet, &bytes[header_len..], whole))
}

fn ipv6(bytes: &[u8]) -> Result<Rest<'_>, String> {
    let address = |at: usize| -> Result<Ipv6Addr, String> {
        let octets: Option<[u8; 16]> = bytes.get(at..at + 16).and_then(|b| b.try_into().ok());
        octets.map(Into::into).ok_or_else(|| "IPv6 header cut".to_owned())
    };
    let mut packet = blank(address(8)?.into(), address(24)?.into(), bytes[7], bytes[6]);
    let (mut at, end) = (40, 40 + usize::from(be16(bytes, 4)?));
    loop {
        let len = match packet.protocol {
            number::HOP_BY_HOP | number::ROUTING | number::DEST_OPTS => {
                usize::from(be16(bytes, at)? & 0xff) * 8 + 8
            }
            number::FRAGMENT => {
                let field = be16(bytes, at + 2)?;
                let (offset, more) = (usize::from(field & 0xfff8), field & 1 != 0);
                packet.fragment = Some(Fragment { id: be32(bytes, at + 4)?, offset, more });
                8
            }
            _ => break,
        };
        packet.exts.push(packet.protocol);
        packet.protocol = (be16(bytes, at)? >> 8) as u8;
        at += len;
        if packet.fragment.is_some_and(|f| f.offset > 0) {
            break;
        }
    }
    Ok((packet, bytes.get(at..).ok_or("extension header cut")?, end.saturating_sub(at)))
}

fn be16(bytes: &[u8], at: usize) -> Result<u16, String> {
    let pair = bytes.get(at..at + 2).ok_or_else(|| format!("cut at byte {at}"))?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

fn be32(bytes: &[u8], at: usize) -> Result<u32, String> {
    Ok(u32::from(be16(bytes, at)?) << 16 | u32::from(be16(bytes, at + 2)?))
}

impl fmt::Debug for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.src, self.dst)?;
        match &self.transport {
            Transport::Tcp { flags, seq, ack } => {
                let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
                let set = names.iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1);
                let set: Vec<&str> = set.map(|(_, name)| *name).collect();
                write!(f, " TCP [{}] seq {seq} ack {ack}", set.join(" "))?;
            }
            Transport::Udp => write!(f, " UDP")?,
            Transport::Icmp { kind, code, rest } => write!(f, " ICMP {kind}/{code} {rest:#010x}")?,
            Transport::IcmpError { kind, code, rest, quoted } => {
                write!(f, " ICMP error {kind}/{code} {rest:#010x} about ({quoted:?})")?;
            }
            Transport::Other => write!(f, " protocol {}", self.protocol)?,
            Transport::Cut => write!(f, " protocol {}, header cut", self.protocol)?,
        }
        if let Some(Fragment { id, offset, more }) = self.fragment {
            write!(f, " fragment {id:#x} at {offset}{}", if more { "+" } else { "" })?;
        }
        for (what, list) in [("options", &self.options), ("extension headers", &self.exts)] {
            if !list.is_empty() {
                write!(f, " {what} {list:02x?}")?;
            }
        }
        if !self.vlans.is_empty() {
            write!(f, " VLAN {:?}", self.vlans)?;
        }
        write!(f, " ttl {}, {} bytes", self.ttl, self.payload.len())?;
        for error in &self.wrong {
            write!(f, ", BAD {error}")?;
        }
        Ok(())
    }
}
