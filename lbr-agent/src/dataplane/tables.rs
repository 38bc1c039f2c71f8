//! The maps that the agent writes, as typed tables: a field for each row of [`lbr_common::agent_maps`].

use std::cell::RefCell;

use lbr_common::maps;
use lbr_common::policy::Prefix;

use super::Table;
use super::attach::Attacher;
use super::handles::{AttachedTable, LpmTable, MapTable};
use super::pins::Pins;
use crate::desired::key;

/// A table as a field of [`Tables`]: one whose entries are attached is made for the time of its use.
macro_rules! borrowed {
    (attached $lifetime:lifetime $key:ty, $value:ty) => { Box<dyn Table<$key, $value> + $lifetime> };
    ($role:ident $lifetime:lifetime $key:ty, $value:ty) => { &$lifetime mut dyn Table<$key, $value> };
}

macro_rules! handle {
    (hash $key:ty, $value:ty) => { MapTable<$key, $value> };
    (lpm $key:ty, $value:ty) => { LpmTable<$key, $value> };
}

macro_rules! borrow {
    (attached $table:expr, $attacher:ident) => {
        Box::new(AttachedTable::new(&mut $table, $attacher))
    };
    ($role:ident $table:expr, $attacher:ident) => {
        &mut $table
    };
}

macro_rules! tables {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        /// Every map that the agent writes, each by itself.
        pub struct Tables<'a> {
            $($(#[$doc])* pub $field: borrowed!($role 'a key!($shape $key), $value),)*
        }

        /// The same in the kernel.
        pub(super) struct KernelTables {
            $($field: handle!($shape $key, $value),)*
        }

        impl KernelTables {
            /// Opens them.
            pub(super) fn open(pins: &Pins) -> anyhow::Result<Self> {
                Ok(Self { $($field: <handle!($shape $key, $value)>::open(pins, &maps::$spec)?,)* })
            }

            pub(super) fn borrow<'a>(&'a mut self, attacher: &'a RefCell<Option<Attacher>>) -> Tables<'a> {
                Tables { $($field: borrow!($role self.$field, attacher),)* }
            }
        }
    };
}
lbr_common::agent_maps!(tables);
