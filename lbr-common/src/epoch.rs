//! Which flows a change concerns.
//!
//! The agent counts changes in [`crate::service::State::epoch`]. What a flow depends on — its ends' addresses, its Service,
//! its links — is a [`Place`]. Two maps hold *cells*: the number of the last change there. A place has a cell in each, by
//! two hashes, and has changed if both say so. `near_epochs` is small enough to stay in a CPU's cache, and shows for most
//! packets that nothing has changed; flows remember where their cells in it are. In `far_epochs` few places meet.

use crate::addr::Addr;
use crate::id::ServiceId;

/// Cells in a block, which is a value of `far_epochs`.
const BLOCK: u32 = 1 << 10;

/// Blocks: entries of `far_epochs`.
pub const BLOCKS: u32 = CELLS / BLOCK;

const NEAR_BITS: u32 = 13;
/// Near cells of addresses, ports and Services: a power of two.
pub const NEAR: usize = 1 << NEAR_BITS;
/// The near cell of all links, so that most changes take no look at those.
pub const ANY_LINK: u16 = NEAR as u16;
/// The far cells of addresses and ports; of Services and of interfaces, which are counted up and take turns.
const ADDRESS_BITS: u32 = 15;
const SERVICES_FROM: u32 = 1 << ADDRESS_BITS;
const SERVICES: u32 = 1 << 14;
const LINKS_FROM: u32 = SERVICES_FROM + SERVICES;
const LINKS: u32 = 1 << 13;
const CELLS: u32 = LINKS_FROM + LINKS;

/// Changes after which the agent raises all cells, so that no cell is so old that it seems to be in the future.
pub const FULL_TURN: u32 = 1 << 24;

/// The value of `near_epochs`: for each near cell, the epoch of the last change there; 32 KiB.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearEpochs {
    /// By [`Place::near`]; the last one is [`ANY_LINK`].
    pub cells: [u32; NEAR + 1],
}

/// Value of `far_epochs`: the same for far cells.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochBlock {
    /// By [`Cell::slot`].
    pub cells: [u32; BLOCK as usize],
}

/// Something that flows depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    near: u16,
    far: Cell,
}

impl Place {
    /// An address: its pod, its policies, its class, and whether it is a Service's.
    #[inline(always)]
    #[must_use]
    pub const fn address(addr: &Addr) -> Self {
        Self::spread(mix(addr))
    }

    /// A port of an address: whether it is a Service's. Enough where an address as a whole is a host's own.
    #[inline(always)]
    #[must_use]
    pub const fn port(addr: &Addr, port: u16) -> Self {
        Self::spread(mix(addr) ^ (port as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// A Service port: its frontends, clients and backends.
    #[inline(always)]
    #[must_use]
    pub const fn service(id: ServiceId) -> Self {
        Self { near: near(id.id as u64), far: Cell { number: SERVICES_FROM + id.id % SERVICES } }
    }

    /// An interface.
    #[inline(always)]
    #[must_use]
    pub const fn link(ifindex: u32) -> Self {
        Self { near: ANY_LINK, far: Cell { number: LINKS_FROM + ifindex % LINKS } }
    }

    /// The second hash shares no bits of the product with the first one.
    #[inline(always)]
    const fn spread(mixed: u64) -> Self {
        let product = (mixed ^ (mixed >> 32)).wrapping_mul(0xe703_7ed1_a0b4_28db);
        Self { near: near(mixed), far: Cell { number: (product >> (64 - ADDRESS_BITS)) as u32 } }
    }

    /// Index of its cell in [`NearEpochs`].
    #[inline(always)]
    #[must_use]
    pub const fn near(self) -> u16 {
        self.near
    }

    /// Its cell in `far_epochs`.
    #[inline(always)]
    #[must_use]
    pub const fn far(self) -> Cell {
        self.far
    }
}

/// Where `far_epochs` holds the number of the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    number: u32,
}

impl Cell {
    /// The cell with this number.
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u32) -> Self {
        Self { number }
    }

    /// Its number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.number
    }

    /// The block that it is in: key of `far_epochs`.
    #[inline(always)]
    #[must_use]
    pub const fn block(self) -> u32 {
        self.number / BLOCK
    }

