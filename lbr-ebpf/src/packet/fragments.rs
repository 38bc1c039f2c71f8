//! Fragments: only the first one carries ports, the others borrow them.

use aya_ebpf::bindings::BPF_ANY;
use lbr_common::addr::Addr;
use lbr_common::flow::{FragmentKey, FragmentPorts};
use lbr_common::verdict::{Effect, Verdict};

use crate::maps::FRAGMENTS;
use crate::packet::{Packet, Part};
use crate::service;
use crate::step::{self, Step};

/// Keeps the ports of the packet at hand, if it is a first fragment, for those that follow.
#[inline(always)]
pub(crate) fn remember(packet: &Packet) -> Step {
    if packet.part == Part::First { keep(packet) } else { Ok(()) }
}

step::global! {
    /// Keeps the ports of a first fragment.
    fn keep(packet: &Packet) -> Step = store_ports as fragments_remember;
}

#[inline(always)]
fn store_ports(packet: &Packet) -> Step {
    let ports = FragmentPorts { src_port: packet.tuple.src_port, dst_port: packet.tuple.dst_port };
    FRAGMENTS.insert(key(packet), ports, u64::from(BPF_ANY)).map_err(|_| Verdict::FlowTableFull)
}

/// The same where the pipeline may have left the packet to the stack: the rest of the datagram goes on as well. Without its
/// ports a pod that is isolated could not send it.
#[inline(always)]
pub(crate) fn remember_if_passed<T>(packet: &Packet, outcome: &Result<T, Verdict>) -> Step {
    match outcome {
        Err(verdict) if verdict.effect() != Effect::Pass => Ok(()),
        _ => remember(packet),
    }
}

step::global! {
    /// Gives a later fragment the ports of its datagram.
    ///
    /// A fragment that came before the first one, or whose first one was not tracked, has no entry. For an
    /// address of a Service that means drop: without ports it has no translation, and must not leave untranslated.
    pub(crate) fn complete(packet: &mut Packet) -> Step = fill_in as fragments_complete;
}

#[inline(always)]
fn fill_in(packet: &mut Packet) -> Step {
    // SAFETY: the entry is copied at once, before anything else touches the map.
    if let Some(&ports) = unsafe { FRAGMENTS.get(key(packet)) } {
        packet.tuple.src_port = ports.src_port;
        packet.tuple.dst_port = ports.dst_port;
        Ok(())
    } else if service::owns_address(&packet.tuple.dst) {
        Err(Verdict::FragmentUnknown)
    } else {
        Err(Verdict::FragmentNotTracked)
    }
}

/// Whether the first fragment of a datagram was kept, which was sent to `dst`.
#[inline(always)]
pub(crate) fn is_known(packet: &Packet, dst: &Addr) -> bool {
    FRAGMENTS.get_ptr(FragmentKey { dst: *dst, ..key(packet) }).is_some()
}

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    FragmentKey {
        src: packet.tuple.src,
        dst: packet.tuple.dst,
        id: packet.fragment_id,
        proto: packet.tuple.proto,
        _pad: [0; 3],
    }
}
