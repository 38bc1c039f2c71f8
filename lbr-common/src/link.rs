//! The node's ends of the pods' veths.

/// Value of `links`; the key is the interface index of the host side.
///
/// Written by the agent for each interface that it attaches to, read when a flow begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// See [`link_flags`].
    pub flags: u32,
}

/// Bits of [`Link::flags`].
pub mod link_flags {
    /// A veth: `bpf_redirect_peer` reaches what is behind it.
    pub const PEER: u32 = 1;
    /// The node's routes end in this link (no bridge between): answers may go straight into it.
    pub const DIRECT: u32 = 2;
}
