//! Names of the read-only variables that the agent sets when it loads the object.

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
