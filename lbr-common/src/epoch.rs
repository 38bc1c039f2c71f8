//! Which flows a change concerns.
//!
//! The agent counts changes in [`crate::service::State::epoch`]. What a flow depends on — its ends' addresses, its Service,
//! its links — has a *cell* in the map `epochs`: the number of the last change there. A flow that was checked at an
//! earlier epoch than one of its cells has to look again. Things that share a cell would make each other's flows look
//! again for nothing. So an address has two cells, by two hashes, and has changed if both say so; ids and interfaces,
//! which are counted up, take turns.

use crate::addr::Addr;
use crate::id::ServiceId;

/// Cells in a block, which is a value of `epochs`.
const BLOCK: u32 = 1 << 10;

/// Blocks: entries of `epochs`.
pub const BLOCKS: u32 = CELLS / BLOCK;

/// Cells for addresses and ports by the first hash, and as many by the second; for Services; for links.
const ADDRESS_BITS: u32 = 15;
const ADDRESSES: u32 = 1 << ADDRESS_BITS;
const SERVICES_FROM: u32 = 2 * ADDRESSES;
const SERVICES: u32 = 1 << 14;
const ANY_LINK: u32 = SERVICES_FROM + SERVICES;
const LINKS_FROM: u32 = ANY_LINK + BLOCK;
const LINKS: u32 = 1 << 13;
const CELLS: u32 = LINKS_FROM + LINKS;

/// Changes after which the agent raises all cells, so that no cell is so old that it seems to be in the future.
pub const FULL_TURN: u32 = 1 << 24;

/// Value of `epochs`: for each cell, the epoch of the last change there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochBlock {
    /// By [`Cell::slot`].
    pub cells: [u32; BLOCK as usize],
}

/// Where it is noted when something last changed that flows depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    number: u32,
}

impl Cell {
    /// That of all links: raised with each of theirs, so that most changes take no look at those.
    pub const ANY_LINK: Self = Self { number: ANY_LINK };

    /// That of an address: its pod, its policies, its class, and whether it is a Service's.
    #[inline(always)]
    #[must_use]
    pub const fn address(addr: &Addr) -> Self {
        Self::spread(mix(addr))
    }

    /// That of a port of an address: whether it is a Service's. Enough where an address as a whole is a host's own.
    #[inline(always)]
    #[must_use]
    pub const fn port(addr: &Addr, port: u16) -> Self {
        Self::spread(mix_port(addr, port))
    }

    /// The other cell of an address.
    #[inline(always)]
    #[must_use]
    pub const fn address_too(addr: &Addr) -> Self {
        Self::spread_too(mix(addr))
    }

    /// The other cell of a port of an address.
    #[inline(always)]
    #[must_use]
    pub const fn port_too(addr: &Addr, port: u16) -> Self {
        Self::spread_too(mix_port(addr, port))
    }

    /// That of a Service port: its frontends, clients and backends.
    #[inline(always)]
    #[must_use]
    pub const fn service(id: ServiceId) -> Self {
        Self { number: SERVICES_FROM + id.id % SERVICES }
    }

    /// That of an interface.
    #[inline(always)]
    #[must_use]
    pub const fn link(ifindex: u32) -> Self {
        Self { number: LINKS_FROM + ifindex % LINKS }
    }

    #[inline(always)]
    const fn spread(mixed: u64) -> Self {
        Self { number: (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ADDRESS_BITS)) as u32 }
    }

    /// Whether it is an interface's.
    #[must_use]
    pub const fn is_of_link(self) -> bool {
        self.number >= LINKS_FROM
    }

    /// The second hash shares no bits of the product with the first one.
    #[inline(always)]
    const fn spread_too(mixed: u64) -> Self {
        let product = (mixed ^ (mixed >> 32)).wrapping_mul(0xe703_7ed1_a0b4_28db);
        Self { number: ADDRESSES + (product >> (64 - ADDRESS_BITS)) as u32 }
    }

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

    /// The block that it is in: key of `epochs`.
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

/// An address as a number; the multiplication that follows takes the bits that matter to the top.
#[inline(always)]
const fn mix(addr: &Addr) -> u64 {
    let [high, low] = addr.doubles();
    high.wrapping_mul(0xa076_1d64_78bd_642f) ^ low
}

#[inline(always)]
const fn mix_port(addr: &Addr, port: u16) -> u64 {
    mix(addr) ^ (port as u64 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93)
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
    fn the_addresses_of_a_pod_network_have_cells_of_their_own() {
        let addresses = (0..1 << 12).map(|n: u16| {
            let [c, d] = n.to_be_bytes();
            Addr::v4([10, 244, c, d])
        });
        let cells: BTreeSet<_> = addresses.map(|addr| Cell::address(&addr)).collect();
        assert!(cells.len() > 3_500, "{}", cells.len());
        let node = Addr::v4([192, 0, 2, 1]);
        let ports: BTreeSet<_> = (30_000..32_768).map(|port| Cell::port(&node, port)).collect();
        assert!(ports.len() > 2_400, "{}", ports.len());
        let v6 = |n: u16| {
            let mut bytes = [0xfd; 16];
            bytes[14..].copy_from_slice(&n.to_be_bytes());
            Addr::v6(bytes)
        };
        let cells: BTreeSet<_> = (0..1 << 12).map(|n| Cell::address(&v6(n))).collect();
        assert!(cells.len() > 3_500, "{}", cells.len());
    }

    #[test]
    fn kinds_do_not_share_cells() {
        let (addr, last) = (Addr::v4([10, 244, 0, 1]), Addr::v4([255; 4]));
        for addr in [Addr::UNSPECIFIED, addr, last] {
            let first = [Cell::address(&addr), Cell::port(&addr, u16::MAX)];
            assert!(first.iter().all(|cell| cell.number() < ADDRESSES));
            let second = [Cell::address_too(&addr), Cell::port_too(&addr, u16::MAX)];
            assert!(second.iter().all(|cell| (ADDRESSES..SERVICES_FROM).contains(&cell.number())));
        }
        assert!(!Cell::ANY_LINK.is_of_link() && Cell::ANY_LINK.block() < BLOCKS);
        for n in [0, 1, 8_191, 8_192, 16_383, 16_384, u32::MAX] {
            assert!((SERVICES_FROM..ANY_LINK).contains(&Cell::service(n.into()).number()));
            assert!(Cell::link(n).is_of_link() && Cell::link(n).block() < BLOCKS);
        }
    }

    #[test]
    fn addresses_seldom_share_both_cells() {
        let cells = |n: u32| {
            let addr = Addr::v4((u32::from_be_bytes([10, 0, 0, 0]) + n).to_be_bytes());
            (Cell::address(&addr), Cell::address_too(&addr))
        };
        let all: BTreeSet<_> = (0..100_000).map(cells).collect();
        assert!(all.len() > 99_950, "{}", all.len());
    }
}
