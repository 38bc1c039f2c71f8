//! The content of every map that the agent owns, as plain data: what `compile` makes and `reconcile` writes.

use std::collections::BTreeMap;

use lbr_common::policy::{Policy, Prefix};

use crate::model::ObjectName;
use crate::table::Stored;

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
