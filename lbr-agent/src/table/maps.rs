//! What the maps of each part should hold and what they hold: a field for each row of [`lbr_common::agent_maps`].

use std::collections::BTreeMap;

use lbr_common::maps;
use lbr_common::policy::Prefix;

use super::{Delta, Staged, Stored};
use crate::dataplane::{Table, Tables, WriteError};
use crate::desired::{Desired, key};

macro_rules! state {
    (staged $key:ty, $value:ty) => { Staged<$key, <$value as Stored<$key>>::Value> };
    ($role:ident $key:ty, $value:ty) => { Delta<$key, $value> };
}

macro_rules! load {
    (staged $table:expr) => {
        Staged::new(versions($table)?)
    };
    // An interface is entered before it is attached: the former agent may have ended in between.
    (attached $table:expr) => {
        Delta::doubtful(read(&*$table)?)
    };
    (plain $table:expr) => {
        Delta::new(read($table)?)
    };
}

macro_rules! actual {
    (staged $map:expr, $generation:expr) => {
        $map.actual($generation)
    };
    ($role:ident $map:expr, $generation:expr) => {
        $map.actual().clone()
    };
}

macro_rules! desired {
    (staged $map:expr) => {
        $map.desired().clone()
    };
    ($role:ident $map:expr) => {
        $map.desired().collect()
    };
}

macro_rules! pending {
    (staged $map:expr, $generation:expr) => {
        $map.pending($generation)
    };
    ($role:ident $map:expr, $generation:expr) => {
        $map.pending()
    };
}

macro_rules! maps {
    ($($part:ident { $($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)* })*) => {
        $(
            /// Desired and actual content of the maps of one part.
            #[derive(Debug, Default)]
            pub(crate) struct $part {
                $($(#[$doc])* pub(crate) $field: state!($role key!($shape $key), $value),)*
            }

            impl $part {
                /// Reads what the maps hold. Nothing is desired yet.
                pub(crate) fn load(tables: Tables<'_>) -> Result<Self, WriteError> {
                    Ok(Self { $($field: load!($role tables.$field),)* })
                }

                /// From now on the maps should hold their part of this, which is taken out of it.
                pub(crate) fn set_desired(&mut self, desired: &mut Desired) {
                    $(self.$field.set_desired(std::mem::take(&mut desired.$field));)*
                }

                /// Adds what the maps should hold.
                pub(crate) fn desired(&self, desired: &mut Desired) {
                    $(desired.$field = desired!($role self.$field);)*
                }

                /// Adds what the maps hold, as far as known, at a generation of the policies.
                pub(crate) fn actual(&self, _generation: u32, actual: &mut Desired) {
                    $(actual.$field = actual!($role self.$field, _generation);)*
                }

                /// How many entries each map has, as far as known.
                pub(crate) fn entries(&self) -> Vec<(&'static str, usize)> {
                    vec![$((maps::$spec.name, self.$field.len()),)*]
                }

                /// How many entries differ.
                pub(crate) fn pending(&self, _generation: u32) -> usize {
                    [$(pending!($role self.$field, _generation),)*].into_iter().sum()
                }
            }
        )*
    };
}
lbr_common::agent_maps!(by part: maps);

fn read<K: Ord, V>(table: &dyn Table<K, V>) -> Result<BTreeMap<K, V>, WriteError> {
    Ok(table.entries()?.into_iter().collect())
}

fn versions<K: Ord, R: Stored<K>>(
    table: &dyn Table<K, R>,
) -> Result<BTreeMap<K, lbr_common::policy::Versioned<R::Value>>, WriteError> {
    Ok(table.entries()?.into_iter().map(|(key, raw)| (key, raw.versions())).collect())
}
