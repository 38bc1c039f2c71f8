//! Work space of a tc program: what would not fit on its stack (512 bytes for all calls together).

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use lbr_common::flow::Flow;
use lbr_common::maps as spec;
use lbr_common::tuple::Tuple;

use crate::packet::Packet;
use crate::skb::MAX_QUOTE;

#[btf_map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch, { spec::SCRATCH.max_entries }> = PerCpuArray::new();

/// Value of `scratch`, one for each CPU. tc programs run with bottom halves disabled, so on one CPU only one at
/// a time.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Scratch {
    /// The packet at hand.
    pub(crate) packet: Packet,
    /// The packet that an ICMP error quotes.
    pub(crate) quoted: Packet,
    /// What becomes of the packet at hand.
    pub(crate) decision: Decision,
    /// A flow in the making: the entry of the client's packets,
    pub(crate) flow: Flow,
    /// the entry of the answers,
    pub(crate) reply: Flow,
    /// and its key.
    pub(crate) reply_key: Tuple,
    /// Bytes to take a checksum of.
    pub(crate) quote: [u32; MAX_QUOTE / 4],
}

impl Scratch {
    /// The work space of this CPU.
    #[inline(always)]
    pub(crate) fn get() -> Option<&'static mut Self> {
        // SAFETY: the entry of this CPU, which no other program uses before this one ends (see above).
        SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
    }
}

/// What a packet's flow says to do with it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Decision {
    /// What the packet must look like.
    pub(crate) to: Tuple,
    /// Interface to redirect into; 0: on by the stack.
    pub(crate) link: u32,
    /// From backend to client.
    pub(crate) is_reply: bool,
}
