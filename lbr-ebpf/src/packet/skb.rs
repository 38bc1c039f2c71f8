//! A packet buffer: the few things that the programs do with one.

use crate::packet::Packet;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated as helper;

use crate::forward::fib::{Lookup, NextHop};

/// Length of an Ethernet header. Every interface that lbr attaches to has one.
pub(crate) const ETH_LEN: u32 = 14;

/// Bytes of a refused packet's network and transport header that its answer quotes, less than this. A power of two.
pub(crate) const MAX_QUOTE: usize = 256;

/// `PACKET_HOST` of linux/if_packet.h.
const PACKET_HOST: u32 = 0;

/// `BPF_F_IPV6` of linux/bpf.h (since kernel commit ead7f9b8de65, 6.16): the address change of an IPv6 packet
/// is not made up for by an IP header checksum, so `skb->csum` must not be corrected twice.
const F_IPV6: u64 = 1 << 7;

/// A helper refused; the number is of no use to a packet.
pub(crate) struct HelperFailed;

/// What a checksum update is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sum {
    /// Part of the pseudo header of an IPv4 packet: the addresses.
    PseudoV4,
    /// Part of the pseudo header of an IPv6 packet: the addresses.
    PseudoV6,
    /// Bytes that the checksum covers: ports, quoted packets.
    Covered,
}

/// What becomes of the size of the segments of a packet that was put together, when headers grow or shrink.
#[derive(Clone, Copy)]
pub(crate) enum Segments {
    /// As they are: they came so, or are datagrams, whose limits are the sender's.
    Kept,
    /// What the headers grow by, the payload of each shrinks by.
    Resized,
}

impl Segments {
    #[inline(always)]
    fn flag(self) -> u64 {
        match self {
            Self::Kept => u64::from(aya_ebpf::bindings::BPF_F_ADJ_ROOM_FIXED_GSO),
            Self::Resized => 0,
        }
    }
}

/// Ethernet header.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Eth {
    dst: [u16; 3],
    src: [u16; 3],
    kind: u16,
}

