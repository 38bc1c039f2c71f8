//! Every map, a row for each: name, shape, key, value, size and what it holds. Flags of the agent change sizes.
//!
//! From a row of [`agent_maps`](crate::agent_maps) follow the map in the kernel object, its pin, the agent's table and
//! its content as plain data, and the fake that tests run on. A row of [`kernel_maps`](crate::kernel_maps) gives the map
//! and its pin.

pub mod config;

/// Passes a row for each map that the agent writes, and programs only read, to the macro `$then`. With `by part`, the rows
/// are in groups: the maps that one part of the agent writes.
///
/// A row is: documentation, constant, field, name (15 bytes at most: `BPF_OBJ_NAME_LEN`), shape, role, key, value, size.
/// - Shape: `hash`, or `lpm`, a trie that is searched for the longest prefix.
/// - Role: `plain`. `staged`: the value is `Versioned`, and changes with those of other maps at once. `attached`: the key is
///   an interface, and with its entry the programs are attached to it.
#[macro_export]
macro_rules! agent_maps {
    ($then:ident) => {
        $crate::agent_maps! { @rows flat $then }
    };
    (by part: $then:ident) => {
        $crate::agent_maps! { @rows grouped $then }
    };
    (@flat $then:ident $($part:ident { $($rows:tt)* })*) => {
        $then! { $($($rows)*)* }
    };
    (@grouped $then:ident $($groups:tt)*) => {
        $then! { $($groups)* }
    };
    (@rows $how:ident $then:ident) => {
        $crate::agent_maps! { @$how $then
            ServiceMaps {
                /// Where packets to an address and port go.
                FRONTENDS frontends "frontends": hash plain
                    [$crate::service::FrontendKey, $crate::service::Frontend] 131_072;
                /// A Service's backends by number: what a new flow chooses from.
                SLOTS slots "slots": hash plain [$crate::service::SlotKey, $crate::service::Slot] 524_288;
                /// Backends by their id.
                BACKENDS backends "backends": hash plain [$crate::id::BackendId, $crate::service::Backend] 524_288;
                /// Maglev tables in parts. Room for 64 tables, and for as many that replace them: memory (about 290 KiB a table)
                /// is used by those that are there only.
                MAGLEV maglev "maglev": hash plain
                    [$crate::maglev::MaglevKey, $crate::maglev::MaglevPart] $crate::maglev::PARTS as usize * 2 * 64;
                /// Names of Service ports by their id. For people; no program reads it.
                SERVICES services "services": hash plain [$crate::id::ServiceId, $crate::text::ServiceName] 131_072;
                /// Clients of a Service port that serves some only; the value has no meaning.
                SOURCE_RANGES source_ranges "source_ranges": lpm plain [$crate::service::SourceRange, u32] 65_536;
                /// Other nodes, and all that lives in the cluster where a Service has direct server return: bits of `peer_flags`.
                PEERS peers "peers": lpm plain [$crate::policy::Block, u32] 65_536;
                /// Blocks that ClusterIPs come from; the value has no meaning. What is sent to an address there that no Service
                /// has ends here.
                SERVICE_CIDRS service_cidrs "service_cidrs": lpm plain [$crate::policy::Block, u32] 64;
            }
            LinkMaps {
                /// Pods' links by interface index.
                LINKS links "links": hash attached [u32, $crate::link::Link] 4_096;
                /// Uplinks by interface index.
                UPLINKS uplinks "uplinks": hash attached [u32, $crate::link::Uplink] 64;
            }
            PolicyMaps {
                /// The node's addresses and those of its pods: policy set, isolation, interface.
                ENDPOINTS endpoints "endpoints": hash staged [$crate::addr::Addr, $crate::policy::Endpoint] 16_384;
                /// By interface index: bits of `policy_flags`.
                LINK_POLICY link_policy "link_policy": hash staged [u32, $crate::policy::Versioned<u32>] 4_096;
                /// Class of a peer's address.
                IP_CLASS ip_class "ip_class": hash staged
                    [$crate::addr::Addr, $crate::policy::Versioned<$crate::id::ClassId>] 262_144;
                /// Class of the addresses of a block that `ip_class` does not have.
                CIDR_CLASS cidr_class "cidr_class": lpm staged
                    [$crate::policy::Block, $crate::policy::Versioned<$crate::id::ClassId>] 65_536;
                /// Port class of the ports of a policy set.
                PORT_CLASS port_class "port_class": lpm plain
                    [$crate::policy::Ports, $crate::id::PortClassId] 262_144;
                /// What a policy set allows, and by which rule.
                VERDICTS verdicts "verdicts": hash plain [$crate::policy::VerdictKey, $crate::policy::Allow] 1_048_576;
                /// NetworkPolicies by policy id. For people; no program reads it.
                POLICIES policies "policies": hash plain [$crate::id::PolicyId, $crate::text::PolicyRecord] 65_536;
                /// Rules of policies as YAML. For people; no program reads it.
                RULES rules "rules": hash plain [$crate::text::RuleKey, $crate::text::RuleText] 131_072;
                /// The policies of a set. For people; no program reads it.
                SET_MEMBERS set_members "set_members": hash plain
                    [$crate::text::MemberKey, $crate::text::Member] 262_144;
                /// What a class stands for, by class id. For people; no program reads it.
                CLASSES classes "classes": hash plain [$crate::id::ClassId, $crate::text::ClassRecord] 65_536;
                /// Names of pods by address. For people; no program reads it.
                POD_NAMES pod_names "pod_names": hash plain [$crate::addr::Addr, $crate::text::PodName] 262_144;
            }
            ReportMaps {
                /// Objects that are not in force, or lack a part, by a running number. For people; no program reads it.
                REJECTED rejected "rejected": hash plain [u32, $crate::text::RejectedRecord] 1_024;
            }
        }
    };
}

