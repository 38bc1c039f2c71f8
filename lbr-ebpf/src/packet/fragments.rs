//! Fragments: only the first one carries ports, the others borrow them.

use aya_ebpf::bindings::BPF_ANY;
use lbr_common::flow::{FragmentKey, FragmentPorts};
use lbr_common::verdict::{Effect, Verdict};

use crate::maps::FRAGMENTS;
use crate::packet::{Packet, Part};
use crate::scratch::Scratch;
use crate::service;
use crate::step::{self, Step};

/// Keeps the ports of the packet at hand, if it is a first fragment, for those that follow.
#[inline(always)]
pub(crate) fn remember(work: &mut Scratch) -> Step {
    if work.packet.part == Part::First { keep(work) } else { Ok(()) }
}

step::global! {
    /// Keeps the ports of a first fragment.
    fn keep(work: &mut Scratch) -> Step = store_ports as fragments_remember;
}

#[inline(always)]
fn store_ports(work: &mut Scratch) -> Step {
    let packet = &work.packet;
    let ports = FragmentPorts { src_port: packet.tuple.src_port, dst_port: packet.tuple.dst_port };
    FRAGMENTS.insert(key(packet), ports, u64::from(BPF_ANY)).map_err(|_| Verdict::FlowTableFull)
}

/// The same where the pipeline may have left the packet to the stack: the rest of the datagram goes on as well. Without its
/// ports a pod that is isolated could not send it.
#[inline(always)]
pub(crate) fn remember_if_passed<T>(work: &mut Scratch, outcome: &Result<T, Verdict>) -> Step {
    match outcome {
        Err(verdict) if verdict.effect() != Effect::Pass => Ok(()),
        _ => remember(work),
    }
}

step::global! {
    /// Gives a later fragment the ports of its datagram.
    ///
    /// A fragment that came before the first one, or whose first one was not tracked, has no entry. For an
    /// address of a Service that means drop: without ports it has no translation, and must not leave untranslated.
    pub(crate) fn complete(work: &mut Scratch) -> Step = fill_in as fragments_complete;
}

#[inline(always)]
fn fill_in(work: &mut Scratch) -> Step {
    let packet = &mut work.packet;
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

/// Whether the first fragment of a datagram was kept.
#[inline(always)]
pub(crate) fn is_known(packet: &Packet) -> bool {
    FRAGMENTS.get_ptr(key(packet)).is_some()
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
