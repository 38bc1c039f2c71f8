//! Every pinned map of the object, in the order of `lbr_common::maps`, and the variables that the agent sets.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lbr_common::flow::{Flow, FragmentKey, FragmentPorts, SocketKey, SocketPeer};
use lbr_common::link::Link;
use lbr_common::maps as spec;
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, State};
use lbr_common::text::{RejectedRecord, ServiceName};
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Counter;

/// Large maps that are mostly empty: memory as they fill, not when they are made.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

#[btf_map(name = "frontends")]
pub(crate) static FRONTENDS: HashMap<FrontendKey, Frontend, { spec::FRONTENDS.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "slots")]
pub(crate) static SLOTS: HashMap<SlotKey, Slot, { spec::SLOTS.max_entries }, ON_DEMAND> = HashMap::new();

#[btf_map(name = "backends")]
pub(crate) static BACKENDS: HashMap<u32, Backend, { spec::BACKENDS.max_entries }, ON_DEMAND> = HashMap::new();

#[btf_map(name = "services")]
pub(crate) static SERVICES: HashMap<u32, ServiceName, { spec::SERVICES.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "rejected")]
pub(crate) static REJECTED: HashMap<u32, RejectedRecord, { spec::REJECTED.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "links")]
pub(crate) static LINKS: HashMap<u32, Link, { spec::LINKS.max_entries }, ON_DEMAND> = HashMap::new();

#[btf_map(name = "state")]
pub(crate) static STATE: Array<State, { spec::STATE.max_entries }> = Array::new();

#[btf_map(name = "flows")]
pub(crate) static FLOWS: LruHashMap<Tuple, Flow, { spec::FLOWS.max_entries }> = LruHashMap::new();

#[btf_map(name = "fragments")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, { spec::FRAGMENTS.max_entries }> =
    LruHashMap::new();

#[btf_map(name = "sockets")]
pub(crate) static SOCKETS: LruHashMap<SocketKey, SocketPeer, { spec::SOCKETS.max_entries }> =
    LruHashMap::new();

#[btf_map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<Counter, { spec::COUNTERS.max_entries }> = PerCpuArray::new();

/// See `lbr_common::maps::config`. Zero: no socket is translated.
#[unsafe(no_mangle)]
static NODE_NETNS: u64 = 0;

/// See `lbr_common::maps::config`.
#[unsafe(no_mangle)]
static HASH_SEED: u64 = 0;

/// Cookie of the node's network namespace.
#[inline(always)]
pub(crate) fn node_netns() -> u64 {
    // SAFETY: a valid static. Volatile, because the loader replaces the value that the compiler sees.
    unsafe { core::ptr::read_volatile(&raw const NODE_NETNS) }
}

/// Secret of the backend choice.
#[inline(always)]
pub(crate) fn hash_seed() -> u64 {
    // SAFETY: a valid static. Volatile, because the loader replaces the value that the compiler sees.
    unsafe { core::ptr::read_volatile(&raw const HASH_SEED) }
}

/// Number of the agent's last removal of a backend.
#[inline(always)]
pub(crate) fn epoch() -> u32 {
    STATE.get(0).map_or(0, |state| state.epoch)
}
