//! A frame as its driver received it, before the kernel makes a packet buffer of it.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated as helper;
use lbr_common::checksum::{self, Diff};

use crate::forward::fib::Lookup;
use crate::packet::bytes::Bytes;
use crate::packet::skb::{HelperFailed, Sum};

/// A frame at XDP, which may be in several pieces.
#[derive(Clone, Copy)]
pub(crate) struct Frame(*mut xdp_md);

impl Frame {
    #[inline(always)]
    pub(crate) fn new(frame: *mut xdp_md) -> Self {
        Self(frame)
    }

    /// Interface that the frame came in by.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        // SAFETY: the kernel hands over a valid context, and the verifier knows the field.
        unsafe { (*self.0).ingress_ifindex }
    }

    /// Asks the node's routes; gives the kernel's `BPF_FIB_LKUP_RET_…`, negative for an error.
    #[inline(always)]
    pub(crate) fn fib_lookup(self, lookup: &mut Lookup) -> i64 {
        let len = size_of::<Lookup>() as i32;
        // SAFETY: the helper reads and writes `len` bytes, the size of `lookup`.
        unsafe { helper::bpf_fib_lookup(self.0.cast(), core::ptr::from_mut(lookup).cast(), len, 0) }
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn len(self) -> u32 {
        // SAFETY: a helper without pointers of ours. A frame is shorter than 4 GiB.
        unsafe { helper::bpf_xdp_get_buff_len(self.0) as u32 }
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Result<T, HelperFailed> {
        let mut value = MaybeUninit::<T>::uninit();
        let len = size_of::<T>() as u32;
        // SAFETY: the helper writes `len` bytes, the size of `value`, or fails.
        check(unsafe { helper::bpf_xdp_load_bytes(self.0, offset, value.as_mut_ptr().cast(), len) })?;
        // SAFETY: the helper filled it, and every `T` here is made of integers.
        Ok(unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), HelperFailed> {
        let len = size_of::<T>() as u32;
        // SAFETY: the helper reads `len` bytes, the size of `value`.
        check(unsafe {
            helper::bpf_xdp_store_bytes(self.0, offset, core::ptr::from_ref(value).cast_mut().cast(), len)
        })
    }

    /// The checksum must be whole, not the part that a sender leaves a device to complete.
    #[inline(always)]
    fn fix_sum(self, offset: u32, diff: u32, _sum: Sum, optional: bool) -> Result<(), HelperFailed> {
        let old: u16 = self.load(offset)?;
        if optional && old == 0 {
            return Ok(());
        }
        let new = match checksum::update(old, diff) {
            // Zero would say that there is none (RFC 768).
            0 if optional => u16::MAX,
            new => new,
        };
        // On the stack: Linux 6.16 and 6.17 refuse a constant here, since their `bpf_xdp_store_bytes` claims to write it.
        self.store(offset, &new)
    }

    #[inline(always)]
    fn fix_header_sum(self, offset: u32, old: u16, new: u16) -> Result<(), HelperFailed> {
        self.fix_sum(offset, Diff::NONE.half(old, new).fold32(), Sum::Covered, false)
    }

    /// There is no device sum at XDP: the frame is all there is.
    #[inline(always)]
    fn adjust_device_sum(self, _diff: u32) {}
}

#[inline(always)]
fn check(failed: i64) -> Result<(), HelperFailed> {
    if failed == 0 { Ok(()) } else { Err(HelperFailed) }
}
