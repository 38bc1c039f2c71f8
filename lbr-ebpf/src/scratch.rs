//! Work space of a program at tc or XDP: what would not fit on its stack (512 bytes for all calls together). Each part
//! belongs to one room of the object. A hook has all of them, and lends to each step those that it reads or writes.

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;
use lbr_common::addr::Addr;
use lbr_common::flow::Flow;
use lbr_common::id::{BackendId, ServiceId};
use lbr_common::maps as spec;
use lbr_common::policy::Event;
use lbr_common::service::Frontend;
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Hook;

use crate::forward::fib::{Lookup, NextHop};
use crate::packet::Packet;
use crate::packet::inner::Inner;
use crate::packet::skb::MAX_QUOTE;
use crate::policy::query::Query;

#[btf_map(name = "scratch")]
static SCRATCH: PerCpuArray<Scratch, { spec::SCRATCH.max_entries }> = PerCpuArray::new();

/// Value of `scratch`, one for each CPU. Programs at tc and at XDP run with bottom halves disabled, so on one CPU only
/// one at a time.
#[repr(C)]
pub(crate) struct Scratch {
    /// The packet at hand: `packet/`.
    pub(crate) packet: Packet,
    /// The packet inside of it: what an ICMP error quotes, what a tunnel carries.
    pub(crate) inner: Inner,
    /// What becomes of it: `conntrack/`.
    pub(crate) decision: Decision,
    /// A flow in the making: `conntrack/create/`.
    pub(crate) draft: Draft,
    /// What policies are asked, and what they said: `policy/`.
    pub(crate) query: Query,
    /// What a packet of direct server return claims, and what is believed of it: `service/dsr/`.
    pub(crate) dsr: Dsr,
    /// The way out: `forward/`.
    pub(crate) way: Way,
    /// What is reported: `policy/report.rs`.
    pub(crate) reports: Reports,
    /// What is known of the packet beside its headers: `forward/exit.rs`, before the pipeline begins.
    pub(crate) meta: Meta,
}

impl Scratch {
    /// The work space of this CPU.
    #[inline(always)]
    pub(crate) fn get() -> Option<&'static mut Self> {
        // SAFETY: the entry of this CPU, which no other program uses before this one ends (see above). Within a program,
        // a hook has all of it, and a step the parts that its caller lends (`step.rs`).
        SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
    }
}

/// What is known of a packet beside its headers: the same for all steps.
#[repr(C)]
pub(crate) struct Meta {
    /// `State::epoch` when the program began. Read first: what is read later is not older.
    pub(crate) epoch: u32,
    /// `State::generation` when the program began: the packet sees all of a policy change or nothing. Not set at XDP.
    pub(crate) generation: u32,
    /// Interface that the packet is at.
    pub(crate) ifindex: u32,
    /// Interface that the packet entered the node by; 0: the node sent it. Not set at XDP.
    pub(crate) entered_by: u32,
    /// Bytes of the packet as it came.
    pub(crate) bytes: u32,
    /// The hook that runs.
    pub(crate) hook: Hook,
}

/// What a packet's flow says to do with it.
#[repr(C)]
pub(crate) struct Decision {
    /// What the packet must look like.
    pub(crate) to: Tuple,
    /// As [`lbr_common::flow::Flow::redirect_to`].
    pub(crate) redirect_to: u32,
    /// Service that the flow belongs to, if any.
    pub(crate) service: ServiceId,
    /// From backend to client.
    pub(crate) is_reply: bool,
    /// No translation: the packet stays as it is.
    pub(crate) is_no_nat: bool,
    /// See [`lbr_common::flow::flow_flags::EXTERNAL`].
    pub(crate) is_external: bool,
    /// See [`lbr_common::flow::flow_flags::DSR`].
    pub(crate) is_dsr: bool,
    /// See [`lbr_common::flow::flow_flags::DSR_IPIP`].
    pub(crate) is_dsr_ipip: bool,
    /// The flow began with this packet.
    pub(crate) is_new: bool,
}

/// Both entries of a flow that is to be stored.
#[repr(C)]
pub(crate) struct Draft {
    /// The entry of the client's packets; the packet's tuple is its key.
    pub(crate) flow: Flow,
    /// The entry of the answers,
    pub(crate) reply: Flow,
    /// and its key.
    pub(crate) reply_key: Tuple,
    /// Of another flow that has to go.
    pub(crate) other_key: Tuple,
    /// Whether another flow has its key, which is over or leads elsewhere.
    pub(crate) replaces: bool,
    /// The frontend that it leads from.
    pub(crate) frontend: Frontend,
    /// The key of that one's reverse entry.
    pub(crate) twin_key: Tuple,
    /// Kept from packet to packet: which SNAT port,
    pub(crate) next_port: u32,
    /// and how many slots of `unconfirmed` were given.
    pub(crate) slots_taken: u32,
    /// The SNAT port that was silent for longest among those in use that were met (0: none was),
    pub(crate) oldest_port: u16,
    /// and for how many nanoseconds.
    pub(crate) oldest_silence: u64,
}

/// See `service/dsr/`.
#[repr(C)]
pub(crate) struct Dsr {
    /// The packet as the client sent it, as another node says: its destination is the frontend.
    pub(crate) claim: Tuple,
    /// Backend that the other node chose, if it did.
    pub(crate) backend: BackendId,
    /// Whether the packet at hand came in another node's form, which was taken off.
    pub(crate) is_unwrapped: bool,
}

/// See `forward/route.rs`.
#[repr(C)]
pub(crate) struct Way {
    /// Where to.
    pub(crate) to: Addr,
    /// The question to the kernel, and its answer.
    pub(crate) lookup: Lookup,
    /// Bytes that the packet grows by before it leaves.
    pub(crate) added: u32,
    /// The next hop, for the kernel.
    pub(crate) next_hop: NextHop,
    /// Bytes to take a checksum of: `forward/refuse.rs`.
    pub(crate) quote: [u32; MAX_QUOTE / 4],
}

/// See `policy/report.rs`.
#[repr(C)]
pub(crate) struct Reports {
    /// An event in the making.
    pub(crate) event: Event,
    /// What limits the events of this CPU: the begin of the present second,
    pub(crate) since: u64,
    /// the events in it,
    pub(crate) sent: u32,
    /// and those that were not sent since the last one that was.
    pub(crate) suppressed: u32,
}
