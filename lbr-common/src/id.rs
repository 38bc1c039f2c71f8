//! Numbers that the agent hands out: a type for each kind, since a backend's number in a Service's place would compile
//! otherwise, and lead packets astray.
//!
//! In memory and in maps each is a `u32`. The field has a name, so that `bpftool` prints `"service": {"id": 3}`.

use core::fmt::{Display, Formatter, Result};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[repr(transparent)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name {
                /// The number.
                pub id: u32,
            }

            impl $name {
                /// The next number: where a range of keys with this one ends.
                #[must_use]
                pub const fn next(self) -> Self {
                    Self { id: self.id.wrapping_add(1) }
                }
            }

            impl From<u32> for $name {
                fn from(id: u32) -> Self {
                    Self { id }
                }
            }

            impl From<$name> for u32 {
                fn from(id: $name) -> Self {
                    id.id
                }
            }

            impl Display for $name {
                fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                    self.id.fmt(f)
                }
            }

            const _: () = assert!(size_of::<$name>() == 4 && align_of::<$name>() == 4);
        )*
    };
}

ids! {
    /// A Service port in one family, whatever its addresses: key of `services` and `traffic`.
    ServiceId;
    /// An endpoint of a Service port, by its address and port: key of `backends`.
    BackendId;
    /// A table of consistent hashing: see [`crate::maglev`].
    MaglevId;
    /// The policies that select a pod, together: pods that the same ones select share it.
    PolicySetId;
    /// A NetworkPolicy: key of `policies`.
    PolicyId;
    /// A class of peers: key of `classes`. For those that are no combination, see [`crate::policy::class`].
    ClassId;
    /// A class of the ports of one policy set and direction; [`crate::policy::OTHER_PORTS`] is in all of them.
    PortClassId;
}

/// Kinds whose 0 stands for none of them.
macro_rules! none {
    ($($name:ident),*) => {
        $(impl $name {
            /// None of them.
            pub const NONE: Self = Self { id: 0 };

            /// Whether it is [`Self::NONE`].
            #[inline(always)]
            #[must_use]
            pub const fn is_none(self) -> bool {
                self.id == 0
            }

            /// Whether it is not.
            #[inline(always)]
            #[must_use]
            pub const fn is_some(self) -> bool {
                self.id != 0
            }
        })*
    };
}

none!(ServiceId, BackendId, MaglevId, PolicySetId);
