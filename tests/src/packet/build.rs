//! Makes packets.

use std::net::{IpAddr, SocketAddr};

use lbr_common::addr::Family;

use super::checksum::crc32c;
use super::headers::{Place, clamp, fill_checksum, ipv4, ipv6, number};
use super::kinds::{Ext, Reason};
use super::parse::chunk;

#[derive(Clone, Debug)]
enum Kind {
    Tcp { seq: u32, ack: u32, flags: u8, options: Vec<u8> },
    Udp { checksum: bool },
    Sctp { chunk: u8, offered: u32, tag: u32 },
    Echo { id: u16, seq: u16, reply: bool },
    Error(Reason),
    Raw(u8),
}

/// A packet builder: addresses and protocol at the start, the rest by the methods, at the end [`Self::build`] or
/// [`Self::fragments`]. Lengths and checksums are right.
#[derive(Clone, Debug)]
#[must_use]
pub struct Packet {
    src: SocketAddr,
    dst: SocketAddr,
    kind: Kind,
    payload: Vec<u8>,
    macs: ([u8; 6], [u8; 6]),
    vlans: Vec<u16>,
    ttl: u8,
    options: Vec<u8>,
    exts: Vec<Ext>,
    place: Option<Place>,
    dont_fragment: bool,
}

impl Packet {
    fn new(src: SocketAddr, dst: SocketAddr, kind: Kind) -> Self {
        Self {
            src,
            dst,
            kind,
            payload: Vec::new(),
            macs: ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]),
            vlans: Vec::new(),
            ttl: 64,
            options: Vec::new(),
            exts: Vec::new(),
            place: None,
            dont_fragment: false,
        }
    }

    /// A TCP segment with [`super::flags`]. Both addresses are of one family, here and below.
    pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8) -> Self {
        Self::new(src, dst, Kind::Tcp { seq: 1000, ack: 0, flags, options: Vec::new() })
    }

    /// A UDP datagram.
    pub fn udp(src: SocketAddr, dst: SocketAddr) -> Self {
        Self::new(src, dst, Kind::Udp { checksum: true })
    }

    /// An SCTP packet with one chunk of this type ([`super::chunk`]); the payload is what the chunk carries.
    pub fn sctp(src: SocketAddr, dst: SocketAddr, chunk: u8) -> Self {
        Self::new(src, dst, Kind::Sctp { chunk, offered: 0, tag: 0 })
    }

    /// An echo request.
    pub fn echo(src: IpAddr, dst: IpAddr, id: u16, seq: u16) -> Self {
        Self::new((src, 0).into(), (dst, 0).into(), Kind::Echo { id, seq, reply: false })
    }

    /// An echo reply.
    pub fn echo_reply(src: IpAddr, dst: IpAddr, id: u16, seq: u16) -> Self {
        Self::new((src, 0).into(), (dst, 0).into(), Kind::Echo { id, seq, reply: true })
    }

    /// An ICMP error that quotes a packet (from its IP header on; cut it as the router should have).
    pub fn icmp_error(src: IpAddr, dst: IpAddr, reason: Reason, quoted: &[u8]) -> Self {
        Self::new((src, 0).into(), (dst, 0).into(), Kind::Error(reason)).payload(quoted)
    }

    /// Any other protocol; the payload is all that follows the IP header.
    pub fn raw(src: IpAddr, dst: IpAddr, protocol: u8) -> Self {
        Self::new((src, 0).into(), (dst, 0).into(), Kind::Raw(protocol))
    }

    /// The payload.
    pub fn payload(self, bytes: &[u8]) -> Self {
        Self { payload: bytes.to_vec(), ..self }
    }

    /// TCP sequence and acknowledgement numbers.
    pub fn numbers(mut self, new_seq: u32, new_ack: u32) -> Self {
        if let Kind::Tcp { seq, ack, .. } = &mut self.kind {
            (*seq, *ack) = (new_seq, new_ack);
        }
        self
    }

    /// SCTP: the tag that an INIT or INIT ACK offers, and the verification tag.
    pub fn tags(mut self, new_offered: u32, new_tag: u32) -> Self {
        if let Kind::Sctp { offered, tag, .. } = &mut self.kind {
            (*offered, *tag) = (new_offered, new_tag);
        }
        self
    }

    /// TCP options, padded to a multiple of four.
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        if let Kind::Tcp { options, .. } = &mut self.kind {
            *options = bytes.to_vec();
        }
        self
    }

    /// Leaves the UDP checksum out (zero), as IPv4 allows.
    pub fn without_checksum(self) -> Self {
        Self { kind: Kind::Udp { checksum: false }, ..self }
    }

    /// Link addresses: source, destination.
    pub fn macs(self, src: [u8; 6], dst: [u8; 6]) -> Self {
        Self { macs: (src, dst), ..self }
    }

    /// Adds a VLAN tag (802.1Q) inside of the present ones.
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlans.push(id);
        self
    }

    /// TTL, or hop limit.
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// IPv4 options, padded to a multiple of four; 40 bytes at most.
    pub fn ip_options(self, bytes: &[u8]) -> Self {
        Self { options: bytes.to_vec(), ..self }
    }

    /// Adds an IPv6 extension header after the present ones.
    pub fn ext(mut self, ext: Ext) -> Self {
        self.exts.push(ext);
        self
    }

    /// Sets IPv4's "don't fragment".
    pub fn dont_fragment(self) -> Self {
        Self { dont_fragment: true, ..self }
    }

    /// The frame, from the link header on.
    pub fn build(&self) -> Vec<u8> {
        self.frame(&self.build_ip())
    }

    /// From the IP header on.
    pub fn build_ip(&self) -> Vec<u8> {
        self.with_ip(&self.transport())
    }

    /// The same as frames that each carry at most `size` bytes (rounded down to a multiple of eight) of the data
    /// behind the IP header.
    pub fn fragments(&self, id: u32, size: usize) -> Vec<Vec<u8>> {
        let (whole, size) = (self.transport(), (size & !7).max(8));
        let fragment = |(number, bytes): (usize, &[u8])| {
            let offset = number * size;
            let place = Place { id, offset, more: offset + bytes.len() < whole.len() };
            let part = Self { place: Some(place), ..self.clone() };
            part.frame(&part.with_ip(bytes))
        };
        whole.chunks(size).enumerate().map(fragment).collect()
    }

    fn frame(&self, ip: &[u8]) -> Vec<u8> {
        let mut bytes = [self.macs.1, self.macs.0].concat();
        for vlan in &self.vlans {
            bytes.extend([0x81, 0x00]);
            bytes.extend(vlan.to_be_bytes());
        }
        bytes.extend(if self.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] });
        bytes.extend(ip);
        bytes
    }

    /// # Panics
    /// If the addresses are of different families, which is a mistake in the test.
    fn with_ip(&self, rest: &[u8]) -> Vec<u8> {
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(
                (src, dst),
                self.ttl,
                self.protocol(),
                &self.options,
                self.place,
                self.dont_fragment,
                rest,
            ),
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                ipv6((src, dst), self.ttl, self.protocol(), &self.exts, self.place, rest)
            }
            (src, dst) => unreachable!("{src} and {dst} cannot be in one packet"),
        }
    }

    fn protocol(&self) -> u8 {
        match &self.kind {
            Kind::Tcp { .. } => number::TCP,
            Kind::Udp { .. } => number::UDP,
            Kind::Sctp { .. } => number::SCTP,
            Kind::Echo { .. } | Kind::Error(_) if self.src.is_ipv4() => number::ICMP,
            Kind::Echo { .. } | Kind::Error(_) => number::ICMPV6,
            Kind::Raw(protocol) => *protocol,
        }
    }

    /// Transport header and payload.
    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let checksum_at = match &self.kind {
            Kind::Tcp { seq, ack, flags, options } => {
                let header_len = 20 + options.len().next_multiple_of(4);
                bytes.extend(self.src.port().to_be_bytes());
                bytes.extend(self.dst.port().to_be_bytes());
                bytes.extend(seq.to_be_bytes());
                bytes.extend(ack.to_be_bytes());
                bytes.extend([clamp(header_len / 4 * 16) as u8, *flags, 0xff, 0xff, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.resize(header_len, 0);
                Some(16)
            }
            Kind::Udp { checksum } => {
                bytes.extend(self.src.port().to_be_bytes());
                bytes.extend(self.dst.port().to_be_bytes());
                bytes.extend(clamp(8 + self.payload.len()).to_be_bytes());
                bytes.extend([0, 0]);
                checksum.then_some(6)
            }
            Kind::Sctp { chunk, offered, tag } => return self.sctp_bytes(*chunk, *offered, *tag),
            Kind::Echo { id, seq, reply } => {
                let kind = match (self.src.is_ipv4(), reply) {
                    (true, false) => 8,
                    (true, true) => 0,
                    (false, false) => 128,
                    (false, true) => 129,
                };
                bytes.extend([kind, 0, 0, 0]);
                bytes.extend(id.to_be_bytes());
                bytes.extend(seq.to_be_bytes());
                Some(2)
            }
            Kind::Error(reason) => {
                bytes.extend(reason.header(Family::of(self.src.ip())));
                Some(2)
            }
            Kind::Raw(_) => None,
        };
        bytes.extend(&self.payload);
        if let Some(at) = checksum_at {
            fill_checksum(&mut bytes, at, (self.src.ip(), self.dst.ip()), self.protocol());
        }
        bytes
    }

    /// Common header, and one chunk (RFC 9260, 3).
    fn sctp_bytes(&self, chunk: u8, offered: u32, tag: u32) -> Vec<u8> {
        let mut value = Vec::new();
        if chunk == chunk::INIT || chunk == chunk::INIT_ACK {
            value.extend(offered.to_be_bytes());
            // Window, streams, first TSN.
            value.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
        }
        value.extend(&self.payload);
        let mut bytes = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend([chunk, 0]);
        bytes.extend(clamp(4 + value.len()).to_be_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let crc = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&crc);
        bytes
    }
}
