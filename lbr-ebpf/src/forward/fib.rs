//! Arguments of `bpf_fib_lookup` and `bpf_redirect_neigh`.

/// `struct bpf_fib_lookup` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Lookup {
    pub(crate) family: u8,
    pub(crate) l4_proto: u8,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
    /// In: how long the packet is behind the link header. Out: the MTU of the way.
    pub(crate) length: u16,
    /// In: where the packet came from. Out: where it goes.
    pub(crate) ifindex: u32,
    pub(crate) traffic_class: u32,
    /// The address, or its first word with IPv4.
    pub(crate) src: [u32; 4],
    /// In: the destination. Out: the next hop.
    pub(crate) dst: [u32; 4],
    pub(crate) _vlan: [u16; 2],
    /// Out: of this node, and of the next hop.
    pub(crate) link_addresses: [[u16; 3]; 2],
}

/// `struct bpf_redir_neigh` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct NextHop {
    pub(crate) family: u32,
    pub(crate) addr: [u32; 4],
}

const _: () = assert!(size_of::<Lookup>() == 64 && size_of::<NextHop>() == 20);
