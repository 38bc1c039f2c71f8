//! A packet in the payload of another one: what an ICMP error quotes, and what a node sends on in a packet of its own.

use lbr_common::tuple::proto;
use lbr_common::verdict::Verdict;

use crate::packet::skb::Skb;
use crate::packet::{self, Packet, Part};
use crate::step::{self, Step};

/// The packet inside of the one at hand.
#[repr(C)]
pub(crate) struct Inner {
    pub(crate) packet: Packet,
}

step::global! {
    /// Reads its headers, from `l3` on. Both are of one family.
    pub(crate) fn read(skb: Skb, packet: &Packet, inner: &mut Inner; l3: u32) -> Step
        = read_inside as packet_inner;
}

#[inline(always)]
fn read_inside(skb: Skb, outer: &Packet, inner: &mut Inner, l3: u32) -> Step {
    let inner = &mut inner.packet;
    if outer.is_v4 {
        let ip: packet::Ipv4 = skb.load(l3).map_err(|_| Verdict::Malformed)?;
        packet::read_v4(&ip, l3, inner)?;
    } else {
        let ip: packet::Ipv6 = skb.load(l3).map_err(|_| Verdict::Malformed)?;
        packet::read_v6(skb, &ip, l3, inner)?;
    }
    if inner.part == Part::Later {
        return Ok(());
    }
    if inner.l4 + size_of::<packet::L4>() as u32 > outer.end {
        return Err(Verdict::Malformed);
    }
    match inner.tuple.proto {
        proto::TCP | proto::UDP | proto::SCTP => {
            let l4: packet::L4 = skb.load(inner.l4).map_err(|_| Verdict::Malformed)?;
            packet::set_ports(inner, l4.src_port, l4.dst_port);
        }
        proto::ICMP | proto::ICMPV6 => {
            let icmp: packet::Icmp = skb.load(inner.l4).map_err(|_| Verdict::Malformed)?;
            packet::set_echo(inner, &icmp);
        }
        _ => {}
    }
    Ok(())
}
