//! The node's ends of the pods' veths, and its uplinks.

use crate::addr::Addr;

/// Value of `links`; the key is the interface index of the host side.
///
/// Written by the agent for each interface that it attaches to, read when a flow begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// See [`link_flags`].
    pub flags: u32,
    /// Interface index of the bridge (or other master) that it is a port of; 0: none. What the pod behind it sends enters
    /// the node's stack there.
    pub master: u32,
}

/// Bits of [`Link::flags`].
pub mod link_flags {
    /// A veth: `bpf_redirect_peer` reaches what is behind it.
    pub const PEER: u32 = 1;
    /// The node's routes end in this link (no bridge between): answers may go straight into it.
    pub const ROUTED: u32 = 2;
}

/// Value of `uplinks`; the key is the interface index.
///
/// Written by the agent for each interface by which the node reaches what is not on it (also tunnels to other
/// nodes' pods), read where a packet leaves by a route.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uplink {
    /// The node's IPv4 address on it, or, without one, the node's first: the source of what is sent on by it in the
    /// name of the node. Unspecified if there is none.
    pub v4: Addr,
    /// The same for IPv6.
    pub v6: Addr,
    /// The IPv4 address by which other nodes know this one (`Node.status.addresses`): the source of packets from node
    /// to node. Unspecified if there is none.
    pub node_v4: Addr,
    /// The same for IPv6.
    pub node_v6: Addr,
}

const _: () = assert!(size_of::<Link>() == 8);
const _: () = assert!(size_of::<Uplink>() == 64);
