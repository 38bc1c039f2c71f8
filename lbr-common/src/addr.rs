//! One address width for both families.

use core::net::IpAddr;

/// IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address, as it is written: a mapped IPv4 address is an IPv6 address here.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Whether this is IPv6.
    pub const fn is_v6(self) -> bool {
        matches!(self, Self::V6)
    }

    /// Its place in [`Self::ALL`], and in any array of something for each family.
    pub const fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }

    /// Its name in metrics, answers and texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The 12 bytes that precede an IPv4 address in its mapped form (RFC 4291, 2.5.5.2).
const V4_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// An IPv4 or IPv6 address as 16 bytes in wire order; IPv4 is mapped (`::ffff:a.b.c.d`).
///
/// Aligned to 8, so that the kernel object copies and compares it in two words.
#[repr(C, align(8))]
#[expect(clippy::derived_hash_with_manual_eq, reason = "both look at all 16 bytes, only by other units")]
#[derive(Clone, Copy, Debug, Default, PartialOrd, Ord, Hash)]
pub struct Addr {
    /// The address, most significant byte first.
    pub bytes: [u8; 16],
}

impl Addr {
    /// `::`, which no packet carries as its destination.
    pub const UNSPECIFIED: Self = Self { bytes: [0; 16] };

    /// From the four bytes of an IPv4 header.
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self::from_words([
            0,
            0,
            u32::from_be_bytes([0, 0, 0xff, 0xff]).to_be(),
            u32::from_ne_bytes([a, b, c, d]),
        ])
    }

    /// From the sixteen bytes of an IPv6 header.
    #[inline(always)]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self { bytes: octets }
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let w = self.words();
        w[0] == 0 && w[1] == 0 && w[2] == u32::from_ne_bytes([0, 0, 0xff, 0xff])
    }

    /// The family: IPv4 if mapped.
    #[inline(always)]
    pub const fn family(&self) -> Family {
        if self.is_v4() { Family::V4 } else { Family::V6 }
    }

    /// The last four bytes: the IPv4 address if [`Self::is_v4`].
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        let b = &self.bytes;
        [b[12], b[13], b[14], b[15]]
    }

    /// Whether this is the address of a group, or that of all hosts of a link (RFC 1112, 4; RFC 4291, 2.7). IPv4's
    /// reserved addresses above the groups count as such (RFC 1112, 4).
    #[inline(always)]
    pub const fn is_group(&self) -> bool {
        if self.is_v4() { self.v4_octets()[0] >= 224 } else { self.bytes[0] == 0xff }
    }

    /// Whether this is a unicast address that is valid on its link only (RFC 3927, 2.1; RFC 4291, 2.5.6).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        if self.is_v4() {
            let [a, b, ..] = self.v4_octets();
            a == 169 && b == 254
        } else {
            self.bytes[0] == 0xfe && self.bytes[1] & 0xc0 == 0x80
        }
    }

    /// The address as four words whose memory is the wire order.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        // SAFETY: both are 16 bytes of plain data, and every bit pattern of `[u32; 4]` is valid.
        unsafe { core::mem::transmute(self.bytes) }
    }

    /// The address as two double words whose memory is the wire order.
    #[inline(always)]
    pub const fn doubles(&self) -> [u64; 2] {
        // SAFETY: both are 16 bytes of plain data, and every bit pattern of `[u64; 2]` is valid.
        unsafe { core::mem::transmute(self.bytes) }
    }

    /// The address as eight half words whose memory is the wire order.
    #[inline(always)]
    pub const fn halves(&self) -> [u16; 8] {
        // SAFETY: both are 16 bytes of plain data, and every bit pattern of `[u16; 8]` is valid.
        unsafe { core::mem::transmute(self.bytes) }
    }

    /// The last four bytes as two half words whose memory is the wire order.
    #[inline(always)]
    pub const fn v4_halves(&self) -> [u16; 2] {
        let halves = self.halves();
        [halves[6], halves[7]]
    }

    /// The inverse of [`Self::words`].
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        // SAFETY: both are 16 bytes of plain data, and every bit pattern of `[u8; 16]` is valid.
        Self { bytes: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) } }
    }
}

// By words: a byte-wise comparison becomes a `memcmp` call, for which the kernel object has no symbol.
impl PartialEq for Addr {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.words(), other.words());
        a[3] == b[3] && a[0] == b[0] && a[1] == b[1] && a[2] == b[2]
    }
}

impl Eq for Addr {}

const _: () = assert!(size_of::<Addr>() == 16 && align_of::<Addr>() == 8 && V4_PREFIX.len() == 12);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_apart() {
        assert_eq!(Family::of([10, 0, 0, 1].into()), Family::V4);
        assert_eq!(Family::of([0xfd00, 0, 0, 0, 0, 0, 0, 1_u16].into()), Family::V6);
        assert_eq!(Addr::v4([10, 0, 0, 1]).family(), Family::V4);
        assert_eq!(Addr::UNSPECIFIED.family(), Family::V6);
        assert_eq!(Family::ALL.map(Family::index), [0, 1]);
        assert_eq!(Family::ALL.map(Family::is_v6), [false, true]);
    }

    #[test]
    fn v4_is_mapped() {
        let a = Addr::v4([10, 0, 0, 1]);
        assert_eq!(a.bytes[..12], V4_PREFIX);
        assert_eq!(a.v4_octets(), [10, 0, 0, 1]);
        assert!(a.is_v4());
    }

    #[test]
    fn groups_and_link_local_addresses_are_told_by_their_first_bits() {
        let v6 = |a, b| {
            let mut bytes = [0; 16];
            bytes[..2].copy_from_slice(&[a, b]);
            Addr::v6(bytes)
        };
        for (addr, is_group, is_link_local) in [
            (Addr::v4([223, 255, 255, 255]), false, false),
            (Addr::v4([224, 0, 0, 1]), true, false),
            (Addr::v4([255; 4]), true, false),
            (Addr::v4([169, 254, 0, 1]), false, true),
            (Addr::v4([169, 253, 0, 1]), false, false),
            (v6(0xfe, 0xff), false, false),
            (v6(0xff, 0x02), true, false),
            (v6(0xfe, 0x80), false, true),
            (v6(0xfe, 0xbf), false, true),
            (v6(0xfe, 0xc0), false, false),
            (v6(0xfe, 0x7f), false, false),
        ] {
            assert_eq!((addr.is_group(), addr.is_link_local()), (is_group, is_link_local), "{addr}");
        }
    }

    #[test]
    fn v6_is_not_v4() {
        let mut b = [0; 16];
        b[0] = 0xfd;
        assert!(!Addr::v6(b).is_v4());
        assert!(!Addr::UNSPECIFIED.is_v4());
        assert_eq!(Addr::from_words(Addr::v6(b).words()), Addr::v6(b));
    }
}
