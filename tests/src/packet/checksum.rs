//! The internet checksum, computed in full (RFC 1071). It shares nothing with `lbr_common::checksum`, so that a
//! mistake there cannot hide itself.

use std::net::IpAddr;

/// One's complement sum of big-endian words, folded, not inverted. A trailing byte is padded with zero.
pub fn sum(start: u32, bytes: &[u8]) -> u16 {
    let mut total = u64::from(start);
    for pair in bytes.chunks(2) {
        total += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    // Folded above: fits.
    (total & 0xffff) as u16
}

/// Sum of the pseudo header (RFC 9293 3.1, RFC 8200 8.1).
pub fn pseudo_sum(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> u32 {
    let mut bytes = Vec::with_capacity(40);
    for address in [src, dst] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend([0, 0, 0, proto]);
    sum(0, &bytes).into()
}

/// CRC32c (RFC 9260, appendix A), bit by bit. It shares nothing with `lbr_common::crc32c`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let shifted = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), shifted))
}

/// The value for a checksum field that was zero when `bytes` were summed.
pub(super) fn finish(start: u32, bytes: &[u8]) -> u16 {
    !sum(start, bytes)
}
