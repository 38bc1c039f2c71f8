//! What lbr needs of a kernel: the one list for the check at start, the message of a refused start, and the table in
//! ARCHITECTURE.md. A test compares it with the kernel object (`tests/tests/requirements.rs`).
//!
//! Features are probed, not derived from the kernel's version: vendors port them back. Versions are for people.

use std::fmt;

use anyhow::bail;
use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use lbr_common::maps::config::abilities;

/// The oldest kernel that lbr runs on, as it comes from kernel.org.
pub const LEAST: Version = Version(5, 10);

/// A version of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u8, pub u8);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// A feature of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Feature {
    /// The feature itself.
    pub what: What,
    /// The first Linux that has it.
    pub since: Version,
    /// What lbr does without it; `None`: lbr does not start.
    pub without: Option<&'static str>,
}

/// Kinds of features.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Programs of this type.
    Program(Kind),
    /// Maps of this type.
    Map(MapType),
    /// This helper, for programs of these types.
    Helper(BpfHelper, &'static [Kind]),
    /// Anything else. It is not probed: whether the kernel has it shows where lbr uses it.
    Other(&'static str),
}

/// Types of programs in the kernel object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// tc, by tcx or clsact.
    Classifier,
    /// XDP.
    Xdp,
    /// Addresses of sockets, at a cgroup.
    SocketAddress,
}

impl Kind {
    const fn aya(self) -> ProgramType {
        match self {
            Self::Classifier => ProgramType::SchedClassifier,
            Self::Xdp => ProgramType::Xdp,
            Self::SocketAddress => ProgramType::CgroupSockAddr,
        }
    }

    /// Name in linux/bpf.h.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classifier => "sched_cls",
            Self::Xdp => "xdp",
            Self::SocketAddress => "cgroup_sock_addr",
        }
    }
}

impl Abilities {
    /// Bits of [`abilities`], for the programs.
    pub fn bits(self) -> u32 {
        let bit = |has: bool, bit: u32| if has { bit } else { 0 };
        bit(self.coarse_clock, abilities::COARSE_CLOCK) | bit(self.return_value, abilities::RETURN_VALUE)
    }
}

impl Feature {
    /// Name, for programs, maps and helpers that of linux/bpf.h.
    pub fn name(&self) -> String {
        match self.what {
            What::Program(kind) => format!("programs of type {}", kind.name()),
            What::Map(kind) => format!("maps of type {}", map_name(kind)),
            What::Helper(helper, _) => helper_name(helper),
            What::Other(name) => name.to_owned(),
        }
    }

    /// Whether this kernel has it. If that cannot be probed, it counts as there: loading will fail if it is not.
    fn is_there(&self) -> bool {
        match self.what {
            What::Program(kind) => is_program_supported(kind.aya()).unwrap_or(true),
            What::Map(kind) => is_map_supported(kind).unwrap_or(true),
            What::Helper(helper, kinds) => {
                kinds.iter().all(|kind| is_helper_supported(kind.aya(), helper).unwrap_or(true))
            }
            What::Other(_) => true,
        }
    }
}

/// `bpf_redirect_peer`
pub fn helper_name(helper: BpfHelper) -> String {
    format!("{helper:?}").replace("BPF_FUNC_", "bpf_")
}

/// `lru_hash`
fn map_name(kind: MapType) -> String {
    let name = format!("{kind:?}");
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.extend(letter.to_lowercase());
    }
    words.replace("per_cpu", "percpu").replace("ring_buf", "ringbuf")
}

const TC: &[Kind] = &[Kind::Classifier];
const TC_XDP: &[Kind] = &[Kind::Classifier, Kind::Xdp];
const SOCKETS: &[Kind] = &[Kind::SocketAddress];
const ALL: &[Kind] = &[Kind::Classifier, Kind::Xdp, Kind::SocketAddress];

const NO_XDP: Option<&str> = Some("`--xdp` has no effect: tc does the work of XDP");
const NO_ERRNO: Option<&str> =
    Some("a refused `connect` of a node's process, and a `bind` to a NodePort, fail with `EPERM`");
/// Consequence of a kernel that cannot abort UDP sockets.
pub(super) const NO_ABORT: &str = "a UDP socket of a node's process that is connected to a Service keeps its endpoint after that is gone, until it \
     connects again";
const NO_SOCKETS: Option<&str> = Some("processes of the node are not connected to backends (`--socket-lb`)");

const fn needed(what: What, major: u8, minor: u8) -> Feature {
    Feature { what, since: Version(major, minor), without: None }
}

const fn wanted(what: What, major: u8, minor: u8, without: Option<&'static str>) -> Feature {
    Feature { what, since: Version(major, minor), without }
}

