//! Tables of consistent hashing (Maglev, NSDI 2016): a client's slot, and where the backend of a slot is kept.
//!
//! Nodes that never talk to each other choose the same backend for the same client: the slot is a hash of the client
//! alone, and a table is a function of the backends' addresses.

use crate::id::{BackendId, MaglevId};
use crate::service::Frontend;
use crate::tuple::Tuple;

/// Slots of a table: a prime number, and large against the number of backends, so that few slots move when one goes.
pub const SLOTS: u32 = 65_537;
/// Slots of one entry of `maglev`. A power of two.
pub const PART: u32 = 256;
/// Entries of a table. The last one has a single slot.
pub const PARTS: u32 = SLOTS.div_ceil(PART);

/// The seed of [`hash`] unless a flag says otherwise: the same on all nodes, and so known to everybody.
pub const DEFAULT_SEED: u64 = 0x6c62_722d_6d61_676c;

/// How many tables a map of this size has room for, each with another one that takes its place.
pub const fn table_count(max_entries: usize) -> usize {
    max_entries / (2 * PARTS as usize)
}

/// Key of `maglev`. A table is written whole before a frontend leads to it, and is never changed after that.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaglevKey {
    /// [`Frontend::maglev`].
    pub table: MaglevId,
    /// Slot divided by [`PART`].
    pub part: u32,
}

impl MaglevKey {
    /// The entry that a slot is in.
    #[inline(always)]
    pub const fn of(frontend: &Frontend, slot: u32) -> Self {
        Self { table: frontend.maglev, part: slot / PART }
    }
}

/// Value of `maglev`: consecutive slots.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaglevPart {
    /// Keys of `backends`; 0 behind the last slot. Numbers, since `bpftool` prints those in one line.
    backends: [u32; PART as usize],
}

impl MaglevPart {
    /// These slots, as many as it has, and none behind them.
    pub fn new(slots: &[BackendId]) -> Self {
        let mut backends = [0; PART as usize];
        for (to, from) in backends.iter_mut().zip(slots) {
            *to = from.id;
        }
        Self { backends }
    }

    /// Keys of `backends` in its slots.
    pub fn backends(&self) -> impl Iterator<Item = BackendId> {
        let used = self.backends.iter().filter(|id| **id != 0);
        used.map(|id| BackendId { id: *id })
    }

    /// Key of `backends` in a slot of the table; `None` behind the last one.
    #[inline(always)]
    pub fn backend(&self, slot: u32) -> Option<BackendId> {
        // The remainder is what lets the kernel see that this stays inside.
        let backend = self.backends[(slot % PART) as usize];
        if backend == 0 { None } else { Some(BackendId { id: backend }) }
    }
}

/// A keyed hash of the client of a tuple: address, port and protocol. The destination is left out, since a Service
/// has other addresses on other nodes.
#[inline(always)]
pub const fn hash(tuple: &Tuple, seed: u64) -> u32 {
    let client = tuple.src.words();
    let h = mix(seed, client[0] as u64 | (client[1] as u64) << 32);
    let h = mix(h, client[2] as u64 | (client[3] as u64) << 32);
    (mix(h, (tuple.src_port as u64) << 8 | tuple.proto as u64) >> 32) as u32
}

/// Stafford's variant 13 of MurmurHash3's finalizer, once for each word: consecutive addresses and ports must not
/// leave a pattern.
#[inline(always)]
pub const fn mix(h: u64, word: u64) -> u64 {
    let h = (h ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}

const _: () = assert!(PART.is_power_of_two());
const _: () = assert!(size_of::<MaglevKey>() == 8);
const _: () = assert!(size_of::<MaglevPart>() == 4 * PART as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;
    use crate::select;
    use crate::tuple::proto;

    fn tuple(client: u8, src_port: u16) -> Tuple {
        let src = Addr::v4([192, 0, 2, client]);
        Tuple { src, dst: Addr::v4([10, 0, 0, 1]), src_port, dst_port: 80, proto: proto::TCP, _pad: [0; 3] }
    }

    #[test]
    fn the_client_matters_and_nothing_else() {
        let t = tuple(1, 4000);
        let h = hash(&t, 1);
        assert_eq!(h, hash(&Tuple { dst: Addr::v4([10, 0, 0, 2]), dst_port: 81, ..t }, 1));
        for other in [tuple(2, 4000), tuple(1, 4001), Tuple { proto: proto::UDP, ..t }] {
            assert_ne!(h, hash(&other, 1));
        }
        assert_ne!(h, hash(&t, 2));
    }

    /// Pearson's chi-square of 64 parts of the table; its 99.99 % quantile is 113.
    #[test]
    fn consecutive_ports_and_addresses_are_spread_evenly() {
        for seed in [0, 1, DEFAULT_SEED] {
            for by_port in [true, false] {
                let mut seen = [0u32; 64];
                for n in 0..12_800u16 {
                    let t = if by_port { tuple(1, 32_768 + n) } else { tuple((n % 256) as u8, n / 256) };
                    seen[(select::slot(hash(&t, seed), SLOTS) / 1_025) as usize] += 1;
                }
                let chi: f64 = seen.iter().map(|&s| (f64::from(s) - 200.0).powi(2) / 200.0).sum();
                assert!(chi < 113.0, "seed {seed:#x}, by port {by_port}: {chi}");
            }
        }
    }
}
