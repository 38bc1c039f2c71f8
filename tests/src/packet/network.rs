//! Reads IP headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::checksum::sum;
use super::headers::number;
use super::parse::{Fragment, Parsed, Transport};

/// The packet so far, the data behind its IP header, and the length that the header claims.
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

pub(super) fn ipv4(bytes: &[u8]) -> Result<Rest<'_>, String> {
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

pub(super) fn ipv6(bytes: &[u8]) -> Result<Rest<'_>, String> {
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

pub(super) fn be16(bytes: &[u8], at: usize) -> Result<u16, String> {
    let pair = bytes.get(at..at + 2).ok_or_else(|| format!("cut at byte {at}"))?;
    Ok(u16::from_be_bytes([pair[0], pair[1]]))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> Result<u32, String> {
    Ok(u32::from(be16(bytes, at)?) << 16 | u32::from(be16(bytes, at + 2)?))
}