/// Passes a row for each map that the programs write, and the agent only reads, to the macro `$then`.
///
/// A row is: documentation, constant, name, shape, key, value, size. The agent writes fields of `state`,
/// `near_epochs` and `far_epochs`.
#[macro_export]
macro_rules! kernel_maps {
    ($then:ident) => {
        $then! {
            /// The only entry is what changes at run time and concerns all packets. The agent writes it.
            STATE "state": array [u32, $crate::service::State] 1;
            /// When what flows depend on last changed, by a small hash. The agent writes it.
            NEAR_EPOCHS "near_epochs": array [u32, $crate::epoch::NearEpochs] 1;
            /// The same by a large one, in blocks: see `epoch::Cell`.
            FAR_EPOCHS "far_epochs": array [u32, $crate::epoch::EpochBlock] $crate::epoch::BLOCKS as usize;
            /// Connections, two entries for each.
            FLOWS "flows": lru_hash [$crate::tuple::Tuple, $crate::flow::Flow] 262_144;
            /// A ring for each CPU of the flows that began there last, by their original direction. One that is still not
            /// assured when its slot is needed again gives way, so a flood of first packets evicts only its like, and most
            /// of `flows` is for assured connections. A quarter of `flows`, unless a flag says otherwise.
            UNCONFIRMED "unconfirmed": array [u32, $crate::tuple::Tuple] 65_536;
            /// Reply entries of flows that give way, which a CPU is giving to another flow at this moment. The value is the
            /// index of the interface that the packet is at.
            CLAIMS "claims": hash [$crate::tuple::Tuple, u32] 1_024;
            /// Ports of datagrams whose later fragments lack them.
            FRAGMENTS "fragments": lru_hash [$crate::flow::FragmentKey, $crate::flow::FragmentPorts] 16_384;
            /// Sockets of the node that are connected to a backend.
            SOCKETS "sockets": lru_hash [$crate::flow::SocketKey, $crate::flow::SocketPeer] 65_536;
            /// Backends that clients come back to.
            AFFINITY "affinity": lru_hash [$crate::service::AffinityKey, $crate::service::Affinity] 65_536;
            /// Packets and bytes by `counter_index` of hook and verdict.
            COUNTERS "counters": per_cpu_array
                [u32, $crate::verdict::Counter] $crate::verdict::COUNTERS as usize;
            /// What went through the Service ports that are used, by their id.
            TRAFFIC "traffic": lru_per_cpu_hash [$crate::id::ServiceId, $crate::service::Traffic] 8_192;
            /// What policies denied, or would have denied.
            DENIALS "denials": lru_per_cpu_hash [$crate::policy::DenialKey, $crate::verdict::Counter] 65_536;
            /// Denials as they happen. Its size is in bytes, a power of two and of whole pages.
            EVENTS "events": ring [(), $crate::policy::Event] 262_144;
        }
    };
}

/// What kind of map it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Hash map.
    Hash,
    /// Trie that is searched for the longest prefix.
    Lpm,
    /// Array, always full.
    Array,
    /// Hash map that evicts what was not used for longest.
    LruHash,
    /// Array with a value for each CPU.
    PerCpuArray,
    /// [`Self::LruHash`] with a value for each CPU.
    LruPerCpuHash,
    /// Ring buffer; its size is in bytes.
    Ring,
}

/// One map: its name in the kernel, under the pin folder and on the command line.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec {
    /// At most 15 bytes (`BPF_OBJ_NAME_LEN`).
    pub name: &'static str,
    /// Its kind.
    pub shape: Shape,
    /// Entries, unless a flag says otherwise.
    pub max_entries: usize,
}

const fn spec(name: &'static str, shape: Shape, max_entries: usize) -> MapSpec {
    assert!(name.len() <= 15);
    MapSpec { name, shape, max_entries }
}

/// The [`Shape`] of a row.
macro_rules! shape {
    (hash) => {
        Shape::Hash
    };
    (lpm) => {
        Shape::Lpm
    };
    (array) => {
        Shape::Array
    };
    (lru_hash) => {
        Shape::LruHash
    };
    (per_cpu_array) => {
        Shape::PerCpuArray
    };
    (lru_per_cpu_hash) => {
        Shape::LruPerCpuHash
    };
    (ring) => {
        Shape::Ring
    };
}

macro_rules! agent_specs {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        $($(#[$doc])* pub const $spec: MapSpec = spec($name, shape!($shape), $size);)*
        const AGENT: &[MapSpec] = &[$($spec,)*];
    };
}
agent_maps!(agent_specs);

macro_rules! kernel_specs {
    ($($(#[$doc:meta])* $spec:ident $name:literal: $shape:ident [$key:ty, $value:ty] $size:expr;)*) => {
        $($(#[$doc])* pub const $spec: MapSpec = spec($name, shape!($shape), $size);)*
        const KERNEL: &[MapSpec] = &[$($spec,)*];
    };
}
kernel_maps!(kernel_specs);

/// What a program works on now (`Scratch` of the kernel object), per-CPU array. Only the programs use it.
pub const SCRATCH: MapSpec = spec("scratch", Shape::PerCpuArray, 1);

/// Every map that is pinned: all but the work space, which has nothing to keep.
pub const PINNED: [MapSpec; AGENT.len() + KERNEL.len()] = {
    let mut all = [SCRATCH; AGENT.len() + KERNEL.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < AGENT.len() { AGENT[at] } else { KERNEL[at - AGENT.len()] };
        at += 1;
    }
    all
};
