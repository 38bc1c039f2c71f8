//! Work space of a program at tc or XDP: what would not fit on its stack (512 bytes for all calls together).

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use lbr_common::addr::Addr;
use lbr_common::flow::Flow;
use lbr_common::maps as spec;
use lbr_common::policy::Event;
use lbr_common::service::Frontend;
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Hook;

use crate::fib::{Lookup, NextHop};
use crate::judged::Judged;
use crate::packet::Packet;
use crate::skb::MAX_QUOTE;

#[btf_map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch, { spec::SCRATCH.max_entries }> = PerCpuArray::new();

/// Value of `scratch`, one for each CPU. Programs at tc and at XDP run with bottom halves disabled, so on one CPU only
/// one at a time.
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
    /// The frontend of a flow in the making.
    pub(crate) frontend: Frontend,
    /// Where the way out is asked for to,
    pub(crate) route_to: Addr,
    /// the question and its answer,
    pub(crate) route: Lookup,
    /// and where it leads to first.
    pub(crate) next_hop: NextHop,
    /// What policies were asked about.
    pub(crate) judged: Judged,
    /// An event in the making,
    pub(crate) event: Event,
    /// and how many there may be.
    pub(crate) limit: Limit,
    /// `State::epoch` when the program began. Read first: what is read later is not older.
    pub(crate) epoch: u32,
    /// `State::generation` when the program began: the packet sees all of a policy change or nothing.
    pub(crate) generation: u32,
    /// Interface that the packet is at.
    pub(crate) ifindex: u32,
    /// Bytes that the packet grows by before it leaves.
    pub(crate) added: u32,
    /// Backend that another node chose for the packet at hand; 0: none did.
    pub(crate) chosen: u32,
    /// Whether the packet at hand came in the form of another node's, which was taken off.
    pub(crate) is_unwrapped: bool,
    /// Kept from packet to packet: which port in the name of the node is next.
    pub(crate) next_port: u32,
    /// A port of a connection that has ended, but not long ago; 0: none was met.
    pub(crate) resting_port: u16,
    /// Bytes of the packet as it came.
    pub(crate) bytes: u32,
    /// The hook that runs.
    pub(crate) hook: Hook,
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
    /// Interface to redirect into; 0: on by the stack; or [`lbr_common::flow::BY_ROUTE`].
    pub(crate) link: u32,
    /// See [`lbr_common::flow::Flow::from`].
    pub(crate) from: u32,
    /// Service that the flow belongs to; 0: none.
    pub(crate) service: u32,
    /// From backend to client.
    pub(crate) is_reply: bool,
    /// No translation: the packet stays as it is.
    pub(crate) is_plain: bool,
    /// See [`lbr_common::flow::flow_flags::NOBODY`].
    pub(crate) to_nobody: bool,
    /// See [`lbr_common::flow::flow_flags::WIRE`].
    pub(crate) is_wire: bool,
    /// See [`lbr_common::flow::flow_flags::DIRECT`].
    pub(crate) is_direct: bool,
    /// See [`lbr_common::flow::flow_flags::TUNNELED`].
    pub(crate) is_tunneled: bool,
    /// The flow began with this packet.
    pub(crate) is_new: bool,
}

/// What limits the events of this CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// Begin of the present second.
    pub(crate) since: u64,
    /// Events in it.
    pub(crate) sent: u32,
    /// Events that were not sent since the last one that was.
    pub(crate) suppressed: u32,
}
