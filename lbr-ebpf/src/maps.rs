//! Every pinned map of the object, in the order of `lbr_common::maps`, and the variables that the agent sets.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use lbr_common::addr::Addr;
use lbr_common::conntrack::Timeouts;
use lbr_common::flow::{Flow, FragmentKey, FragmentPorts, SocketKey, SocketPeer};
use lbr_common::link::{Link, Uplink};
use lbr_common::maglev::{MaglevKey, MaglevPart};
use lbr_common::maps as spec;
use lbr_common::maps::config::options;
use lbr_common::policy::{Allow, Block, DenialKey, Endpoint, Event, Ports, VerdictKey, Versioned};
use lbr_common::service::{
    Affinity, AffinityKey, Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange, State, Traffic,
    filter_bit, port_bit,
};
use lbr_common::text::{
    ClassRecord, Member, MemberKey, PodName, PolicyRecord, RejectedRecord, RuleKey, RuleText, ServiceName,
};
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

#[btf_map(name = "maglev")]
pub(crate) static MAGLEV: HashMap<MaglevKey, MaglevPart, { spec::MAGLEV.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "services")]
pub(crate) static SERVICES: HashMap<u32, ServiceName, { spec::SERVICES.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "rejected")]
pub(crate) static REJECTED: HashMap<u32, RejectedRecord, { spec::REJECTED.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "endpoints")]
pub(crate) static ENDPOINTS: HashMap<Addr, Endpoint, { spec::ENDPOINTS.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "link_policy")]
pub(crate) static LINK_POLICY: HashMap<u32, Versioned<u32>, { spec::LINK_POLICY.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "ip_class")]
pub(crate) static IP_CLASS: HashMap<Addr, Versioned<u32>, { spec::IP_CLASS.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "cidr_class")]
pub(crate) static CIDR_CLASS: LpmTrie<Block, Versioned<u32>, { spec::CIDR_CLASS.max_entries }> =
    LpmTrie::new();

#[btf_map(name = "port_class")]
pub(crate) static PORT_CLASS: LpmTrie<Ports, u32, { spec::PORT_CLASS.max_entries }> = LpmTrie::new();

#[btf_map(name = "verdicts")]
pub(crate) static VERDICTS: HashMap<VerdictKey, Allow, { spec::VERDICTS.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "policies")]
pub(crate) static POLICIES: HashMap<u32, PolicyRecord, { spec::POLICIES.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "rules")]
pub(crate) static RULES: HashMap<RuleKey, RuleText, { spec::RULES.max_entries }, ON_DEMAND> = HashMap::new();

#[btf_map(name = "set_members")]
pub(crate) static SET_MEMBERS: HashMap<MemberKey, Member, { spec::SET_MEMBERS.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "classes")]
pub(crate) static CLASSES: HashMap<u32, ClassRecord, { spec::CLASSES.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "pod_names")]
pub(crate) static POD_NAMES: HashMap<Addr, PodName, { spec::POD_NAMES.max_entries }, ON_DEMAND> =
    HashMap::new();

#[btf_map(name = "links")]
pub(crate) static LINKS: HashMap<u32, Link, { spec::LINKS.max_entries }, ON_DEMAND> = HashMap::new();

#[btf_map(name = "uplinks")]
pub(crate) static UPLINKS: HashMap<u32, Uplink, { spec::UPLINKS.max_entries }, ON_DEMAND> = HashMap::new();

#[btf_map(name = "source_ranges")]
pub(crate) static SOURCE_RANGES: LpmTrie<SourceRange, u32, { spec::SOURCE_RANGES.max_entries }> =
    LpmTrie::new();

#[btf_map(name = "service_cidrs")]
pub(crate) static SERVICE_CIDRS: LpmTrie<Block, u32, { spec::SERVICE_CIDRS.max_entries }> = LpmTrie::new();

#[btf_map(name = "state")]
pub(crate) static STATE: Array<State, { spec::STATE.max_entries }> = Array::new();

#[btf_map(name = "flows")]
pub(crate) static FLOWS: LruHashMap<Tuple, Flow, { spec::FLOWS.max_entries }> = LruHashMap::new();

#[btf_map(name = "unconfirmed")]
pub(crate) static UNCONFIRMED: Array<Tuple, { spec::UNCONFIRMED.max_entries }> = Array::new();

#[btf_map(name = "claims")]
pub(crate) static CLAIMS: HashMap<Tuple, u32, { spec::CLAIMS.max_entries }> = HashMap::new();

#[btf_map(name = "fragments")]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts, { spec::FRAGMENTS.max_entries }> =
    LruHashMap::new();

#[btf_map(name = "sockets")]
pub(crate) static SOCKETS: LruHashMap<SocketKey, SocketPeer, { spec::SOCKETS.max_entries }> =
    LruHashMap::new();

#[btf_map(name = "affinity")]
pub(crate) static AFFINITY: LruHashMap<AffinityKey, Affinity, { spec::AFFINITY.max_entries }> =
    LruHashMap::new();

#[btf_map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<Counter, { spec::COUNTERS.max_entries }> = PerCpuArray::new();

#[btf_map(name = "traffic")]
pub(crate) static TRAFFIC: LruPerCpuHashMap<u32, Traffic, { spec::TRAFFIC.max_entries }> =
    LruPerCpuHashMap::new();

#[btf_map(name = "denials")]
pub(crate) static DENIALS: LruPerCpuHashMap<DenialKey, Counter, { spec::DENIALS.max_entries }> =
    LruPerCpuHashMap::new();

#[btf_map(name = "events")]
pub(crate) static EVENTS: RingBuf<Event, { spec::EVENTS.max_entries }> = RingBuf::new();

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
