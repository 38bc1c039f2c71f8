//! Incremental internet checksums (RFC 1624), as sums of 16-bit words in memory order.
//!
//! One's complement sums do not depend on byte order as long as all words are read the same way, so these
//! functions work on words as they lie in memory and never swap.

use crate::addr::Addr;
use crate::tuple::Tuple;

/// A one's complement sum that has not been folded yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diff(u64);

impl Diff {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// Replaces a 32-bit word of memory.
    #[inline(always)]
    pub const fn word(self, old: u32, new: u32) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Replaces a 16-bit word of memory.
    #[inline(always)]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u64 + new as u64)
    }

    /// Replaces an address of 16 bytes. For mapped IPv4 the constant prefix cancels out.
    #[inline(always)]
    pub const fn addr(self, old: &Addr, new: &Addr) -> Self {
        let (o, n) = (old.words(), new.words());
        self.word(o[0], n[0]).word(o[1], n[1]).word(o[2], n[2]).word(o[3], n[3])
    }

    /// Both changes together.
    #[inline(always)]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Folded to 32 bits: what `bpf_l4_csum_replace` takes with size 0.
    #[inline(always)]
    pub const fn fold32(self) -> u32 {
        let s = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let s = (s & 0xffff_ffff) + (s >> 32);
        s as u32
    }

    /// The checksum field `old` (memory order) after this change.
    #[inline(always)]
    pub const fn apply(self, old: u16) -> u16 {
        update(old, self.fold32())
    }
}

/// The checksum field `old` (memory order) after a change of [`Diff::fold32`].
#[inline(always)]
pub const fn update(old: u16, diff: u32) -> u16 {
    !fold16(!old as u64 + diff as u64)
}

/// The sum of a pseudo header (memory order), with `len` bytes from the transport header on: what the checksum field
/// of a packet holds whose checksum a device is to complete.
#[inline(always)]
pub const fn pseudo_header(tuple: &Tuple, len: u32) -> u16 {
    let (src, dst) = (tuple.src.words(), tuple.dst.words());
    let mut sum = (tuple.proto as u16).to_be() as u64 + len.to_be() as u64 + src[3] as u64 + dst[3] as u64;
    if !tuple.src.is_v4() {
        sum += src[0] as u64 + src[1] as u64 + src[2] as u64;
        sum += dst[0] as u64 + dst[1] as u64 + dst[2] as u64;
    }
    fold16(sum)
}

/// Folds a sum to 16 bits.
#[inline(always)]
pub const fn fold16(sum: u64) -> u16 {
    let s = (sum & 0xffff_ffff) + (sum >> 32);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    let s = (s & 0xffff) + (s >> 16);
    s as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(bytes: &[u8]) -> u16 {
        !fold16(bytes.chunks(2).map(|c| u64::from(u16::from_ne_bytes([c[0], c[1]]))).sum())
    }

    /// The IPv4 header of RFC 1071-style examples: checksum 0xb861.
    const HEADER: [u8; 20] =
        [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];

    #[test]
    fn full_sum_of_a_valid_header_is_zero() {
        assert_eq!(full(&HEADER), 0);
    }

    #[test]
    fn incremental_equals_full() {
        for (n, new) in [[10, 0, 0, 1], [0, 0, 0, 0], [255; 4], [192, 168, 0, 199]].into_iter().enumerate() {
            let mut h = HEADER;
            let old_sum = u16::from_ne_bytes([h[10], h[11]]);
            let old = u32::from_ne_bytes([h[16], h[17], h[18], h[19]]);
            let sum = Diff::NONE.word(old, u32::from_ne_bytes(new)).apply(old_sum);
            h[16..20].copy_from_slice(&new);
            h[10..12].copy_from_slice(&sum.to_ne_bytes());
            assert_eq!(full(&h), 0, "case {n}");
        }
    }

    /// A checksum is the complement of the pseudo header's sum and the rest's.
    #[test]
    fn pseudo_header_completes_a_datagram() {
        let bytes = [0x9c, 0x40, 0, 53, 0, 11, 0, 0, b'a', b'b', b'c', 0];
        let rest = u64::from(!full(&bytes));
        let ends = [
            (Addr::v4([192, 0, 2, 1]), Addr::v4([10, 1, 2, 3]), 0xd0fau16),
            (Addr::v6([0x20; 16]), Addr::v6([0xfd; 16]), 0xae0fu16),
        ];
        for (src, dst, expected) in ends {
            let tuple = Tuple { src, dst, src_port: 40_000, dst_port: 53, proto: 17, _pad: [0; 3] };
            let sum = !fold16(u64::from(pseudo_header(&tuple, 11)) + rest);
            assert_eq!(u16::from_be(sum), expected, "{tuple:?}: {:#x}", u16::from_be(sum));
        }
    }

    #[test]
    fn address_diff_of_mapped_v4_is_the_word_diff() {
        let (a, b) = (Addr::v4([10, 1, 2, 3]), Addr::v4([172, 16, 200, 7]));
        let w = Diff::NONE.word(a.words()[3], b.words()[3]);
        assert_eq!(fold16(Diff::NONE.addr(&a, &b).fold32().into()), fold16(w.fold32().into()));
    }
}
