//! The choice of a backend for a new flow.

use crate::tuple::Tuple;

/// Secrets of the choice of a backend: see [`crate::service::State`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeds {
    /// Of [`hash`].
    pub flow: u64,
    /// Of [`crate::maglev::hash`].
    pub maglev: u64,
}

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
    (finish(mix(h, ports)) >> 32) as u32
}

#[inline(always)]
const fn mix(h: u64, word: u64) -> u64 {
    let h = (h ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^ (h >> 29)
}

/// Stafford's variant 13 of MurmurHash3's finalizer. `mix` alone leaves a pattern in the ports, which are often
/// consecutive: one seed in fifty then favours a backend for as long as the maps live.
#[inline(always)]
const fn finish(h: u64) -> u64 {
    let h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

/// Maps a hash to `0..count` without division; 0 when `count` is 0.
#[inline(always)]
pub const fn slot(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;

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

    /// Pearson's chi-square of 10,000 connections with consecutive source ports, as a kernel hands them out.
    fn chi_square(backends: u32, seed: u64, step: u16) -> f64 {
        let mut seen = [0u32; 16];
        for n in 0..10_000u16 {
            let port = 32_768u16.wrapping_add(n.wrapping_mul(step));
            seen[slot(hash(&tuple(5, port), seed), backends) as usize] += 1;
        }
        let expected = 10_000.0 / f64::from(backends);
        seen[..backends as usize].iter().map(|&s| (f64::from(s) - expected).powi(2) / expected).sum()
    }

    /// 200 seeds for each number of backends. Of an even choice, one in a thousand lies above its 99.9 % quantile,
    /// and none above twice that.
    #[test]
    fn spread_is_even_for_consecutive_ports() {
        let seeds: std::vec::Vec<u64> =
            (0..200u64).map(|n| finish(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        for (backends, quantile) in [(2, 10.83), (3, 13.82), (5, 18.47), (7, 22.46), (16, 37.70)] {
            for step in [1, 2] {
                let mut above = 0;
                for &seed in &seeds {
                    let chi = chi_square(backends, seed, step);
                    assert!(chi < 2.0 * quantile, "{backends} backends, seed {seed:#x}, step {step}: {chi}");
                    above += u32::from(chi > quantile);
                }
                assert!(
                    above <= 3,
                    "{backends} backends, step {step}: {above} of 200 seeds above {quantile}"
                );
            }
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
