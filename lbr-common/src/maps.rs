//! Every map by name: who writes it and how large it is. Sizes can be set by flags of the agent.

/// Who may write a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The agent; programs only read.
    Agent,
    /// The programs; the agent only reads.
    Kernel,
}

/// One map: its name in the kernel, under the pin folder and on the command line.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec {
    /// At most 15 bytes (`BPF_OBJ_NAME_LEN`).
    pub name: &'static str,
    /// Entries, unless a flag says otherwise.
    pub max_entries: usize,
    /// Who writes it.
    pub writer: Writer,
}

const fn spec(name: &'static str, max_entries: usize, writer: Writer) -> MapSpec {
    assert!(name.len() <= 15);
    MapSpec { name, max_entries, writer }
}

/// [`crate::service::FrontendKey`] → [`crate::service::Frontend`], hash.
pub const FRONTENDS: MapSpec = spec("frontends", 131_072, Writer::Agent);
/// [`crate::service::SlotKey`] → [`crate::service::Slot`], hash.
pub const SLOTS: MapSpec = spec("slots", 524_288, Writer::Agent);
/// Backend id → [`crate::service::Backend`], hash.
pub const BACKENDS: MapSpec = spec("backends", 524_288, Writer::Agent);
/// Service id → [`crate::text::ServiceName`], hash. For people; no program reads it.
pub const SERVICES: MapSpec = spec("services", 131_072, Writer::Agent);
/// Number → [`crate::text::RejectedRecord`], hash. For people; no program reads it.
pub const REJECTED: MapSpec = spec("rejected", 1_024, Writer::Agent);
/// Interface index → [`crate::link::Link`], hash.
pub const LINKS: MapSpec = spec("links", 4_096, Writer::Agent);
/// 0 → [`crate::service::State`], array.
pub const STATE: MapSpec = spec("state", 1, Writer::Agent);
/// [`crate::tuple::Tuple`] → [`crate::flow::Flow`], LRU hash; two entries for each connection.
pub const FLOWS: MapSpec = spec("flows", 262_144, Writer::Kernel);
/// [`crate::flow::FragmentKey`] → [`crate::flow::FragmentPorts`], LRU hash.
pub const FRAGMENTS: MapSpec = spec("fragments", 16_384, Writer::Kernel);
/// [`crate::flow::SocketKey`] → [`crate::flow::SocketPeer`], LRU hash.
pub const SOCKETS: MapSpec = spec("sockets", 65_536, Writer::Kernel);
/// [`crate::verdict::counter_index`] → [`crate::verdict::Counter`], per-CPU array.
pub const COUNTERS: MapSpec = spec("counters", crate::verdict::COUNTERS as usize, Writer::Kernel);
/// 0 → what a program works on now (`Scratch` of the kernel object), per-CPU array. Nobody else reads it.
pub const SCRATCH: MapSpec = spec("scratch", 1, Writer::Kernel);

/// Every map that is pinned: all but the work space, which has nothing to keep.
pub const PINNED: [MapSpec; 11] =
    [FRONTENDS, SLOTS, BACKENDS, SERVICES, REJECTED, LINKS, STATE, FLOWS, FRAGMENTS, SOCKETS, COUNTERS];

/// Names of the read-only variables that the agent sets when it loads the object.
pub mod config {
    /// `u64`: cookie of the network namespace whose sockets are translated (`SO_NETNS_COOKIE`).
    pub const NODE_NETNS: &str = "NODE_NETNS";
    /// `u64`: secret of [`crate::select::hash`].
    pub const HASH_SEED: &str = "HASH_SEED";
}
