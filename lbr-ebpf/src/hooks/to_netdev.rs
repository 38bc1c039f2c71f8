//! What leaves by an uplink: answers of the node's own processes that are backends of a Service. What pods send was
//! looked at where it came in, but for datagrams that the stack has masqueraded since.

use lbr_common::tuple::{Tuple, proto};
use lbr_common::verdict::{Hook, Verdict};

use crate::conntrack::{self, create};
use crate::forward::exit::Outcome;
use crate::maps;
use crate::nat::{self, icmp_error};
use crate::packet::skb::Skb;
use crate::packet::{self, Part, fragments};
use crate::scratch::Scratch;
use crate::service;

/// The pipeline.
#[inline(always)]
pub(crate) fn run(skb: Skb, work: &mut Scratch) -> Outcome {
    if work.entered_by != 0 {
        if maps::has_udp_own_ports() && packet::may_be_udp_from(skb, maps::may_be_own_port) {
            packet::parse_at_uplink(skb, &mut work.packet)?;
            note_datagram(work)?;
        }
        return Err(Verdict::NotService);
    }
    packet::parse_at_uplink(skb, &mut work.packet)?;
    if work.packet.is_of_link_scope() {
        return Err(Verdict::NeighborDiscovery);
    }
    if work.packet.is_icmp_error() {
        icmp_error::translate(skb, work)?;
        work.decision.redirect_to = 0;
        return Ok(Verdict::IcmpError);
    }
    if work.packet.part == Part::Later {
        fragments::complete(work)?;
    }
    if !conntrack::find(work, Hook::ToNetdev)? {
        if maps::has_udp_own_ports() {
            note_datagram(work)?;
        }
        return Err(without_flow(&work.packet.tuple));
    }
    if !work.decision.is_external || !work.decision.is_reply {
        return Err(Verdict::Node);
    }
    nat::is_possible(&work.packet, &work.decision.to)?;
    fragments::remember(work)?;
    nat::rewrite(skb, &work.packet, &work.decision.to)?;
    // The packet is on its way out of the right interface already.
    work.decision.redirect_to = 0;
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
fn note_datagram(work: &mut Scratch) -> Result<(), Verdict> {
    if work.packet.tuple.proto == proto::UDP && work.packet.part != Part::Later {
        create::from_host(work)?;
    }
    Ok(())
}