/// Everything that lbr needs or uses.
pub const FEATURES: &[Feature] = {
    use BpfHelper as Id;
    use What::{Helper, Map, Other, Program};
    &[
        needed(Program(Kind::Classifier), 4, 1),
        wanted(Program(Kind::Xdp), 4, 8, NO_XDP),
        needed(Program(Kind::SocketAddress), 4, 17),
        needed(Map(MapType::Hash), 3, 19),
        needed(Map(MapType::Array), 3, 19),
        needed(Map(MapType::PerCpuArray), 4, 6),
        needed(Map(MapType::LruHash), 4, 10),
        needed(Map(MapType::LruPerCpuHash), 4, 10),
        needed(Map(MapType::LpmTrie), 4, 11),
        needed(Map(MapType::RingBuf), 5, 8),
        needed(Helper(Id::BPF_FUNC_map_lookup_elem, ALL), 3, 19),
        needed(Helper(Id::BPF_FUNC_map_update_elem, ALL), 3, 19),
        needed(Helper(Id::BPF_FUNC_map_delete_elem, ALL), 3, 19),
        needed(Helper(Id::BPF_FUNC_ktime_get_ns, ALL), 4, 1),
        needed(Helper(Id::BPF_FUNC_get_prandom_u32, SOCKETS), 4, 1),
        needed(Helper(Id::BPF_FUNC_get_smp_processor_id, TC), 4, 1),
        needed(Helper(Id::BPF_FUNC_skb_store_bytes, TC), 4, 1),
        needed(Helper(Id::BPF_FUNC_l3_csum_replace, TC), 4, 1),
        needed(Helper(Id::BPF_FUNC_l4_csum_replace, TC), 4, 1),
        needed(Helper(Id::BPF_FUNC_redirect, TC), 4, 4),
        needed(Helper(Id::BPF_FUNC_skb_load_bytes, TC), 4, 5),
        needed(Helper(Id::BPF_FUNC_csum_diff, TC), 4, 6),
        needed(Helper(Id::BPF_FUNC_skb_change_type, TC), 4, 8),
        needed(Helper(Id::BPF_FUNC_skb_change_tail, TC), 4, 9),
        needed(Helper(Id::BPF_FUNC_csum_update, TC), 4, 9),
        needed(Helper(Id::BPF_FUNC_fib_lookup, TC_XDP), 4, 18),
        needed(Helper(Id::BPF_FUNC_get_socket_cookie, SOCKETS), 4, 19),
        needed(Helper(Id::BPF_FUNC_sk_release, TC), 4, 20),
        needed(Helper(Id::BPF_FUNC_skb_adjust_room, TC), 5, 2),
        needed(Helper(Id::BPF_FUNC_skc_lookup_tcp, TC), 5, 2),
        needed(Helper(Id::BPF_FUNC_get_netns_cookie, SOCKETS), 5, 7),
        needed(Helper(Id::BPF_FUNC_ringbuf_output, TC), 5, 8),
        needed(Helper(Id::BPF_FUNC_redirect_neigh, TC), 5, 10),
        needed(Helper(Id::BPF_FUNC_redirect_peer, TC), 5, 10),
        wanted(
            Helper(Id::BPF_FUNC_ktime_get_coarse_ns, ALL),
            5,
            11,
            Some("`bpf_ktime_get_ns`, which takes longer"),
        ),
        wanted(Helper(Id::BPF_FUNC_set_retval, SOCKETS), 5, 18, NO_ERRNO),
        wanted(Helper(Id::BPF_FUNC_xdp_get_buff_len, &[Kind::Xdp]), 5, 18, NO_XDP),
        wanted(Helper(Id::BPF_FUNC_xdp_load_bytes, &[Kind::Xdp]), 5, 18, NO_XDP),
        wanted(Helper(Id::BPF_FUNC_xdp_store_bytes, &[Kind::Xdp]), 5, 18, NO_XDP),
        needed(Other("BTF of maps and functions"), 5, 0),
        needed(Other("read-only variables that the verifier takes for constants (`BPF_MAP_FREEZE`)"), 5, 2),
        needed(Other("global functions (`BTF_FUNC_GLOBAL`), with contexts and numbers as arguments"), 5, 6),
        needed(Other("links of cgroups, and their update"), 5, 7),
        needed(Other("hooks at `getpeername`"), 5, 8),
        wanted(
            Other("`SOCK_DESTROY` of UDP sockets (`CONFIG_INET_DIAG_DESTROY`, `CONFIG_INET_UDP_DIAG`)"),
            4,
            9,
            Some(NO_ABORT),
        ),
        wanted(Other("links of XDP"), 5, 9, NO_XDP),
        wanted(
            Other("the MTU as an answer of `bpf_fib_lookup`"),
            5,
            12,
            Some(
                "an ICMP error about a packet too long for its route names the packet's own length as the MTU",
            ),
        ),
        wanted(Other("`SO_NETNS_COOKIE`"), 5, 14, NO_SOCKETS),
        wanted(Other("XDP on frames in several pieces (`BPF_F_XDP_HAS_FRAGS`)"), 5, 18, NO_XDP),
        wanted(Other("tcx"), 6, 6, Some("clsact, with filters of priority 50")),
        wanted(
            Other("`BPF_F_IPV6` of `bpf_l4_csum_replace`"),
            6,
            16,
            Some(
                "a device's checksum (`CHECKSUM_COMPLETE`) of a translated IPv6 packet is wrong, and the stack computes it anew",
            ),
        ),
    ]
};

