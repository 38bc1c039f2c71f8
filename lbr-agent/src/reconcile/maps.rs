//! What every map should hold and what it holds: a field for each row of [`lbr_common::agent_maps`].

use std::collections::BTreeMap;

use lbr_common::maps;
use lbr_common::policy::Prefix;

use super::Delta;
use super::staged::Staged;
use crate::dataplane::{Dataplane, Table, WriteError};
use crate::desired::{Desired, Stored, key};

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

macro_rules! pending {
    (staged $map:expr, $generation:expr) => {
        $map.pending($generation)
    };
    ($role:ident $map:expr, $generation:expr) => {
        $map.pending()
    };
}

macro_rules! maps {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        /// Desired and actual content of all maps.
        #[derive(Debug)]
        pub(super) struct Maps {
            $($(#[$doc])* pub(super) $field: state!($role key!($shape $key), $value),)*
            /// Of the policies in force.
            pub(super) generation: u32,
        }

        impl Maps {
            /// Reads what the maps hold. Nothing is desired yet.
            pub(super) fn load(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
                let generation = dataplane.generation()?;
                let tables = dataplane.tables();
                Ok(Self { $($field: load!($role tables.$field),)* generation })
            }

            /// From now on the maps should hold this.
            pub(super) fn set_desired(&mut self, desired: Desired) {
                $(self.$field.set_desired(desired.$field);)*
            }

            /// What the maps hold, as far as known.
            pub(super) fn actual(&self) -> Desired {
                Desired {
                    $($field: actual!($role self.$field, self.generation),)*
                    health_ports: BTreeMap::new(),
                }
            }

            /// How many entries each map has, as far as known.
            pub(super) fn entries(&self) -> Vec<(&'static str, usize)> {
                vec![$((maps::$spec.name, self.$field.len()),)*]
            }

            /// How many entries differ.
            pub(super) fn pending(&self) -> usize {
                [$(pending!($role self.$field, self.generation),)*].into_iter().sum()
            }
        }
    };
}
lbr_common::agent_maps!(maps);

fn read<K: Ord, V>(table: &dyn Table<K, V>) -> Result<BTreeMap<K, V>, WriteError> {
    Ok(table.entries()?.into_iter().collect())
}

fn versions<K: Ord, R: Stored<K>>(
    table: &dyn Table<K, R>,
) -> Result<BTreeMap<K, lbr_common::policy::Versioned<R::Value>>, WriteError> {
    Ok(table.entries()?.into_iter().map(|(key, raw)| (key, raw.versions())).collect())
}
