//! Datagrams of the node itself, and of what its stack masquerades, from a port of the node that is a Service's: a NodePort,
//! or the port of a load balancer whose address is the node's.
//!
//! The answer looks like a client's request to that port. TCP says which it is by its flags, UDP does not, so such a
//! datagram makes a flow, and the answer finds it.

use lbr_common::flow::flow_flags;

use super::store::{NEVER, store};
use super::{Terms, draft_flow};
use crate::maps;
use crate::packet::Packet;
use crate::policy::query::Query;
use crate::scratch::{Draft, Meta};
use crate::service;
use crate::step::{self, Step};

step::global! {
    /// Begins a flow if the packet at hand, which has none and leaves by an uplink, is such a datagram. One whose answers
    /// are a known flow's already is an answer itself.
    pub(crate) fn from_host(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step
        = begin_from_host as conntrack_begin_from_host;
}

#[inline(always)]
fn begin_from_host(packet: &Packet, meta: &Meta, query: &mut Query, draft: &mut Draft) -> Step {
    let from = &packet.tuple;
    if !maps::may_be_own_port(from.src_port) || !service::has_port(&from.src, from.src_port, from.proto) {
        return Ok(());
    }
    draft.flow.to = packet.tuple;
    query.forget_audits();
    query.receiver_link = 0;
    draft_flow(packet, meta, query, draft, &Terms::plain(flow_flags::NO_NAT | flow_flags::HOST));
    // A living flow that has these answers already is the client's: the datagram is an answer itself.
    store(packet, meta, draft, 0, NEVER).map(|_| ())
}
