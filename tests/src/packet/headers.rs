//! Bytes of single headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{finish, pseudo_sum};
use super::kinds::Ext;

/// IP protocol numbers that the tests use (IANA).
pub(super) mod number {
    pub(in super::super) const HOP_BY_HOP: u8 = 0;
    pub(in super::super) const ICMP: u8 = 1;
    pub(in super::super) const TCP: u8 = 6;
    pub(in super::super) const UDP: u8 = 17;
    pub(in super::super) const ROUTING: u8 = 43;
    pub(in super::super) const FRAGMENT: u8 = 44;
    pub(in super::super) const ICMPV6: u8 = 58;
    pub(in super::super) const DEST_OPTS: u8 = 60;
    pub(in super::super) const SCTP: u8 = 132;
}

/// Place of a fragment in its datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: u32,
    /// In bytes.
    pub(super) offset: usize,
    pub(super) more: bool,
}

/// IPv4 (RFC 791), with options padded to a multiple of four.
pub(super) fn ipv4(
    (src, dst): (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    proto: u8,
    options: &[u8],
    place: Option<Place>,
    dont_fragment: bool,
    payload: &[u8],
) -> Vec<u8> {
    let options_len = options.len().next_multiple_of(4);
    let header_len = 20 + options_len;
    let total = clamp(header_len + payload.len());
    let (id, fragment) = match place {
        Some(p) => (p.id as u16, clamp(p.offset / 8) | if p.more { 0x2000 } else { 0 }),
        None => (0x1234, if dont_fragment { 0x4000 } else { 0 }),
    };
    let mut bytes = vec![0x40 | clamp(header_len / 4) as u8, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(fragment.to_be_bytes());
    bytes.extend([ttl, proto, 0, 0]);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(options);
    bytes.resize(header_len, 0);
    let check = finish(0, &bytes).to_be_bytes();
    bytes[10..12].copy_from_slice(&check);
    bytes.extend(payload);
    bytes
}

/// IPv6 (RFC 8200) with extension headers in the order given. `place` adds a fragment header after them.
pub(super) fn ipv6(
    (src, dst): (Ipv6Addr, Ipv6Addr),
    hop_limit: u8,
    proto: u8,
    exts: &[Ext],
    place: Option<Place>,
    payload: &[u8],
) -> Vec<u8> {
    // From the last header to the first, as each holds the number of the next one.
    let (mut next, mut rest) = (proto, payload.to_vec());
    if let Some(p) = place {
        let field = clamp(p.offset) & 0xfff8 | u16::from(p.more);
        let mut header = vec![next, 0];
        header.extend(field.to_be_bytes());
        header.extend(p.id.to_be_bytes());
        (next, rest) = (number::FRAGMENT, [header, rest].concat());
    }
    for ext in exts.iter().rev() {
        let mut header = vec![next, 0];
        header.extend(ext.body());
        if matches!(ext, Ext::HopByHop(_) | Ext::DestOpts(_)) {
            // Padding options: Pad1 for one byte, PadN for more (RFC 8200 4.2).
            match header.len().next_multiple_of(8) - header.len() {
                0 => {}
                1 => header.push(0),
                pad => {
                    header.extend([1, clamp(pad - 2) as u8]);
                    header.resize(header.len() + pad - 2, 0);
                }
            }
        }
        header.resize(header.len().next_multiple_of(8), 0);
        if !matches!(ext, Ext::Fragment { .. }) {
            header[1] = clamp(header.len() / 8 - 1) as u8;
        }
        (next, rest) = (ext.number(), [header, rest].concat());
    }
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(clamp(rest.len()).to_be_bytes());
    bytes.extend([next, hop_limit]);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(rest);
    bytes
}

/// Fills in a transport checksum at `at`, where zero stands now.
pub(super) fn fill_checksum(bytes: &mut [u8], at: usize, ends: (IpAddr, IpAddr), proto: u8) {
    let start = if proto == number::ICMP { 0 } else { pseudo_sum(ends.0, ends.1, proto, bytes.len()) };
    let mut check = finish(start, bytes);
    if proto == number::UDP && check == 0 {
        // Zero would mean "no checksum" (RFC 768).
        check = 0xffff;
    }
    bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
}

/// A length field, limited to its maximum.
pub(super) fn clamp(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}
