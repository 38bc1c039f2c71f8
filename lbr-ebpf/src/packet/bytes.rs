//! The bytes of a packet, whatever the kernel keeps it in: what parsing and rewriting need of it.

use crate::packet::skb::{HelperFailed, Skb, Sum};

/// A packet with its Ethernet header. The methods do as those of [`Skb`] with the same name.
pub(crate) trait Bytes: Copy {
    fn len(self) -> u32;
    fn load<T: Copy>(self, offset: u32) -> Result<T, HelperFailed>;
    fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), HelperFailed>;
    fn fix_sum(self, offset: u32, diff: u32, sum: Sum, optional: bool) -> Result<(), HelperFailed>;
    fn fix_header_sum(self, offset: u32, old: u16, new: u16) -> Result<(), HelperFailed>;
    fn adjust_device_sum(self, diff: u32);
}

impl Bytes for Skb {
    #[inline(always)]
    fn len(self) -> u32 {
        Self::len(self)
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> Result<T, HelperFailed> {
        Self::load(self, offset)
    }

    #[inline(always)]
    fn store<T: Copy>(self, offset: u32, value: &T) -> Result<(), HelperFailed> {
        Self::store(self, offset, value)
    }

    #[inline(always)]
    fn fix_sum(self, offset: u32, diff: u32, sum: Sum, optional: bool) -> Result<(), HelperFailed> {
        Self::fix_sum(self, offset, diff, sum, optional)
    }

    #[inline(always)]
    fn fix_header_sum(self, offset: u32, old: u16, new: u16) -> Result<(), HelperFailed> {
        Self::fix_header_sum(self, offset, old, new)
    }

    #[inline(always)]
    fn adjust_device_sum(self, diff: u32) {
        Self::adjust_device_sum(self, diff);
    }
}
