//! The choice of a backend for a new flow.

use crate::tuple::Tuple;

/// A keyed hash of a five-tuple.
///
/// The choice for a connection is this hash, not a fresh random number: a flow that the kernel evicted is
/// chosen again the same way as long as the set of backends is the same. The source port makes it as good
/// as random from one connection to the next; `seed` keeps clients from steering it.
#[inline(always)]
pub const fn hash(tuple: &Tuple, seed: u64) -> u32 {
    let (s, d) = (tuple.src.words(), tuple.dst.words());
    let ports = (tuple.src_port as u64) << 32 | (tuple.dst_port as u64) << 16 | tuple.proto as u64;
    let h = mix(seed, s[0] as u64 | (s[1] as u64) << 32);
    let h = mix(h, s[2] as u64 | (s[3] as u64) << 32);
    let h = mix(h, d[0] as u64 | (d[1] as u64) << 32);
    let h = mix(h, d[2] as u64 | (d[3] as u64) << 32);
    let h = mix(mix(h, ports), 0);
    (h >> 32) as u32
}

#[inline(always)]
const fn mix(h: u64, word: u64) -> u64 {
    let h = (h ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 29)
}

/// Maps a hash to `0..count` without division; 0 when `count` is 0.
#[inline(always)]
pub const fn slot(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::tuple::proto;

    fn tuple(client: u8, src_port: u16) -> Tuple {
        Tuple {
            src: Addr::v4([10, 244, 0, client]),
            dst: Addr::v4([10, 96, 0, 10]),
            src_port,
            dst_port: 80,
            proto: proto::TCP,
            _pad: [0; 3],
        }
    }

    #[test]
    fn slot_is_below_count() {
        for count in [1, 2, 3, 100, 65_537] {
            assert_eq!(slot(0, count), 0);
            assert_eq!(slot(u32::MAX, count), count - 1);
        }
        assert_eq!(slot(u32::MAX, 0), 0);
    }

    /// Pearson's chi-square over 10,000 connections with consecutive source ports, as a kernel hands them
    /// out; 99.9 % quantile for 6 degrees of freedom: 22.46.
    #[test]
    fn spread_is_even_for_consecutive_ports() {
        const BACKENDS: usize = 7;
        for (seed, step) in [(0, 1), (1, 2), (0xdead_beef, 2)] {
            let mut seen = [0u32; BACKENDS];
            for n in 0..10_000u16 {
                let port = 32_768u16.wrapping_add(n.wrapping_mul(step));
                seen[slot(hash(&tuple(5, port), seed), BACKENDS as u32) as usize] += 1;
            }
            let expected = 10_000.0 / BACKENDS as f64;
            let chi: f64 = seen.iter().map(|&s| (f64::from(s) - expected).powi(2) / expected).sum();
            assert!(chi < 22.46, "seed {seed} step {step}: chi-square {chi} of {seen:?}");
        }
    }

    #[test]
    fn every_field_matters() {
        let t = tuple(5, 4000);
        let h = hash(&t, 1);
        assert_ne!(h, hash(&t, 2));
        assert_ne!(h, hash(&tuple(6, 4000), 1));
        assert_ne!(h, hash(&tuple(5, 4001), 1));
        assert_ne!(h, hash(&Tuple { dst_port: 81, ..t }, 1));
        assert_ne!(h, hash(&Tuple { proto: proto::UDP, ..t }, 1));
    }
}
