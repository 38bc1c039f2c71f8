//! Every map by name: its writer and its size. Flags of the agent set sizes.

/// Which side writes a map.
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
    /// Which side writes it.
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
/// [`crate::maglev::MaglevKey`] → [`crate::maglev::MaglevPart`], hash. Room for 64 tables, and for as many that take
/// their places: memory (about 290 KiB for each) is used by those that are there only.
pub const MAGLEV: MapSpec = spec("maglev", crate::maglev::PARTS as usize * 2 * 64, Writer::Agent);
/// Service id → [`crate::text::ServiceName`], hash. For people; no program reads it.
pub const SERVICES: MapSpec = spec("services", 131_072, Writer::Agent);
/// Number → [`crate::text::RejectedRecord`], hash. For people; no program reads it.
pub const REJECTED: MapSpec = spec("rejected", 1_024, Writer::Agent);
/// [`crate::addr::Addr`] → [`crate::policy::Endpoint`], hash.
pub const ENDPOINTS: MapSpec = spec("endpoints", 16_384, Writer::Agent);
/// Interface index → [`crate::policy::Versioned`] of [`crate::policy::policy_flags`], hash.
pub const LINK_POLICY: MapSpec = spec("link_policy", 4_096, Writer::Agent);
/// [`crate::addr::Addr`] → [`crate::policy::Versioned`] class, hash.
pub const IP_CLASS: MapSpec = spec("ip_class", 262_144, Writer::Agent);
/// [`crate::policy::Block`] → [`crate::policy::Versioned`] class, LPM trie.
pub const CIDR_CLASS: MapSpec = spec("cidr_class", 65_536, Writer::Agent);
/// [`crate::policy::Ports`] → port class, LPM trie.
pub const PORT_CLASS: MapSpec = spec("port_class", 262_144, Writer::Agent);
/// [`crate::policy::VerdictKey`] → [`crate::policy::Allow`], hash.
pub const VERDICTS: MapSpec = spec("verdicts", 1_048_576, Writer::Agent);
/// Policy id → [`crate::text::PolicyRecord`], hash. For people; no program reads it.
pub const POLICIES: MapSpec = spec("policies", 65_536, Writer::Agent);
/// [`crate::text::RuleKey`] → [`crate::text::RuleText`], hash. For people; no program reads it.
pub const RULES: MapSpec = spec("rules", 131_072, Writer::Agent);
/// [`crate::text::MemberKey`] → [`crate::text::Member`], hash. For people; no program reads it.
pub const SET_MEMBERS: MapSpec = spec("set_members", 262_144, Writer::Agent);
/// Class id → [`crate::text::ClassRecord`], hash. For people; no program reads it.
pub const CLASSES: MapSpec = spec("classes", 65_536, Writer::Agent);
/// [`crate::addr::Addr`] → [`crate::text::PodName`], hash. For people; no program reads it.
pub const POD_NAMES: MapSpec = spec("pod_names", 262_144, Writer::Agent);
/// Interface index → [`crate::link::Link`], hash.
pub const LINKS: MapSpec = spec("links", 4_096, Writer::Agent);
/// Interface index → [`crate::link::Uplink`], hash.
pub const UPLINKS: MapSpec = spec("uplinks", 64, Writer::Agent);
/// [`crate::service::SourceRange`] → `u32` without meaning, LPM trie.
pub const SOURCE_RANGES: MapSpec = spec("source_ranges", 65_536, Writer::Agent);
/// [`crate::policy::Block`] → `u32` without meaning, LPM trie: the blocks that ClusterIPs come from. What is sent to
/// an address there that no Service has ends here.
pub const SERVICE_CIDRS: MapSpec = spec("service_cidrs", 64, Writer::Agent);
/// 0 → [`crate::service::State`], array.
pub const STATE: MapSpec = spec("state", 1, Writer::Agent);
/// [`crate::tuple::Tuple`] → [`crate::flow::Flow`], LRU hash; two entries for each connection.
pub const FLOWS: MapSpec = spec("flows", 262_144, Writer::Kernel);
/// Slot → [`crate::tuple::Tuple`] of a flow's original direction, array: a ring for each CPU of the flows that began there
/// last. One that is still not assured when its slot is needed again gives way, so a flood of first packets evicts only
/// its like, and most of `flows` is for assured connections. A quarter of `flows`, unless a flag says otherwise.
pub const UNCONFIRMED: MapSpec = spec("unconfirmed", 65_536, Writer::Kernel);
/// [`crate::tuple::Tuple`] → index of the interface that the packet is at, hash: reply entries of flows that give way, which
/// a CPU is giving to another flow at this moment.
pub const CLAIMS: MapSpec = spec("claims", 1_024, Writer::Kernel);
/// [`crate::flow::FragmentKey`] → [`crate::flow::FragmentPorts`], LRU hash.
pub const FRAGMENTS: MapSpec = spec("fragments", 16_384, Writer::Kernel);
/// [`crate::flow::SocketKey`] → [`crate::flow::SocketPeer`], LRU hash.
pub const SOCKETS: MapSpec = spec("sockets", 65_536, Writer::Kernel);
/// [`crate::service::AffinityKey`] → [`crate::service::Affinity`], LRU hash.
pub const AFFINITY: MapSpec = spec("affinity", 65_536, Writer::Kernel);
/// [`crate::verdict::counter_index`] → [`crate::verdict::Counter`], per-CPU array.
pub const COUNTERS: MapSpec = spec("counters", crate::verdict::COUNTERS as usize, Writer::Kernel);
/// Service id → [`crate::service::Traffic`], per-CPU LRU hash: the Services that are used.
pub const TRAFFIC: MapSpec = spec("traffic", 8_192, Writer::Kernel);
/// [`crate::policy::DenialKey`] → [`crate::verdict::Counter`], per-CPU LRU hash.
pub const DENIALS: MapSpec = spec("denials", 65_536, Writer::Kernel);
/// Ring buffer of [`crate::policy::Event`]; its size is in bytes, a power of two and of whole pages.
pub const EVENTS: MapSpec = spec("events", 262_144, Writer::Kernel);
/// 0 → what a program works on now (`Scratch` of the kernel object), per-CPU array. Only the programs use it.
pub const SCRATCH: MapSpec = spec("scratch", 1, Writer::Kernel);