/// Which of the optional features this kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// `bpf_ktime_get_coarse_ns`.
    pub coarse_clock: bool,
    /// `bpf_set_retval`.
    pub return_value: bool,
    /// Everything that the XDP program calls.
    pub xdp: bool,
}

/// What this kernel lacks, as far as it can be probed.
pub fn missing() -> Vec<&'static Feature> {
    FEATURES.iter().filter(|feature| !feature.is_there()).collect()
}

/// Probes this kernel. An error names what is missing, and what to do.
pub fn check() -> anyhow::Result<Abilities> {
    let missing = missing();
    for feature in &missing {
        tracing::debug!("this kernel lacks {} (Linux {})", feature.name(), feature.since);
    }
    conclude(&missing, &release())
}

fn conclude(missing: &[&Feature], release: &str) -> anyhow::Result<Abilities> {
    let needed: Vec<String> = missing
        .iter()
        .filter(|feature| feature.without.is_none())
        .map(|feature| format!("{} (since Linux {})", feature.name(), feature.since))
        .collect();
    if !needed.is_empty() {
        bail!(
            "Linux {release} lacks {}: lbr needs Linux {LEAST} or later, or one that has this ported back",
            needed.join(", ")
        );
    }
    let has = |wanted: BpfHelper| {
        !missing.iter().any(|f| matches!(f.what, What::Helper(helper, _) if helper as u32 == wanted as u32))
    };
    Ok(Abilities {
        coarse_clock: has(BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
        return_value: has(BpfHelper::BPF_FUNC_set_retval),
        xdp: !missing.iter().any(|feature| feature.without == NO_XDP),
    })
}

/// The kernel's release, as in `uname -r`.
pub fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// The table of ARCHITECTURE.md.
pub fn table() -> String {
    let mut text = "| what | since Linux | where it is missing |\n|---|---|---|\n".to_owned();
    let mut features: Vec<&Feature> = FEATURES.iter().collect();
    features.sort_by_key(|feature| feature.since);
    for feature in features {
        let name = match feature.what {
            What::Helper(helper, kinds) => {
                let kinds: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
                format!("helper `{}` ({})", helper_name(helper), kinds.join(", "))
            }
            _ => feature.name(),
        };
        let without = feature.without.unwrap_or("lbr does not start");
        text.push_str(&format!("| {name} | {} | {without} |\n", feature.since));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(name: &str) -> &'static Feature {
        FEATURES.iter().find(|feature| feature.name() == name).unwrap()
    }

    #[test]
    fn a_needed_feature_that_is_missing_is_named_with_its_version() {
        let missing = [feature("bpf_redirect_peer"), feature("bpf_set_retval")];
        let error = conclude(&missing, "5.4.0-1").unwrap_err().to_string();
        assert_eq!(
            error,
            "Linux 5.4.0-1 lacks bpf_redirect_peer (since Linux 5.10): lbr needs Linux 5.10 or later, or one that has \
             this ported back"
        );
    }

    #[test]
    fn what_has_a_fallback_is_an_ability() {
        let all = Abilities { coarse_clock: true, return_value: true, xdp: true };
        assert_eq!(conclude(&[], "6.1").unwrap(), all);
        let missing = [feature("bpf_set_retval")];
        assert_eq!(conclude(&missing, "5.15").unwrap(), Abilities { return_value: false, ..all });
        let missing = [feature("bpf_xdp_load_bytes")];
        assert_eq!(conclude(&missing, "5.15").unwrap(), Abilities { xdp: false, ..all });
        let missing = [feature("bpf_ktime_get_coarse_ns")];
        assert_eq!(conclude(&missing, "5.10").unwrap(), Abilities { coarse_clock: false, ..all });
    }

    #[test]
    fn nothing_that_is_needed_is_newer_than_the_oldest_kernel() {
        for feature in FEATURES.iter().filter(|feature| feature.without.is_none()) {
            assert!(feature.since <= LEAST, "{}", feature.name());
        }
    }

    #[test]
    fn names_are_those_of_the_kernel() {
        assert_eq!(map_name(MapType::LruPerCpuHash), "lru_percpu_hash");
        assert_eq!(map_name(MapType::RingBuf), "ringbuf");
        assert_eq!(helper_name(BpfHelper::BPF_FUNC_redirect_peer), "bpf_redirect_peer");
    }
}