/// A packet buffer at a tc hook.
#[derive(Clone, Copy)]
pub(crate) struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff) -> Self {
        Self(skb)
    }

    /// What the kernel handed over, for a function of its own (`step::global!`).
    #[inline(always)]
    pub(crate) fn context(self) -> *mut __sk_buff {
        self.0
    }

    /// Bytes with the Ethernet header.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        // SAFETY: the kernel hands over a valid context, and the verifier knows the field.
        unsafe { (*self.0).len }
    }

    /// EtherType as on the wire, behind any VLAN tag that the device took off.
    #[inline(always)]
    pub(crate) fn protocol(self) -> u16 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).protocol as u16 }
    }

    /// Whether the packet begins with its Ethernet header. Behind a generic XDP program for frames in several pieces,
    /// anybody's, Linux hands it over without: its copy for the program (`skb_pp_cow_data`) has no `mac_len`.
    #[inline(always)]
    pub(crate) fn has_link_header(self) -> bool {
        const KIND: u32 = 12;
        self.load::<u16>(KIND).is_ok_and(|kind| kind == self.protocol())
    }

    /// Interface that the packet is at.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).ifindex }
    }

    /// Interface that the packet entered the node by; 0 for what the node itself sends.
    #[inline(always)]
    pub(crate) fn entered_by(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Whether the frame is addressed to this host alone (`PACKET_HOST`). No router forwards another one (RFC 1812, 5.3.4).
    #[inline(always)]
    pub(crate) fn is_for_this_host(self) -> bool {
        const PACKET_HOST: u32 = 0;
        // SAFETY: as in `len`.
        unsafe { (*self.0).pkt_type == PACKET_HOST }
    }

    /// Whether a TCP socket of the node has the connection that the packet belongs to.
    #[inline(always)]
    pub(crate) fn has_socket(self, packet: &Packet) -> bool {
        let tuple = &packet.tuple;
        let mut key = [0u32; 9];
        let ports = u32::from(tuple.src_port.to_be()) | u32::from(tuple.dst_port.to_be()) << 16;
        let len = if packet.is_v4 {
            key[0] = tuple.src.words()[3];
            key[1] = tuple.dst.words()[3];
            key[2] = ports;
            12
        } else {
            let (src, dst) = (tuple.src.words(), tuple.dst.words());
            key = [src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], ports];
            36
        };
        const CURRENT_NETNS: u64 = u64::MAX;
        const TCP_LISTEN: u32 = 10;
        // SAFETY: the helper reads `len` bytes of `key`, which is `struct bpf_sock_tuple`; what it returns is released, and
        // the verifier knows the field.
        unsafe {
            let socket =
                helper::bpf_skc_lookup_tcp(self.0.cast(), key.as_mut_ptr().cast(), len, CURRENT_NETNS, 0);
            if socket.is_null() {
                return false;
            }
            let state = (*socket).state;
            helper::bpf_sk_release(socket.cast());
            state != TCP_LISTEN
        }
    }

    /// VLAN id of a tag that the device took off; 0 without one.
    #[inline(always)]
    pub(crate) fn vlan_id(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { if (*self.0).vlan_present == 0 { 0 } else { (*self.0).vlan_tci & 0x0fff } }
    }

    /// Bytes of payload in each segment of what the device, or the sender, put together; 0: it is one packet.
    #[inline(always)]
    pub(crate) fn segment_len(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).gso_size }
    }

    /// Copies a plain value out of the packet.
    #[inline(always)]
    pub(crate) fn load<T: Copy>(self, offset: u32) -> Result<T, HelperFailed> {
        let mut value = MaybeUninit::<T>::uninit();
        let len = size_of::<T>() as u32;
        // SAFETY: the helper writes `len` bytes, the size of `value`, or fails.
        let failed =
            unsafe { helper::bpf_skb_load_bytes(self.0.cast(), offset, value.as_mut_ptr().cast(), len) };
        if failed != 0 {
            return Err(HelperFailed);
        }
        // SAFETY: the helper filled it, and every `T` here is made of integers.
        Ok(unsafe { value.assume_init() })
    }

    /// Copies a plain value into the packet. Checksums are the caller's business.
    #[inline(always)]
    pub(crate) fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), HelperFailed> {
        let len = size_of::<T>() as u32;
        // SAFETY: the helper reads `len` bytes, the size of `value`.
        check(unsafe {
            helper::bpf_skb_store_bytes(self.0, offset, core::ptr::from_ref(value).cast(), len, 0)
        })
    }

    /// Adds `diff` to the transport checksum at `offset`. `optional`: zero means that there is none (UDP).
    #[inline(always)]
    pub(crate) fn fix_sum(
        self,
        offset: u32,
        diff: u32,
        sum: Sum,
        optional: bool,
    ) -> Result<(), HelperFailed> {
        use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
        let pseudo = if sum == Sum::Covered { 0 } else { u64::from(BPF_F_PSEUDO_HDR) };
        let flags = pseudo | if optional { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        let diff = u64::from(diff);
        if sum == Sum::PseudoV6 {
            // SAFETY: a helper call without pointers of ours.
            let failed = unsafe { helper::bpf_l4_csum_replace(self.0, offset, 0, diff, flags | F_IPV6) };
            if failed == 0 {
                return Ok(());
            }
            // A kernel that does not know the flag: right for everything but CHECKSUM_COMPLETE.
        }
        // SAFETY: as above.
        check(unsafe { helper::bpf_l4_csum_replace(self.0, offset, 0, diff, flags) })
    }

    /// Adds `diff` to the sum over the whole packet that a device may have made (`CHECKSUM_COMPLETE`).
    #[inline(always)]
    pub(crate) fn adjust_device_sum(self, diff: u32) {
        // SAFETY: as in `fix_sum`. Fails only if there is no such sum.
        let _ = unsafe { helper::bpf_csum_update(self.0, diff) };
    }

    /// Sum of the 16-bit words of `len` bytes at `offset`, a multiple of four above zero, by way of `buffer`.
    #[inline(always)]
    pub(crate) fn sum(
        self,
        offset: u32,
        len: u32,
        buffer: &mut [u32; MAX_QUOTE / 4],
    ) -> Result<u64, HelperFailed> {
        // The verifier must see the bounds right here, so the compiler must not know that they are superfluous. Before
        // Linux 6.8 it does not learn from `len == 0` that `len` is above zero otherwise; from an addition it does.
        // SAFETY: a local variable.
        let len = unsafe { core::ptr::read_volatile(&raw const len) };
        let len = (len.wrapping_sub(4) & (MAX_QUOTE as u32 - 4)) + 4;
        let to = buffer.as_mut_ptr();
        // SAFETY: `len` is at most the size of `buffer`.
        check(unsafe { helper::bpf_skb_load_bytes(self.0.cast(), offset, to.cast(), len) })?;
        // SAFETY: the helper reads the `len` bytes that were just written.
        let sum = unsafe { helper::bpf_csum_diff(core::ptr::null_mut(), 0, to, len, 0) };
        u64::try_from(sum).map_err(|_| HelperFailed)
    }

    /// Fixes the checksum of an IPv4 header at `offset` after a change of a word that it covers.
    #[inline(always)]
    pub(crate) fn fix_header_sum(self, offset: u32, old: u16, new: u16) -> Result<(), HelperFailed> {
        // SAFETY: a helper call without pointers of ours.
        check(unsafe { helper::bpf_l3_csum_replace(self.0, offset, old.into(), new.into(), 2) })
    }

    /// Asks the node's routes; gives the kernel's `BPF_FIB_LKUP_RET_…`, negative for an error.
    #[inline(always)]
    pub(crate) fn fib_lookup(self, lookup: &mut Lookup) -> i64 {
        let len = size_of::<Lookup>() as i32;
        // SAFETY: the helper reads and writes `len` bytes, the size of `lookup`.
        unsafe { helper::bpf_fib_lookup(self.0.cast(), core::ptr::from_mut(lookup).cast(), len, 0) }
    }

    /// Out of this interface, to this next hop, whose link address the kernel looks up.
    #[inline(always)]
    pub(crate) fn redirect_neighbor(self, ifindex: u32, to: &mut NextHop) -> i32 {
        let len = size_of::<NextHop>() as i32;
        // SAFETY: the helper reads `len` bytes, the size of `to`.
        unsafe { helper::bpf_redirect_neigh(ifindex, core::ptr::from_mut(to).cast(), len, 0) as i32 }
    }

    /// The link header of an answer: addresses exchanged.
    #[inline(always)]
    pub(crate) fn turned_link_header(self) -> Result<Eth, HelperFailed> {
        let eth: Eth = self.load(0)?;
        Ok(Eth { dst: eth.src, src: eth.dst, kind: eth.kind })
    }

    /// Cuts the packet to `len` bytes.
    #[inline(always)]
    pub(crate) fn truncate(self, len: u32) -> Result<(), HelperFailed> {
        // SAFETY: as in `fix_sum`.
        check(unsafe { helper::bpf_skb_change_tail(self.0, len, 0) })
    }

    /// Makes room for `len` bytes between the Ethernet header and what follows. (`bpf_skb_change_head` would
    /// do too, but leaves a link header length behind that `bpf_redirect_peer` trips over.)
    #[inline(always)]
    pub(crate) fn make_room(self, len: u32) -> Result<(), HelperFailed> {
        use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
        // SAFETY: as in `fix_sum`.
        check(unsafe { helper::bpf_skb_adjust_room(self.0, len as i32, BPF_ADJ_ROOM_MAC, 0) })
    }

    /// Makes room for `len` bytes behind the fixed part of the IP header, or takes them away (`len` below 0).
    #[inline(always)]
    pub(crate) fn resize_options(self, len: i32, segments: Segments) -> Result<(), HelperFailed> {
        use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_NET;
        // SAFETY: as in `fix_sum`.
        check(unsafe { helper::bpf_skb_adjust_room(self.0, len, BPF_ADJ_ROOM_NET, segments.flag()) })
    }

    /// Makes room for another IP header of `len` bytes before the one that there is.
    #[inline(always)]
    pub(crate) fn encapsulate(self, len: u32, is_v4: bool, segments: Segments) -> Result<(), HelperFailed> {
        use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
        use aya_ebpf::bindings::{BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6};
        let kind = if is_v4 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 };
        let flags = u64::from(kind) | segments.flag();
        // SAFETY: as in `fix_sum`.
        check(unsafe { helper::bpf_skb_adjust_room(self.0, len as i32, BPF_ADJ_ROOM_MAC, flags) })
    }

    /// Takes `len` bytes behind the Ethernet header away.
    #[inline(always)]
    pub(crate) fn decapsulate(self, len: u32) -> Result<(), HelperFailed> {
        use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
        let (cut, flags) = ((len as i32).wrapping_neg(), Segments::Kept.flag());
        // SAFETY: as in `fix_sum`.
        check(unsafe { helper::bpf_skb_adjust_room(self.0, cut, BPF_ADJ_ROOM_MAC, flags) })
    }

    /// Into the network namespace behind the veth with this index, without a trip through the node's stack.
    #[inline(always)]
    pub(crate) fn redirect_peer(self, ifindex: u32) -> i32 {
        // SAFETY: as in `len`.
        if unsafe { (*self.0).pkt_type } != PACKET_HOST {
            // It was addressed to a bridge, and the receiver would not take it for its own.
            // SAFETY: as in `fix_sum`. A failure leaves it as it was, and the receiver drops it.
            let _ = unsafe { helper::bpf_skb_change_type(self.0, PACKET_HOST) };
        }
        // SAFETY: a helper call without pointers.
        unsafe { helper::bpf_redirect_peer(ifindex, 0) as i32 }
    }
}

/// Out of this interface.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> i32 {
    // SAFETY: a helper call without pointers.
    unsafe { helper::bpf_redirect(ifindex, 0) as i32 }
}

#[inline(always)]
fn check(failed: i64) -> Result<(), HelperFailed> {
    if failed == 0 { Ok(()) } else { Err(HelperFailed) }
}
