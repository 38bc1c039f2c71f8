//! Frontends, slots and backends: what the agent writes and the programs read.
//!
//! Way of a new connection: `frontends` (address, port, protocol) gives a service id, a set and a count; a slot
//! below the count is chosen; `slots` gives a backend id; `backends` gives the address to translate to.

use crate::addr::Addr;
use crate::id::{BackendId, MaglevId, ServiceId};
use crate::tuple::Tuple;

/// Key of `frontends`: where clients send to.
///
/// Written by the agent, read by the programs. Port and protocol 0 with [`frontend_flags::WILDCARD`] stand
/// for the address as a whole: a port that has no frontend of its own is refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// The address that clients send to.
    pub addr: Addr,
    /// Port, host byte order; 0 for the address as a whole.
    pub port: u16,
    /// IP protocol number; 0 for the address as a whole.
    pub proto: u8,
    /// Which traffic it is for; see [`scope`].
    pub scope: u8,
    /// Always zero: part of a hash key.
    pub _pad: u32,
}

impl FrontendKey {
    /// The key of the entry for what comes by the wire.
    #[inline(always)]
    #[must_use]
    pub const fn by_wire(self) -> Self {
        Self { scope: scope::EXTERNAL, ..self }
    }
}

/// Values of [`FrontendKey::scope`].
pub mod scope {
    /// For every packet, wherever it comes from.
    pub const ANY: u8 = 0;
    /// For what comes by the wire, where [`super::frontend_flags::EXTERNAL_DIFFERS`] says that there is such an entry.
    pub const EXTERNAL: u8 = 1;
    /// For sockets of the node only: loopback addresses, and the unspecified one, which stands for all of them
    /// (`connect`) and which `bind` asks about. No packet may come in for these.
    pub const HOST_LOCAL: u8 = 2;
}

/// Bits of [`Frontend::flags`].
pub mod frontend_flags {
    /// Stands for a whole address: what has no frontend of its own there is refused.
    pub const WILDCARD: u32 = 1;
    /// Only backends on this node count (a Local traffic policy): without any, drop instead of refuse.
    pub const LOCAL_ONLY: u32 = 2;
    /// With [`WILDCARD`]: not a Service's as a whole (a ClusterIP is), so packets to other ports pass. Load balancers'
    /// addresses and external ones may be those of other nodes.
    pub const PASS_UNMATCHED: u32 = 4;
    /// What comes by the wire has an entry of its own, with [`super::scope::EXTERNAL`].
    pub const EXTERNAL_DIFFERS: u32 = 8;
    /// Only for clients whose address is in `source_ranges`.
    pub const RANGES: u32 = 16;
    /// The node itself is among these clients.
    pub const HOST_IN_RANGES: u32 = 32;
    /// Backends on other nodes answer clients themselves: see [`super::super::flow::flow_flags::DSR`].
    pub const DSR: u32 = 64;
    /// With [`DSR`]: see [`super::super::flow::flow_flags::DSR_IPIP`].
    pub const DSR_IPIP: u32 = 128;
    /// With [`WILDCARD`] and [`PASS_UNMATCHED`]: an address of this node.
    pub const HOST: u32 = 256;
    /// Nothing is led anywhere: it is there so that `bind` to all addresses learns that the port is taken at some of them.
    pub const BIND_ONLY: u32 = 512;
}

/// Values of [`Frontend::set`]: which of a service's backends.
pub mod set {
    /// Those that a traffic policy `Cluster` chooses from, on whatever node.
    pub const CLUSTER: u32 = 0;
    /// Those that a traffic policy `Local` chooses from: on this node.
    pub const LOCAL: u32 = 1;

    /// The bit of a set in [`super::Backend::sets`].
    #[inline(always)]
    pub const fn bit(set: u32) -> u8 {
        1 << (set & 7)
    }
}

/// Value of `frontends`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// Id of the Service port in one family, whatever its address: key of `services`, part of the keys of `slots`,
    /// `affinity` and `source_ranges`. None only with [`frontend_flags::WILDCARD`].
    pub service: ServiceId,
    /// Number of slots, `0..count`. Zero: refuse.
    pub count: u32,
    /// See [`frontend_flags`].
    pub flags: u32,
    /// Which slots: see [`set`].
    pub set: u32,
    /// Seconds for which a client comes back to the same backend; 0: each connection is spread anew.
    pub affinity: u32,
    /// Table in `maglev` that new connections are chosen by; none: they are spread over the slots.
    pub maglev: MaglevId,
}

impl Frontend {
    /// Key of one of its slots.
    #[inline(always)]
    pub const fn slot(&self, slot: u32) -> SlotKey {
        SlotKey { service: self.service, set: self.set, slot }
    }
}

/// Key of `slots`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// [`Frontend::service`].
    pub service: ServiceId,
    /// [`Frontend::set`].
    pub set: u32,
    /// Index below [`Frontend::count`].
    pub slot: u32,
}

/// Value of `slots`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Key of `backends`.
    pub backend: BackendId,
}

/// Value of `backends`. The key is a backend id: one for each (service, address, port), so that an id that
/// is still present means "still an endpoint of that service".
///
/// A backend that serves its last flows but takes no new ones stays here and is in no set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Address of the pod (or of the node, for a process in the host's network).
    pub addr: Addr,
    /// Interface index of the host side of the pod's veth if the node's route ends there: reached by
    /// `bpf_redirect_peer`. 0: reached through the stack.
    pub ifindex: u32,
    /// [`Frontend::service`] of the service it belongs to.
    pub service: ServiceId,
    /// Port, host byte order.
    pub port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// The sets in which it has a slot: see [`set::bit`]. 0: draining, it keeps its flows and takes no new ones
    /// (terminating but serving while others are ready).
    pub sets: u8,
    /// See [`backend_flags`].
    pub flags: u32,
}

