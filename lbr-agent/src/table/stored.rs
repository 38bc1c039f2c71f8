//! Values that change together at a generation: as a map stores them, and as they are desired.

use std::collections::BTreeMap;

use lbr_common::addr::Addr;
use lbr_common::id::ClassId;
use lbr_common::policy::{Block, Endpoint, Policy, Prefix, Versioned, class};

use crate::desired::EndpointPolicy;

/// A value as a map stores it: with its versions.
pub trait Stored<K>: Copy {
    /// The value as it is desired.
    type Value: Absent<K>;
    /// Both values, and from which generation on the new one counts.
    fn versions(&self) -> Versioned<Self::Value>;
    /// The value in the map that has these versions.
    fn of(versions: Versioned<Self::Value>) -> Self;

    /// The value in the map that is in force at every generation.
    fn settled(value: Self::Value) -> Self {
        Self::of(Versioned { old: value, new: value, since: 0 })
    }
}

/// A value of which one stands for a key that is not in the map. Its type and the type of the key say which.
pub trait Absent<K>: Copy + PartialEq {
    /// What a program finds for `key` where it is not in the map. `others`: what else is.
    fn absent(key: &K, others: &dyn Fn(&K) -> Option<Self>) -> Self;
    /// Whether the value stands for an absent key, whatever else is in the map.
    fn says_nothing(&self) -> bool;
}

/// The entries in force at a generation.
pub fn in_force<K: Ord, T: Absent<K>>(
    entries: impl Iterator<Item = (K, Versioned<T>)>,
    generation: u32,
) -> BTreeMap<K, T> {
    let now = entries.map(|(key, versions)| (key, versions.at(generation)));
    now.filter(|(_, value)| !value.says_nothing()).collect()
}

impl Stored<Addr> for Endpoint {
    type Value = EndpointPolicy;

    fn versions(&self) -> Versioned<EndpointPolicy> {
        let with_link = |policy: Policy| EndpointPolicy { ifindex: self.ifindex, policy };
        let Versioned { old, new, since } = self.policy;
        Versioned { old: with_link(old), new: with_link(new), since }
    }

    /// The link has no versions: it is where the address is now.
    fn of(versions: Versioned<EndpointPolicy>) -> Self {
        let Versioned { old, new, since } = versions;
        let ifindex = if new.policy.flags == 0 { old.ifindex } else { new.ifindex };
        Self { ifindex, policy: Versioned { old: old.policy, new: new.policy, since } }
    }
}

/// Stored as they are desired.
impl<K, T: Absent<K>> Stored<K> for Versioned<T> {
    type Value = T;

    fn versions(&self) -> Self {
        *self
    }

    fn of(versions: Self) -> Self {
        versions
    }
}

impl<K> Absent<K> for EndpointPolicy {
    fn absent(_: &K, _: &dyn Fn(&K) -> Option<Self>) -> Self {
        Self::default()
    }

    fn says_nothing(&self) -> bool {
        self.policy.flags == 0
    }
}

/// Classes of single addresses, by address.
impl Absent<Addr> for ClassId {
    fn absent(_: &Addr, _: &dyn Fn(&Addr) -> Option<Self>) -> Self {
        class::ABSENT
    }

    fn says_nothing(&self) -> bool {
        *self == class::ABSENT
    }
}

/// Flags of links, by interface index.
impl Absent<u32> for u32 {
    fn absent(_: &u32, _: &dyn Fn(&u32) -> Option<Self>) -> Self {
        0
    }

    fn says_nothing(&self) -> bool {
        *self == 0
    }
}

/// Classes of address blocks: where a block has none, the next larger one says which.
impl Absent<Prefix<Block>> for ClassId {
    fn absent(key: &Prefix<Block>, others: &dyn Fn(&Prefix<Block>) -> Option<Self>) -> Self {
        let larger = (Block::FAMILY_BITS..key.len).rev().map(|len| shorten(*key, len));
        larger.into_iter().find_map(|block| others(&block)).unwrap_or(class::NONE)
    }

    /// Any class hides that of a larger block.
    fn says_nothing(&self) -> bool {
        false
    }
}

/// The first `len` bits of a block.
fn shorten(key: Prefix<Block>, len: u32) -> Prefix<Block> {
    let bits = len.saturating_sub(Block::FAMILY_BITS);
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    let addr = (u128::from_be_bytes(key.data.addr) & mask).to_be_bytes();
    Prefix { data: Block { addr, ..key.data }, len }
}
