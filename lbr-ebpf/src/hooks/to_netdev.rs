//! What leaves by an uplink: answers of the node's own processes that are backends of a Service. What pods send was
//! looked at where it came in, but for datagrams that the stack has masqueraded since.

use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Hook, Verdict};

use crate::conntrack::{self, create};
use crate::forward::exit::Outcome;
use crate::maps;
use crate::nat::{self, icmp_error};
use crate::packet::skb::Skb;
use crate::packet::{self, Packet, Part, fragments};
use crate::policy::query::Query;
use crate::scratch::{Draft, Meta, Scratch};
use crate::service;
use crate::step::Step;

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    let Scratch { packet, inner, meta, query, decision, draft, dsr, way, .. } = work;
    if meta.entered_by != 0 {
        if maps::has_udp_own_ports() && packet::may_be_udp_from(skb, maps::may_be_own_port) {
            packet::parse_at_uplink(skb, packet)?;
            note_datagram(packet, meta, query, draft)?;
        }
        return Err(Verdict::NotService);
    }
    packet::parse_at_uplink(skb, packet)?;
    if packet.is_of_link_scope() {
        return Err(Verdict::NeighborDiscovery);
    }
    if packet.is_icmp_error() {
        icmp_error::translate(skb, packet, inner, meta, query, decision, way)?;
        decision.redirect_to = 0;
        return Ok(Verdict::IcmpError);
    }
    if packet.part == Part::Later {
        fragments::complete(packet)?;
    }
    if !conntrack::find(packet, meta, query, decision, draft, dsr, Hook::ToNetdev)? {
        if maps::has_udp_own_ports() {
            note_datagram(packet, meta, query, draft)?;
        }
        return Err(without_flow(&packet.tuple));
    }
    if !decision.is_external || !decision.is_reply {
        return Err(Verdict::Node);
    }
    nat::is_possible(packet, &decision.to)?;
    fragments::remember(packet)?;
    nat::rewrite(skb, packet, &decision.to)?;
    // The packet is on its way out of the right interface already.
    decision.redirect_to = 0;
    Ok(Verdict::ToClient)
}

/// What the node sends on its own. To an address that only a Service has, no protocol leads anywhere but those of sockets,
/// which are connected to backends before.
#[inline(always)]
fn without_flow(tuple: &Tuple) -> Verdict {
    let is_of_sockets = matches!(tuple.proto, proto::TCP | proto::UDP);
    if service::is_unallocated(&tuple.dst) {
        Verdict::UnallocatedAddress
    } else if !is_of_sockets && service::owns_address(&tuple.dst) {
        Verdict::Unanswerable
    } else {
        Verdict::Node
    }
}

/// A datagram that has no flow: its answer must not be taken for a client's request.
#[inline(always)]
fn note_datagram(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step {
    if packet.tuple.proto == proto::UDP && packet.part != Part::Later {
        create::from_host(packet, meta, query, draft)?;
    }
    Ok(())
}
