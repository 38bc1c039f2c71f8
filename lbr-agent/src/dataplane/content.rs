//! What the maps of the agent hold, as it is in the kernel, and what of it is in force.

use std::collections::BTreeMap;

use lbr_common::policy::{Prefix, Versioned};

use crate::desired::{Desired, key};
use crate::table::{Stored, in_force};

macro_rules! in_force {
    (staged $map:expr, $generation:expr) => {
        in_force(versions($map), $generation)
    };
    ($role:ident $map:expr, $generation:expr) => {
        $map
    };
}

macro_rules! settled {
    (staged $map:expr) => {
        settled($map)
    };
    ($role:ident $map:expr) => {
        $map
    };
}

macro_rules! content {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        /// The content of every map that the agent writes, with its versions.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Content {
            $($(#[$doc])* pub $field: BTreeMap<key!($shape $key), $value>,)*
        }

        impl Content {
            /// What is in force at a generation.
            pub fn in_force(self, generation: u32) -> Desired {
                Desired {
                    $($field: in_force!($role self.$field, generation),)*
                    health_ports: BTreeMap::new(),
                }
            }

            /// Maps in which this is in force at every generation.
            pub fn settled(desired: Desired) -> Self {
                Self { $($field: settled!($role desired.$field),)* }
            }
        }
    };
}
lbr_common::agent_maps!(content);

/// The entries with their versions.
fn versions<K, R: Stored<K>>(map: BTreeMap<K, R>) -> impl Iterator<Item = (K, Versioned<R::Value>)> {
    map.into_iter().map(|(key, raw)| (key, raw.versions()))
}

fn settled<K: Ord, R: Stored<K>>(map: BTreeMap<K, R::Value>) -> BTreeMap<K, R> {
    map.into_iter().map(|(key, value)| (key, R::settled(value))).collect()
}

#[cfg(test)]
mod tests {
    use lbr_common::addr::Addr;
    use lbr_common::id::ClassId;
    use lbr_common::policy::{Block, Endpoint, Policy, class, policy_flags};

    use crate::desired::EndpointPolicy;

    use super::*;

    const TWO: ClassId = ClassId { id: 2 };

    fn versioned<T>(old: T, new: T) -> Versioned<T> {
        Versioned { old, new, since: 5 }
    }

    fn addr(last: u8) -> Addr {
        Addr::v4([10, 0, 0, last])
    }

    #[test]
    fn endpoints_are_those_of_the_generation() {
        let pod = Policy { set: 3.into(), flags: policy_flags::POD, ..Policy::default() };
        let appears = Endpoint { ifindex: 7, policy: versioned(Policy::default(), pod) };
        let goes = Endpoint { ifindex: 8, policy: versioned(pod, Policy::default()) };
        let map = BTreeMap::from([(addr(1), appears), (addr(2), goes)]);
        let before = in_force(versions(map.clone()), 4);
        assert_eq!(before, BTreeMap::from([(addr(2), EndpointPolicy { ifindex: 8, policy: pod })]));
        let after = in_force(versions(map), 5);
        assert_eq!(after, BTreeMap::from([(addr(1), EndpointPolicy { ifindex: 7, policy: pod })]));
    }

    #[test]
    fn links_without_flags_are_left_out() {
        let map =
            BTreeMap::from([(1, versioned(0, policy_flags::POD)), (2, versioned(policy_flags::POD, 0))]);
        assert_eq!(in_force(versions(map.clone()), 4), BTreeMap::from([(2, policy_flags::POD)]));
        assert_eq!(in_force(versions(map), 5), BTreeMap::from([(1, policy_flags::POD)]));
    }

    #[test]
    fn absent_classes_are_left_out() {
        let map = BTreeMap::from([
            (addr(1), versioned(class::ABSENT, TWO)),
            (addr(2), versioned(TWO, class::ABSENT)),
        ]);
        assert_eq!(in_force(versions(map.clone()), 4), BTreeMap::from([(addr(2), TWO)]));
        assert_eq!(in_force(versions(map), 5), BTreeMap::from([(addr(1), TWO)]));
    }

    #[test]
    fn blocks_have_the_class_of_the_generation() {
        let block = Prefix { data: Block::of(&addr(0)), len: Block::FULL };
        let map = BTreeMap::from([(block, versioned(TWO, TWO.next()))]);
        assert_eq!(in_force(versions(map.clone()), 4), BTreeMap::from([(block, TWO)]));
        assert_eq!(in_force(versions(map), 5), BTreeMap::from([(block, TWO.next())]));
    }
}
