//! Every pinned map of the object, from the rows of `lbr_common::maps`, and the variables that the agent sets.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use lbr_common::addr::Addr;
use lbr_common::conntrack::Timeouts;
use lbr_common::maps as spec;
use lbr_common::maps::config::options;
use lbr_common::service::{filter_bit, port_bit};

/// Large maps that are mostly empty: memory as they fill, not when they are made.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// The type of a map.
macro_rules! map {
    (hash $key:ty, $value:ty, $size:expr, $flags:expr) => { HashMap<$key, $value, $size, $flags> };
    (lpm $key:ty, $value:ty, $size:expr, $flags:expr) => { LpmTrie<$key, $value, $size> };
    (array $key:ty, $value:ty, $size:expr, $flags:expr) => { Array<$value, $size> };
    (lru_hash $key:ty, $value:ty, $size:expr, $flags:expr) => { LruHashMap<$key, $value, $size> };
    (per_cpu_array $key:ty, $value:ty, $size:expr, $flags:expr) => { PerCpuArray<$value, $size> };
    (lru_per_cpu_hash $key:ty, $value:ty, $size:expr, $flags:expr) => { LruPerCpuHashMap<$key, $value, $size> };
    (ring $key:ty, $value:ty, $size:expr, $flags:expr) => { RingBuf<$value, $size> };
}

macro_rules! agent_statics {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:tt: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        $(
            $(#[$doc])*
            #[btf_map(name = $name)]
            pub(crate) static $spec: map!($shape $key, $value, { spec::$spec.max_entries }, ON_DEMAND) =
                <map!($shape $key, $value, { spec::$spec.max_entries }, ON_DEMAND)>::new();
        )*
    };
}
lbr_common::agent_maps!(agent_statics);

macro_rules! kernel_statics {
    ($($(#[$doc:meta])* $spec:ident $name:tt: $shape:ident [$key:ty, $value:ty] $size:expr;)*) => {
        $(
            $(#[$doc])*
            #[btf_map(name = $name)]
            pub(crate) static $spec: map!($shape $key, $value, { spec::$spec.max_entries }, 0) =
                <map!($shape $key, $value, { spec::$spec.max_entries }, 0)>::new();
        )*
    };
}
lbr_common::kernel_maps!(kernel_statics);

/// See `lbr_common::maps::config`. Zero: no socket is translated.
#[unsafe(no_mangle)]
static NODE_NETNS: u64 = 0;

/// See `lbr_common::maps::config`.
#[unsafe(no_mangle)]
static HASH_SEED: u64 = 0;

/// See `lbr_common::maps::config`.
#[unsafe(no_mangle)]
static SNAT_RANGES: [[u16; 2]; 4] = [[0, 1], [0, 0], [0, 0], [0, 0]];

/// See `lbr_common::maps::config`.
#[unsafe(no_mangle)]
static SNAT_TAKEN: [u64; 1 << 10] = [0; 1 << 10];

/// See `lbr_common::maps::config`.
#[unsafe(no_mangle)]
static RING_SLOTS: u32 = 1;

/// See `lbr_common::maps::config`.
#[unsafe(no_mangle)]
static TIMEOUTS: Timeouts = Timeouts::DEFAULT;

/// See `lbr_common::maps::config`.
#[unsafe(no_mangle)]
static OPTIONS: u32 = 0;

/// See `lbr_common::maps::config`.
#[unsafe(no_mangle)]
static ABILITIES: u32 = 0;

/// Whether the kernel has this: a bit of `lbr_common::maps::config::abilities`.
#[inline(always)]
pub(crate) fn has(ability: u32) -> bool {
    // SAFETY: a valid static. Volatile, because the loader replaces the value that the compiler sees.
    unsafe { core::ptr::read_volatile(&raw const ABILITIES) & ability != 0 }
}

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

/// Secret of the choice by table.
#[inline(always)]
pub(crate) fn maglev_seed() -> u64 {
    STATE.get(0).map_or(0, |state| state.maglev_seed)
}

/// The port number `n`, modulo their count, of those that stand in for clients' ports.
#[inline(always)]
pub(crate) fn snat_port(n: u32) -> u16 {
    // SAFETY: a valid static. Volatile, because the loader replaces the value that the compiler sees.
    let ranges = unsafe { core::ptr::read_volatile(&raw const SNAT_RANGES) };
    let [[a, a_len], [b, b_len], [c, c_len], [d, d_len]] = ranges;
    let count = u32::from(a_len) + u32::from(b_len) + u32::from(c_len) + u32::from(d_len);
    let mut n = (n % count.max(1)) as u16;
    for (first, len) in [(a, a_len), (b, b_len), (c, c_len)] {
        if n < len {
            return first + n;
        }
        n -= len;
    }
    d + n
}

/// Whether a socket of the node used a port when the agent started.
#[inline(always)]
pub(crate) fn is_socket_port(port: u16) -> bool {
    // SAFETY: a valid static, and the index is below its length. Volatile, because the loader replaces the value.
    let word = unsafe {
        core::ptr::read_volatile((&raw const SNAT_TAKEN).cast::<u64>().add(usize::from(port >> 6)))
    };
    word >> (port & 63) & 1 != 0
}

/// Whether a port of the node may be a Service's.
#[inline(always)]
pub(crate) fn may_be_own_port(port: u16) -> bool {
    STATE.get(0).is_some_and(|state| state.own_port_filter & port_bit(port) != 0)
}

/// How many slots of `unconfirmed` each CPU has.
#[inline(always)]
pub(crate) fn ring_slots() -> u32 {
    // SAFETY: a valid static. Volatile, because the loader replaces the value that the compiler sees.
    unsafe { core::ptr::read_volatile(&raw const RING_SLOTS) }
}

/// Whether an address may be one that only Services have.
#[inline(always)]
pub(crate) fn may_be_service(addr: &Addr) -> bool {
    STATE.get(0).is_some_and(|state| state.service_filter & filter_bit(addr) != 0)
}

/// Lifetimes of flows.
#[inline(always)]
pub(crate) fn timeouts() -> Timeouts {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const TIMEOUTS) }
}

/// Whether a Service has a UDP port of the node.
#[inline(always)]
pub(crate) fn has_udp_own_ports() -> bool {
    STATE.get(0).is_some_and(|state| state.udp_own_ports != 0)
}

/// Whether pods that the agent does not know yet are cut off.
#[inline(always)]
pub(crate) fn denies_pending() -> bool {
    option(options::DENY_PENDING)
}

/// Whether a source address must belong to its link.
#[inline(always)]
pub(crate) fn checks_source() -> bool {
    !option(options::ANY_SOURCE)
}

/// Whether flows are judged once only.
#[inline(always)]
pub(crate) fn keeps_established() -> bool {
    option(options::KEEP_ESTABLISHED)
}

#[inline(always)]
fn option(bit: u32) -> bool {
    // SAFETY: a valid static. Volatile, because the loader replaces the value that the compiler sees.
    unsafe { core::ptr::read_volatile(&raw const OPTIONS) & bit != 0 }
}

/// Number of the policies that are in force.
#[inline(always)]
pub(crate) fn generation() -> u32 {
    STATE.get(0).map_or(0, |state| state.generation)
}

/// Number of the last change that flows have to look at.
#[inline(always)]
pub(crate) fn epoch() -> u32 {
    STATE.get(0).map_or(0, |state| state.epoch)
}
