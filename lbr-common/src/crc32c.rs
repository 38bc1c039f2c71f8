//! SCTP's checksum (CRC32c: RFC 9260, appendix A) after a change of a packet's ports.
//!
//! A CRC is linear: two packets of one length differ in their CRC by the CRC, without its inversions, of what they
//! differ in. Ports are the first four bytes, so that is their change followed by zeros, and the rest of the packet is not
//! read. SCTP's checksum does not cover addresses.

/// Polynomial of CRC32c, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Lengths below 2^16 have so many bits.
const LENGTH_BITS: usize = 16;

/// What a CRC register becomes after 2^`n` bytes of zeros, for each of its bits.
static ZEROS: [[u32; 32]; LENGTH_BITS] = zeros();

const fn zeros() -> [[u32; 32]; LENGTH_BITS] {
    let mut tables = [[0; 32]; LENGTH_BITS];
    let mut bit = 0;
    while bit < 32 {
        tables[0][bit] = after_byte(1 << bit);
        bit += 1;
    }
    let mut n = 1;
    while n < LENGTH_BITS {
        let mut bit = 0;
        while bit < 32 {
            tables[n][bit] = apply(&tables[n - 1], tables[n - 1][bit]);
            bit += 1;
        }
        n += 1;
    }
    tables
}

const fn after_byte(mut register: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        let carry = register & 1;
        register >>= 1;
        if carry != 0 {
            register ^= POLYNOMIAL;
        }
        bit += 1;
    }
    register
}

/// Without branches, so that the verifier walks it on one path.
#[inline(always)]
const fn apply(table: &[u32; 32], register: u32) -> u32 {
    let mut result = 0;
    let mut bit = 0;
    while bit < 32 {
        result ^= table[bit] & ((register >> bit) & 1).wrapping_neg();
        bit += 1;
    }
    result
}

/// What to add by exclusive or to the checksum of an SCTP packet of `len` bytes (below 65,536, from its ports to its last
/// byte) whose first four bytes change by `change` (exclusive or of old and new). Both values are read from the packet as
/// little-endian numbers.
#[inline(always)]
#[must_use]
pub fn change(change: u32, len: u32) -> u32 {
    let mut register = change;
    let mut n = 0;
    while n < LENGTH_BITS {
        if (len >> n) & 1 != 0 {
            register = apply(&ZEROS[n], register);
        }
        n += 1;
    }
    register
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// In full, byte by byte.
    fn full(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |register, byte| after_byte(register ^ u32::from(*byte)))
    }

    fn le(bytes: &[u8]) -> u32 {
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// RFC 3720, B.4, and the check value of the catalogue of CRCs.
    #[test]
    fn known_values() {
        assert_eq!(full(&[0; 32]), 0x8a91_36aa);
        assert_eq!(full(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(full(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn a_change_of_ports_is_as_if_summed_anew(
            before in prop::collection::vec(any::<u8>(), 12..3000),
            ports in any::<[u8; 4]>(),
        ) {
            let mut after = before.clone();
            after[..4].copy_from_slice(&ports);
            let change = change(le(&before) ^ le(&after), before.len() as u32);
            prop_assert_eq!(full(&before) ^ change, full(&after));
        }
    }

    #[test]
    fn the_longest_packet() {
        let before = std::vec![0x5a; 65_535];
        let mut after = before.clone();
        after[..4].copy_from_slice(&[1, 2, 3, 4]);
        let change = change(le(&before) ^ le(&after), 65_535);
        assert_eq!(full(&before) ^ change, full(&after));
    }
}
