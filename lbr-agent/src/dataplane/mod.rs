//! The kernel side as the rest of the agent sees it: typed tables, and interfaces to attach programs to.
//!
//! Only this folder names aya. [`Kernel`] implements [`Dataplane`], and so does [`fake::Fake`], in memory and with writes that
//! fail; the same reconciler and the same scenarios run on both.

mod attach;
mod batch;
mod bpffs;
mod content;
mod epochs;
pub mod fake;
mod filters;
mod handles;
mod load;
mod owner;
mod pins;
mod programs;
mod read;
mod record;
mod remove;
pub mod requirements;
mod rights;
mod snat;
mod sockets;
mod stale_sockets;
mod tables;
mod xdp;

use std::collections::BTreeMap;

use lbr_common::id::BackendId;
use lbr_common::service::Backend;

pub use attach::{AttachMode, has_tcx};
pub use content::Content;
pub use epochs::Concerned;
pub use load::{Kernel, OBJECT, Options, object_hash};
pub use pins::DEFAULT as DEFAULT_BPFFS;
pub use read::{Attached, Count, Events, Fill, Pinned, Walk};
pub use record::write_report;
pub use remove::remove;
pub use snat::SnatPorts;
pub use sockets::find_cgroup2;
pub use tables::Tables;
pub use xdp::{XdpChoice, XdpMode};

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The map has no room: `E2BIG` from the kernel.
    #[error("map {map} is full ({max_entries} entries): raise its size with --map-max {map}=N")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Its size.
        max_entries: u32,
    },
    /// Anything else; worth another try.
    #[error("map {map}: {source}")]
    Io {
        /// Name of the map.
        map: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// One map that the agent owns.
pub trait Table<K, V> {
    /// Name of the map.
    fn name(&self) -> &'static str;
    /// How many entries fit.
    fn max_entries(&self) -> u32;
    /// Everything in it.
    fn entries(&self) -> Result<Vec<(K, V)>, WriteError>;
    /// Adds or replaces an entry.
    fn insert(&mut self, key: &K, value: &V) -> Result<(), WriteError>;
    /// Adds or replaces the first of these entries, with less effort than one by one. Returns how many: those that follow are
    /// to be inserted by themselves, which says what is wrong with them.
    fn insert_many(&mut self, _entries: &[(K, V)]) -> usize {
        0
    }
    /// Removes an entry; one that is not there is no error.
    fn remove(&mut self, key: &K) -> Result<(), WriteError>;
}

/// Hints that spare the programs a look-up: fields of [`lbr_common::service::State`] with the same names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Number of UDP frontends at the node's own addresses.
    pub udp_own_ports: u32,
    /// Bits of the addresses that only Services have.
    pub service_filter: u64,
    /// Bits of the ports of the node that are Services'.
    pub own_port_filter: u64,
}

/// The maps that the agent owns, and the interfaces that its programs are attached to.
pub trait Dataplane {
    /// All tables. Inserting an entry of `links` or `uplinks` also attaches the programs to that interface, unless they are
    /// attached (entry first); removing one detaches them. After a start the reconciler inserts every such entry again.
    fn tables(&mut self) -> Tables<'_>;
    /// Whether the programs are loaded. Until then no entry of `links` and `uplinks` can be inserted or removed.
    fn can_attach(&self) -> bool {
        true
    }
    /// Waits until the kernel has verified the programs, and replaces those of an earlier run. Returns their kernel ids. An
    /// error says that the kernel refuses one: nothing was replaced.
    fn attach_programs(&mut self) -> anyhow::Result<BTreeMap<String, u32>> {
        Ok(BTreeMap::new())
    }
    /// `state.generation`.
    fn generation(&mut self) -> Result<u32, WriteError>;
    /// Sets `state.generation`, and waits until all programs that have read the former one have ended.
    fn set_generation(&mut self, generation: u32) -> Result<(), WriteError>;
    /// Sets the hints in `state`.
    fn set_hints(&mut self, hints: Hints) -> Result<(), WriteError>;
    /// Raises `state.epoch` for these flows: the next packet of each checks whether its backend and its links are still
    /// there, and whether the policies still allow it.
    fn raise_epoch(&mut self, flows: &Concerned) -> Result<(), WriteError>;
    /// Aborts the connected UDP sockets of the node's processes that the programs connected to a backend that is not among
    /// these, the content of `backends`. Returns how many.
    fn abort_sockets(&mut self, backends: &BTreeMap<BackendId, Backend>) -> std::io::Result<usize>;
}
