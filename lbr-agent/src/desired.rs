//! The content of every map that the agent owns, as plain data: what `compile` makes and `reconcile` writes.

use std::collections::BTreeMap;

use lbr_common::addr::Addr;
use lbr_common::policy::{Block, Endpoint, Policy, Prefix, Versioned, class};

use crate::model::ObjectName;

/// The type of a row's keys: `Prefix` in a map that is searched for the longest one.
macro_rules! key {
    (hash $key:ty) => { $key };
    (lpm $key:ty) => { Prefix<$key> };
}
pub(crate) use key;

/// The value in a map with this role: what is desired has no versions.
macro_rules! wanted {
    (staged $key:ty, $value:ty) => {
        <$value as Stored<$key>>::Value
    };
    ($role:ident $key:ty, $value:ty) => {
        $value
    };
}

macro_rules! desired {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        /// Desired (or actual) content of the agent's maps, and what it listens on. Ordered, so that equal states are equal
        /// bytes.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Desired {
            $($(#[$doc])* pub $field: BTreeMap<key!($shape $key), wanted!($role key!($shape $key), $value)>,)*
            /// In no map: the health check ports that the agent listens on, by number.
            pub health_ports: BTreeMap<u16, HealthPort>,
        }
    };
}
lbr_common::agent_maps!(desired);

/// A health check port (`healthCheckNodePort`), by which load balancers find the nodes with endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// Its Service.
    pub service: ObjectName,
    /// How many of its ready endpoints are on this node.
    pub local_ready: usize,
}

/// An address of this node or of one of its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointPolicy {
    /// See [`lbr_common::policy::Endpoint::ifindex`].
    pub ifindex: u32,
    /// Its policy.
    pub policy: Policy,
}

/// The value of a map whose changes come into force together with those of other maps, at a generation.
pub trait Stored<K>: Copy {
    /// What is desired of it.
    type Value: Copy + PartialEq;
    /// Both values, and from which generation on the new one counts.
    fn versions(&self) -> Versioned<Self::Value>;
    /// The value in the map that has these versions.
    fn of(versions: Versioned<Self::Value>) -> Self;
    /// Whether this differs from an absent entry.
    fn says_something(value: &Self::Value) -> bool;

    /// The value in the map that is in force at every generation.
    fn settled(value: Self::Value) -> Self {
        Self::of(Versioned { old: value, new: value, since: 0 })
    }
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
        let link = if new.policy.flags == 0 { old.ifindex } else { new.ifindex };
        Self { ifindex: link, policy: Versioned { old: old.policy, new: new.policy, since } }
    }

    fn says_something(value: &EndpointPolicy) -> bool {
        value.policy.flags != 0
    }
}

/// By a key of this type: values that are stored as they are, and the one that stands for an absent entry.
macro_rules! stored_as_is {
    ($($(#[$doc:meta])* $key:ty, $absent:expr;)*) => {
        $($(#[$doc])* impl Stored<$key> for Versioned<u32> {
            type Value = u32;

            fn versions(&self) -> Self {
                *self
            }

            fn of(versions: Self) -> Self {
                versions
            }

            fn says_something(value: &u32) -> bool {
                *value != $absent
            }
        })*
    };
}

stored_as_is! {
    /// `ip_class`.
    Addr, class::ABSENT;
    /// `link_policy`: flags.
    u32, 0;
    /// `cidr_class`. An absent entry has the class of a larger block, so no class stands for it.
    Prefix<Block>, class::ABSENT;
}
