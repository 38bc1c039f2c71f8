//! Policy: which connections are allowed, in a constant number of look-ups for each new flow.
//!
//! ```text
//! endpoints:  address        -> policy set of the pod there, and which directions it isolates
//! ip_class:   peer's address -> class        (cidr_class, by longest prefix, where that has no answer)
//! port_class: set, direction, protocol, port -> port class
//! verdicts:   set, direction, class, port class -> allowed, and by which rule; absent: not allowed
//! ```
//!
//! A *class* is one combination of all that the policies of this node's pods ask of a peer's address; a *port
//! class* is the same for the ports of one set and direction. Rules for every peer stand under
//! [`class::ANY`] only, so a verdict is asked for twice at most.
//!
//! **One switch for everything.** What a policy change alters in place is [`Versioned`]: old value, new value,
//! and the generation from which the new one counts. The agent writes all of them, and then raises
//! `State::generation`: a packet sees all of a change or nothing of it.

use crate::addr::Addr;
use crate::id::{ClassId, PolicyId, PolicySetId, PortClassId};

/// A value that changes together with others, when `State::generation` reaches `since`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Versioned<T> {
    /// In force before.
    pub old: T,
    /// In force from generation `since` on.
    pub new: T,
    /// Generation; compared in wrapping arithmetic.
    pub since: u32,
}

impl<T: Copy> Versioned<T> {
    /// The value in force at a generation.
    #[inline(always)]
    pub const fn at(&self, generation: u32) -> T {
        if generation.wrapping_sub(self.since) <= i32::MAX as u32 { self.new } else { self.old }
    }
}

/// Which way, seen from the pod whose policies are asked.
pub mod direction {
    /// To the pod.
    pub const INGRESS: u32 = 0;
    /// From the pod.
    pub const EGRESS: u32 = 1;
}

/// What is known of an address, part of the value of `endpoints`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Policy {
    /// Policies that are enforced, part of the key of `verdicts` and `port_class`. None allows nothing.
    pub set: PolicySetId,
    /// The same policies together with those that are only audited, if any are.
    pub audit: PolicySetId,
    /// See [`policy_flags`]. 0: as if there were no entry.
    pub flags: u32,
}

/// Bits of [`Policy::flags`], and values of `link_policy`.
pub mod policy_flags {
    /// What comes in must be allowed by [`super::Policy::set`].
    pub const ISOLATED_IN: u32 = 1;
    /// What goes out must be allowed by [`super::Policy::set`].
    pub const ISOLATED_OUT: u32 = 2;
    /// What comes in is also looked up in [`super::Policy::audit`].
    pub const AUDIT_IN: u32 = 4;
    /// What goes out is also looked up in [`super::Policy::audit`].
    pub const AUDIT_OUT: u32 = 8;
    /// A pod of this node that the agent knows. For a link: it leads to such a pod, whose addresses are known.
    pub const POD: u32 = 16;
    /// An address of this node: not subject to policy.
    pub const NODE: u32 = 32;
    /// Behind a pod link, but the agent does not know the pod yet.
    pub const PENDING: u32 = 64;
}

/// Value of `endpoints`; the key is an [`Addr`] of this node or of one of its pods.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Interface index of the pod's link. 0: not known (behind a bridge and silent so far), or no pod.
    pub ifindex: u32,
    /// Its policy.
    pub policy: Versioned<Policy>,
}

/// Class ids.
pub mod class {
    use crate::id::ClassId;

    /// Every peer: where rules without peers stand. No address has it.
    pub const ANY: ClassId = ClassId { id: 0 };
    /// Matches nothing that any rule asks for.
    pub const NONE: ClassId = ClassId { id: 1 };
    /// In `ip_class`: as if there were no entry, `cidr_class` is asked.
    pub const ABSENT: ClassId = ClassId { id: u32::MAX };
    /// The first number for a combination.
    pub const FIRST: ClassId = ClassId { id: 2 };
}

/// Port class of what no prefix in `port_class` covers: only rules without ports speak of it.
pub const OTHER_PORTS: PortClassId = PortClassId { id: 0 };

/// An address block as the key of `cidr_class` (behind its prefix length, which counts `family` too: 32 more
/// than in CIDR notation for IPv6, 32 + 96 more for IPv4).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// 4 or 6, as `::/0` does not cover IPv4.
    pub family: u32,
    /// [`Addr`] bytes, zero behind the prefix.
    pub addr: [u8; 16],
}