    /// Its place in the block.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> usize {
        (self.number % BLOCK) as usize
    }
}

#[inline(always)]
const fn near(mixed: u64) -> u16 {
    (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - NEAR_BITS)) as u16
}

/// An address as a number; the multiplication that follows takes the bits that matter to the top.
#[inline(always)]
const fn mix(addr: &Addr) -> u64 {
    let [high, low] = addr.doubles();
    high.wrapping_mul(0xa076_1d64_78bd_642f) ^ low
}

/// Whether a flow that was checked at one epoch has not seen the change with the other number.
#[inline(always)]
#[must_use]
pub const fn is_before(checked: u32, changed: u32) -> bool {
    (checked.wrapping_sub(changed) as i32) < 0
}

/// For a flow that has to look again whatever has changed since: an epoch before every cell's.
#[inline(always)]
#[must_use]
pub const fn before_all(epoch: u32) -> u32 {
    epoch.wrapping_sub(1 << 30)
}

const _: () = assert!(size_of::<EpochBlock>() == 4_096);
const _: () = assert!(CELLS.is_multiple_of(BLOCK) && CELLS < 1 << 20);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn epochs_are_compared_across_the_wrap() {
        for epoch in [0, 1, 7, u32::MAX, 1 << 31] {
            assert!(!is_before(epoch, epoch));
            assert!(is_before(epoch.wrapping_sub(1), epoch));
            assert!(!is_before(epoch.wrapping_add(1), epoch));
            for age in [0, 1, FULL_TURN] {
                assert!(is_before(before_all(epoch), epoch.wrapping_sub(age)));
            }
        }
    }

    #[test]
    fn places_are_spread_over_both_tables() {
        let v4 = |n: u16| {
            let [c, d] = n.to_be_bytes();
            Place::address(&Addr::v4([10, 244, c, d]))
        };
        let v6 = |n: u16| {
            let mut bytes = [0xfd; 16];
            bytes[14..].copy_from_slice(&n.to_be_bytes());
            Place::address(&Addr::v6(bytes))
        };
        let port = |n: u16| Place::port(&Addr::v4([192, 0, 2, 1]), 30_000 + n);
        let kinds: [&dyn Fn(u16) -> Place; 3] = [&v4, &v6, &port];
        for place in kinds {
            // At random, 4,096 places have 3,223 of 8,192 cells, and 3,850 of 32,768.
            let near: BTreeSet<_> = (0..1 << 12).map(|n| place(n).near()).collect();
            let far: BTreeSet<_> = (0..1 << 12).map(|n| place(n).far()).collect();
            assert!(near.len() > 3_000 && far.len() > 3_500, "{}, {}", near.len(), far.len());
        }
        let services: BTreeSet<_> = (1..1 << 12).map(|id: u32| Place::service(id.into()).near()).collect();
        assert!(services.len() > 3_000, "{}", services.len());
    }

    #[test]
    fn kinds_do_not_share_far_cells() {
        /// 0: addresses and ports; 1: Services; 2: links.
        fn kind(place: Place) -> usize {
            [SERVICES_FROM, LINKS_FROM].iter().filter(|&&from| from <= place.far().number()).count()
        }
        for addr in [Addr::UNSPECIFIED, Addr::v4([10, 244, 0, 1]), Addr::v4([255; 4])] {
            for place in [Place::address(&addr), Place::port(&addr, u16::MAX)] {
                assert!(kind(place) == 0 && place.near() < ANY_LINK);
            }
        }
        for n in [0, 1, 8_191, 8_192, 16_383, 16_384, u32::MAX] {
            let (service, link) = (Place::service(n.into()), Place::link(n));
            assert!(kind(service) == 1 && service.near() < ANY_LINK);
            assert!(kind(link) == 2 && link.near() == ANY_LINK && link.far().block() < BLOCKS);
        }
    }

    #[test]
    fn addresses_seldom_share_both_cells() {
        let place = |n: u32| Place::address(&Addr::v4((u32::from_be_bytes([10, 0, 0, 0]) + n).to_be_bytes()));
        let all: BTreeSet<_> = (0..100_000).map(place).collect();
        assert!(all.len() > 99_900, "{}", all.len());
    }
}