/// Bits of [`Backend::flags`].
pub mod backend_flags {
    /// On this node: one of its pods, or a process of the node itself.
    pub const HERE: u32 = 1;
}

impl Backend {
    /// Whether packets that were translated to `to` reach this backend.
    #[inline(always)]
    pub fn leads_to(&self, to: &Tuple) -> bool {
        self.addr == to.dst && self.port == to.dst_port && self.proto == to.proto
    }
}

/// What went through a Service port, by its id: all clients whose packets or sockets are translated on this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Flows that began, and `connect` calls of processes of the node.
    pub connections: u64,
    /// Packets from clients. Those of processes of the node are not translated, and so not counted.
    pub request_packets: u64,
    /// Their bytes with the link header.
    pub request_bytes: u64,
    /// Packets to clients.
    pub response_packets: u64,
    /// Their bytes with the link header.
    pub response_bytes: u64,
}

/// Key of `affinity`: a client of a Service port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// Address of the client; unspecified for processes of the node.
    pub client: Addr,
    /// [`Frontend::service`].
    pub service: ServiceId,
    /// Always zero: part of a hash key.
    pub _pad: u32,
}

/// Value of `affinity`: where the client's last connection went.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Affinity {
    /// `CLOCK_MONOTONIC` in nanoseconds of its last new connection, exact to a timer tick.
    pub last_used: u64,
    /// Key of `backends`.
    pub backend: BackendId,
    /// Reserved, zero.
    pub _pad: u32,
}

/// Key of `source_ranges` (behind its prefix length: [`SourceRange::FIXED_BITS`] and those of the range): clients
/// that a frontend with [`frontend_flags::RANGES`] serves. The value has no meaning.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRange {
    /// [`Frontend::service`].
    pub service: ServiceId,
    /// Address of the client, IPv4 mapped.
    pub client: [u8; 16],
}

impl SourceRange {
    /// Bits that come before the address.
    pub const FIXED_BITS: u32 = 32;
    /// The whole key: one client.
    pub const FULL: u32 = Self::FIXED_BITS + 128;
}

/// Bits of the values of `peers`, whose keys are blocks ([`crate::policy::Block`]).
pub mod peer_flags {
    /// A node, or what lives on one. Its answers would not leave the node of a backend by the wire, so no backend answers
    /// it directly. Known only while a Service has direct server return.
    pub const IN_CLUSTER: u32 = 1;
    /// Another node: encapsulated packets are taken from such an address only.
    pub const NODE: u32 = 2;
}

/// The bit of an address in [`State::service_filter`]. All addresses of an IPv4 /16 or an IPv6 /48 share it.
#[inline(always)]
#[must_use]
pub const fn filter_bit(addr: &Addr) -> u64 {
    let b = &addr.bytes;
    let sum = if addr.is_v4() {
        b[12].wrapping_mul(31).wrapping_add(b[13])
    } else {
        b[0].wrapping_add(b[1])
            .wrapping_add(b[2].wrapping_mul(3))
            .wrapping_add(b[3].wrapping_mul(5))
            .wrapping_add(b[4].wrapping_mul(7))
            .wrapping_add(b[5].wrapping_mul(11))
    };
    1 << (sum & 63)
}

/// The bit of a port in [`State::own_port_filter`]: 1,024 ports share it, so that NodePorts, which are close together,
/// take few.
#[inline(always)]
#[must_use]
pub const fn port_bit(port: u16) -> u64 {
    1 << (port >> 10)
}

/// The only value of `state` (index 0): what changes at run time and concerns all packets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// [`crate::ABI_VERSION`] of the agent that made the maps.
    pub abi: u32,
    /// Raised by the agent after it changed a frontend, a backend, a link or policies, and after it noted the new number
    /// where that concerns flows ([`crate::epoch`]). A flow that was checked before looks once whether they are still
    /// there: datagrams of a backend that is gone move to a living one, and no packet is put into a link that is gone.
    pub epoch: u32,
    /// Raised by the agent when all of a policy change is written: see [`crate::policy::Versioned`]. A program
    /// reads `epoch` first, so a flow that carries the newest epoch was judged by the newest policies.
    pub generation: u32,
    /// How many frontends at the node's own addresses are for UDP. Without any, no datagram of the node can be mistaken
    /// for a Service's.
    pub udp_own_ports: u32,
    /// [`filter_bit`] of every address that only Services have, and of the blocks of `service_cidrs`: an address without
    /// its bit is none of them.
    pub service_filter: u64,
    /// [`port_bit`] of every port of the node that is a Service's.
    pub own_port_filter: u64,
    /// Secret of [`crate::select::hash`]; kept, so that a new agent chooses as the old one did.
    pub seed: u64,
    /// Secret of [`crate::maglev::hash`]: the same on all nodes.
    pub maglev_seed: u64,
}

const _: () = assert!(size_of::<FrontendKey>() == 24);
const _: () = assert!(size_of::<Frontend>() == 24);
const _: () = assert!(size_of::<SlotKey>() == 12);
const _: () = assert!(size_of::<AffinityKey>() == 24);
const _: () = assert!(size_of::<Affinity>() == 16);
const _: () = assert!(size_of::<SourceRange>() == 20);
const _: () = assert!(size_of::<Slot>() == 4);
const _: () = assert!(size_of::<Backend>() == 32);
const _: () = assert!(size_of::<Traffic>() == 40);
const _: () = assert!(size_of::<State>() == 48);