impl Block {
    /// Bits that come before the address.
    pub const FAMILY_BITS: u32 = 32;
    /// The whole key: one address.
    pub const FULL: u32 = Self::FAMILY_BITS + 128;

    /// The key that finds the class of an address.
    #[inline(always)]
    pub const fn of(addr: &Addr) -> Self {
        Self { family: if addr.is_v4() { 4 } else { 6 }, addr: addr.bytes }
    }
}

/// Ports as the key of `port_class` (behind its prefix length: [`Ports::FIXED_BITS`] and those of the port).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ports {
    /// [`Policy::set`].
    pub set: PolicySetId,
    /// See [`direction`].
    pub direction: u8,
    /// IP protocol number.
    pub proto: u8,
    /// Destination port, **network byte order**: a prefix is counted from the most significant bit.
    pub port: [u8; 2],
}

impl Ports {
    /// Bits that come before the port.
    pub const FIXED_BITS: u32 = 48;
    /// The whole key: one port.
    pub const FULL: u32 = Self::FIXED_BITS + 16;
}

/// A key of a map that is searched for the longest prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix<K> {
    /// What is matched, zero behind the prefix.
    pub data: K,
    /// Bits of `data` that count.
    pub len: u32,
}

/// Key of `verdicts`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerdictKey {
    /// [`Policy::set`].
    pub set: PolicySetId,
    /// See [`direction`].
    pub direction: u32,
    /// Class of the peer, or [`class::ANY`].
    pub class: ClassId,
    /// Port class of the destination port.
    pub ports: PortClassId,
}

/// Value of `verdicts`: allowed, by this rule. (The first one, where several allow it.)
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allow {
    /// Key of `policies`.
    pub policy: PolicyId,
    /// Index of the rule in the policy's list for this direction.
    pub rule: u32,
}

/// Key of `denials`: counts of what a set did not allow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DenialKey {
    /// [`Policy::set`], or [`Policy::audit`] if `audited`.
    pub set: PolicySetId,
    /// See [`direction`].
    pub direction: u16,
    /// 1: would have been denied if the audited policies were enforced.
    pub audited: u16,
}

/// What is put into `events` when something is denied, or would be.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC` in nanoseconds, exact to a timer tick.
    pub time: u64,
    /// The packet as policy sees it: source as sent, destination as translated.
    pub tuple: crate::tuple::Tuple,
    /// [`Policy::set`] (or [`Policy::audit`]) that did not allow it; none for verdicts of other kinds.
    pub set: PolicySetId,
    /// Interface index of the hook.
    pub ifindex: u32,
    /// Packets that were not reported on this CPU since the last event, because there were too many.
    pub suppressed: u32,
    /// See [`direction`].
    pub direction: u16,
    /// [`crate::verdict::Verdict`].
    pub verdict: u8,
    /// [`crate::verdict::Hook`].
    pub hook: u8,
}

/// Events on each CPU in each second, at most. The rest is counted only.
pub const EVENTS_PER_SECOND: u32 = 100;

const _: () = assert!(size_of::<Policy>() == 12);
const _: () = assert!(size_of::<Versioned<Policy>>() == 28);
const _: () = assert!(size_of::<Versioned<u32>>() == 12);
const _: () = assert!(size_of::<Versioned<ClassId>>() == 12);
const _: () = assert!(size_of::<Endpoint>() == 32);
const _: () = assert!(size_of::<Block>() == 20);
const _: () = assert!(size_of::<Ports>() == 8);
const _: () = assert!(size_of::<VerdictKey>() == 16);
const _: () = assert!(size_of::<Allow>() == 8);
const _: () = assert!(size_of::<DenialKey>() == 8);
const _: () = assert!(size_of::<Event>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_changes_with_its_generation() {
        let value = Versioned { old: 'a', new: 'b', since: 7 };
        assert_eq!([5, 6, 7, 8].map(|generation| value.at(generation)), ['a', 'a', 'b', 'b']);
        let wrapped = Versioned { old: 'a', new: 'b', since: 0 };
        assert_eq!([u32::MAX, 0, 1].map(|generation| wrapped.at(generation)), ['a', 'b', 'b']);
    }

    #[test]
    fn families_are_told_apart() {
        assert_eq!(Block::of(&Addr::v4([10, 0, 0, 1])).family, 4);
        assert_eq!(Block::of(&Addr::UNSPECIFIED).family, 6);
    }
}
