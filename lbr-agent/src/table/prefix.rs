//! Prefixes, as a trie compares them.

/// Whether the first `bits` bits are the same.
pub(crate) fn starts_with(bytes: &[u8], prefix: &[u8], bits: u32) -> bool {
    let mut left = bits;
    for (byte, wanted) in bytes.iter().zip(prefix) {
        let here = left.min(8);
        let mask = u8::MAX.checked_shl(8 - here).unwrap_or(0);
        if (byte ^ wanted) & mask != 0 {
            return false;
        }
        left -= here;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_compared_bit_by_bit() {
        assert!(starts_with(&[1, 2], &[9, 9], 0));
        assert!(starts_with(&[0b1010_0000], &[0b1011_0000], 3));
        assert!(!starts_with(&[0b1010_0000], &[0b1011_0000], 4));
        assert!(starts_with(&[1, 2], &[1, 3], 15));
        assert!(!starts_with(&[1, 2], &[1, 3], 16));
        assert!(starts_with(&[1, 2], &[1, 2], 16));
    }
}