/// Every map that is pinned: all but the work space, which has nothing to keep.
pub const PINNED: [MapSpec; 32] = [
    FRONTENDS,
    SLOTS,
    BACKENDS,
    MAGLEV,
    SERVICES,
    REJECTED,
    ENDPOINTS,
    LINK_POLICY,
    IP_CLASS,
    CIDR_CLASS,
    PORT_CLASS,
    VERDICTS,
    POLICIES,
    RULES,
    SET_MEMBERS,
    CLASSES,
    POD_NAMES,
    LINKS,
    UPLINKS,
    SOURCE_RANGES,
    SERVICE_CIDRS,
    STATE,
    FLOWS,
    UNCONFIRMED,
    CLAIMS,
    FRAGMENTS,
    SOCKETS,
    AFFINITY,
    COUNTERS,
    TRAFFIC,
    DENIALS,
    EVENTS,
];

/// Names of the read-only variables that the agent sets when it loads the object.
pub mod config {
    /// `u64`: cookie of the network namespace whose sockets are translated (`SO_NETNS_COOKIE`).
    pub const NODE_NETNS: &str = "NODE_NETNS";
    /// `u64`: secret of [`crate::select::hash`].
    pub const HASH_SEED: &str = "HASH_SEED";
    /// `[[u16; 2]; 4]`: ranges of source ports for clients whose backend is on another node: first port, and how many.
    pub const SNAT_RANGES: &str = "SNAT_RANGES";
    /// `[u64; 1024]`: a bit for each port, set for those among them that a socket of the node uses.
    pub const SNAT_TAKEN: &str = "SNAT_TAKEN";
    /// `u32`: how many slots of `unconfirmed` each CPU has; never 0.
    pub const RING_SLOTS: &str = "RING_SLOTS";
    /// [`crate::conntrack::Timeouts`].
    pub const TIMEOUTS: &str = "TIMEOUTS";
    /// `u32`: bits of [`options`].
    pub const OPTIONS: &str = "OPTIONS";
    /// `u32`: bits of [`abilities`].
    pub const ABILITIES: &str = "ABILITIES";

    /// What the kernel has of what not every kernel has. The verifier leaves out what depends on a bit that is not set.
    pub mod abilities {
        /// `bpf_ktime_get_coarse_ns` (Linux 5.11).
        pub const COARSE_CLOCK: u32 = 1;
        /// `bpf_set_retval` (Linux 5.18).
        pub const RETURN_VALUE: u32 = 2;
    }

    /// How policy is enforced.
    pub mod options {
        /// What comes from or goes to a pod that the agent does not know yet is dropped.
        pub const DENY_PENDING: u32 = 1;
        /// Source addresses are not checked against the link.
        pub const ANY_SOURCE: u32 = 2;
        /// Established connections are not judged again after a policy change.
        pub const KEEP_ESTABLISHED: u32 = 4;
    }
}
