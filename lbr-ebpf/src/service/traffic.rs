//! What goes through each Service.

use aya_ebpf::bindings::BPF_NOEXIST;
use lbr_common::id::ServiceId;
use lbr_common::service::Traffic;

use crate::maps::TRAFFIC;
use crate::scratch::{Decision, Meta};

/// A packet that is translated as `decision` says.
#[inline(always)]
pub(crate) fn translated(meta: &Meta, decision: &Decision) {
    if decision.service.is_none() {
        return;
    }
    let Some(traffic) = of(decision.service) else { return };
    let bytes = u64::from(meta.bytes);
    if decision.is_reply {
        traffic.response_packets += 1;
        traffic.response_bytes += bytes;
    } else {
        traffic.connections += u64::from(decision.is_new);
        traffic.request_packets += 1;
        traffic.request_bytes += bytes;
    }
}

/// A socket of the node that is connected to a backend.
#[inline(always)]
pub(crate) fn connected(service: ServiceId) {
    if let Some(traffic) = of(service) {
        traffic.connections += 1;
    }
}

/// The entry of this CPU, made if there is none.
#[inline(always)]
fn of(service: ServiceId) -> Option<&'static mut Traffic> {
    let entry = TRAFFIC.get_ptr_mut(service).or_else(|| first(service));
    // SAFETY: as for `counters`. The kernel may hand an evicted entry to another Service meanwhile, which costs a
    // count.
    entry.map(|entry| unsafe { &mut *entry })
}

#[inline(never)]
fn first(service: ServiceId) -> Option<*mut Traffic> {
    static NONE: Traffic = Traffic {
        connections: 0,
        request_packets: 0,
        request_bytes: 0,
        response_packets: 0,
        response_bytes: 0,
    };
    // Fails only when another CPU was faster.
    let _ = TRAFFIC.insert(service, NONE, u64::from(BPF_NOEXIST));
    TRAFFIC.get_ptr_mut(service)
}
