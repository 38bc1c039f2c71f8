//! Flows: what was decided for a connection, kept for its life.
//!
//! A connection has two entries, one for each direction, of the same shape: *packets with this
//! tuple (key) leave with that tuple ([`Flow::to`])*. The two mirror each other: the key of one is the
//! reversed `to` of the other, so that either can rebuild its twin after the kernel evicted that one.
//! Only the kernel writes them.

use crate::conntrack::{self, State};
use crate::epoch::Place;
use crate::id::{BackendId, PolicySetId, ServiceId};
use crate::tuple::Tuple;

/// Value of `flows`; the key is the [`Tuple`] of a packet as it arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// What a packet of this direction must look like when it leaves.
    pub to: Tuple,
    /// `CLOCK_MONOTONIC` in nanoseconds of a recent packet; exact to [`TOUCH_INTERVAL_NS`].
    pub last_seen: u64,
    /// [`crate::service::Frontend::service`]; none: no Service is concerned, and `to` is the key.
    pub service: ServiceId,
    /// Key of `backends`; none without a Service.
    pub backend: BackendId,
    /// Interface index for `bpf_redirect_peer`; 0: the packet goes on to the stack; or [`BY_ROUTE`].
    pub redirect_to: u32,
    /// [`crate::service::State::epoch`] up to which no change is known that concerns the flow and that it was not checked
    /// after: see [`crate::epoch`].
    pub epoch: u32,
    /// See [`flow_flags`].
    pub flags: u32,
    /// `redirect_to` of the twin entry.
    pub twin_redirect_to: u32,
    /// Interface index of the pod's link that packets of this direction came in by. Their source address was verified there,
    /// and is not looked up again. 0: none so far.
    pub in_ifindex: u32,
    /// Audited sets that would not have allowed it, as last reported: [`audited_sets`]. 0: none.
    pub audited: u32,
    /// Number of the [`State`].
    pub state: u32,
    /// What the client has to show before the flow counts as assured. TCP: the acknowledgment number that only a
    /// receiver of the server's SYN/ACK knows. Others, and with [`flow_flags::DSR`]: [`conntrack::stamp`] of the
    /// first packet, since nothing but time can be asked for.
    pub proof: u32,
    /// Interface index of the pod's link that packets of this direction left by. Their destination address was verified
    /// there, and is not looked up again. 0: none so far.
    pub out_ifindex: u32,
    /// Index in `unconfirmed` of the slot that the flow was given when it began. A slot that comes round again may name the
    /// tuple of a former flow, which this one has now: only in this slot it is this flow's.
    pub slot: u32,
    /// [`Place::near`] of each of [`Flow::places`].
    pub near: [u16; 3],
    #[doc(hidden)]
    pub _pad: [u8; 2],
}

/// Value of [`Flow::redirect_to`]: out by the node's routes, past its stack, which would not take a packet that has the
/// node's own address as its source.
pub const BY_ROUTE: u32 = u32::MAX;

/// Value of [`Flow::audited`]: the audited set of each end that would not have allowed a connection, or none. Two
/// such values are the same only if the sets are, as long as set numbers are below 65,536; beyond, a difference
/// may be missed.
#[inline(always)]
pub const fn audited_sets(egress: PolicySetId, ingress: PolicySetId) -> u32 {
    egress.id.rotate_left(16) ^ ingress.id
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// The entry of the answers (backend to client).
    pub const REPLY: u32 = 1;
    /// Client and backend are the same pod: the source is translated too.
    pub const HAIRPIN: u32 = 8;
    /// Mid-stream pickup: begun by a TCP segment that opens nothing, so which end is the client is unknown.
    pub const PICKED_UP: u32 = 16;
    /// Nothing is translated.
    pub const NO_NAT: u32 = 32;
    /// The client is reached by the wire: it came in by an uplink.
    pub const EXTERNAL: u32 = 128;
    /// The backend's node answers the client itself: packets keep the client's address and carry the frontend's, and
    /// there is no entry for answers, which do not come by here.
    pub const DSR: u32 = 256;
    /// With [`DSR`]: packets stay as they are, and travel in a packet from node to backend (IP in IP: RFC 2003, RFC
    /// 2473), which the backend's node takes off. Without: the frontend is an option of the packet itself.
    pub const DSR_IPIP: u32 = 512;
    /// Begun by a datagram of the node itself, or of what its stack masquerades, from a port that is a Service's: what
    /// answers it is the stack's, not the Service's.
    pub const HOST: u32 = 1024;
    /// What the twin entry must not inherit.
    pub const OWN: u32 = REPLY;
}

impl Flow {
    /// The key of the entry of the other direction.
    #[inline(always)]
    pub const fn twin_key(&self) -> Tuple {
        self.to.reversed()
    }

    /// The entry of the other direction, made from this one and its key.
    #[inline(always)]
    pub const fn twin(&self, key: &Tuple) -> Self {
        let mut twin = *self;
        self.write_twin(key, &mut twin);
        twin
    }

    /// Makes `twin` the entry of the other direction. In place, since a program's stack is small.
    #[inline(always)]
    pub const fn write_twin(&self, key: &Tuple, twin: &mut Self) {
        let kept = self.flags & !flow_flags::OWN;
        twin.to = key.reversed();
        twin.last_seen = self.last_seen;
        twin.service = self.service;
        twin.backend = self.backend;
        twin.redirect_to = self.twin_redirect_to;
        twin.epoch = self.epoch;
        twin.flags = kept | (!self.flags & flow_flags::REPLY);
        twin.twin_redirect_to = self.redirect_to;
        // What left by a link comes back by it.
        twin.in_ifindex = self.out_ifindex;
        twin.out_ifindex = self.in_ifindex;
        twin.audited = self.audited;
        twin.state = self.state;
        twin.proof = self.proof;
        twin.slot = self.slot;
        twin.note_places(&self.twin_key());
    }

    /// What packets with this key, the entry's own, depend on: the ends that policies are asked about, which are also the
    /// source and, without a Service, the destination as it is addressed; and its Service, or the place that may become
    /// one's.
    #[inline(always)]
    pub const fn places(&self, key: &Tuple) -> [Place; 3] {
        let place = if self.service.is_some() {
            Place::service(self.service)
        } else {
            Place::port(&key.dst, key.dst_port)
        };
        [Place::address(&key.src), Place::address(&self.to.dst), place]
    }

    /// Remembers the near cells of what packets with this key depend on.
    #[inline(always)]
    pub const fn note_places(&mut self, key: &Tuple) {
        let [src, dst, service] = self.places(key);
        self.near = [src.near(), dst.near(), service.near()];
    }

    /// The links of both ends, and the one that its packets are put into: what packets depend on, too.
    #[inline(always)]
    pub const fn links(&self) -> [Place; 3] {
        [Place::link(self.in_ifindex), Place::link(self.out_ifindex), Place::link(self.redirect_to)]
    }

    /// Its state.
    #[inline(always)]
    pub const fn state(&self) -> State {
        State::of(self.state)
    }

    /// The direction of its packets.
    #[inline(always)]
    pub const fn side(&self) -> conntrack::Side {
        if self.flags & flow_flags::REPLY != 0 { conntrack::Side::Reply } else { conntrack::Side::Original }
    }

    /// Nanoseconds since a packet was noted. Another CPU may have noted one after `now`.
    #[inline(always)]
    pub const fn silence(&self, now: u64) -> u64 {
        let silence = now.wrapping_sub(self.last_seen) as i64;
        if silence < 0 { 0 } else { silence as u64 }
    }
}

/// A flow's time stamp is renewed, and its twin looked at, at most this often.
pub const TOUCH_INTERVAL_NS: u64 = 1_000_000_000;

/// Key of `fragments`: what the fragments of one datagram share (RFC 791, RFC 8200 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// Source address as it arrives.
    pub src: crate::addr::Addr,
    /// Destination address as it arrives.
    pub dst: crate::addr::Addr,
    /// Identification field, host byte order.
    pub id: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Always zero: part of a hash key.
    pub _pad: [u8; 3],
}

/// Value of `fragments`: the ports, which only the first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentPorts {
    /// Source port, host byte order.
    pub src_port: u16,
    /// Destination port, host byte order.
    pub dst_port: u16,
}

/// Key of `sockets`: a datagram socket of the node and where it received from, or sends to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketKey {
    /// The other end: the backend in an entry for receiving, the frontend in one for sending.
    pub addr: crate::addr::Addr,
    /// `bpf_get_socket_cookie`.
    pub cookie: u64,
    /// Port of the other end, host byte order.
    pub port: u16,
    /// IP protocol number.
    pub proto: u8,
    /// See [`socket_use`].
    pub usage: u8,
    /// Always zero: part of a hash key.
    pub _pad: u32,
}

/// Values of [`SocketKey::usage`].
pub mod socket_use {
    /// From backend to frontend: what `recvmsg` and `getpeername` show.
    pub const SHOW: u8 = 0;
    /// From frontend to backend: what `sendmsg` chose before.
    pub const SEND: u8 = 1;
}

/// Value of `sockets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketPeer {
    /// The address that takes the place of the key's.
    pub addr: crate::addr::Addr,
    /// Key of `backends`.
    pub backend: BackendId,
    /// The port that takes the place of the key's, host byte order.
    pub port: u16,
    /// Reserved, zero.
    pub _pad: u16,
}

const _: () = assert!(size_of::<Flow>() == 104);
const _: () = assert!(size_of::<FragmentKey>() == 40);
const _: () = assert!(size_of::<SocketKey>() == 32);
const _: () = assert!(size_of::<SocketPeer>() == 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;

    fn tuple(src: u8, src_port: u16, dst: u8, dst_port: u16) -> Tuple {
        Tuple {
            src: Addr::v4([10, 0, 0, src]),
            dst: Addr::v4([10, 0, 0, dst]),
            src_port,
            dst_port,
            proto: crate::tuple::proto::TCP,
            _pad: [0; 3],
        }
    }

    #[test]
    fn twins_rebuild_each_other() {
        let key = tuple(1, 4000, 200, 80);
        let mut forward = Flow {
            to: tuple(1, 4000, 2, 8080),
            last_seen: 7,
            service: ServiceId { id: 3 },
            backend: BackendId { id: 4 },
            redirect_to: 5,
            epoch: 6,
            flags: 0,
            twin_redirect_to: 9,
            in_ifindex: 11,
            audited: 10,
            state: State::Established as u32,
            proof: 13,
            out_ifindex: 12,
            slot: 0,
            ..Flow::default()
        };
        forward.note_places(&key);
        let reply_key = forward.twin_key();
        assert_eq!(reply_key, tuple(2, 8080, 1, 4000));
        let reply = forward.twin(&key);
        assert_eq!(reply.to, tuple(200, 80, 1, 4000));
        assert_eq!((reply.redirect_to, reply.twin_redirect_to, reply.flags), (9, 5, flow_flags::REPLY));
        assert_eq!((reply.in_ifindex, reply.out_ifindex, reply.state()), (12, 11, State::Established));
        assert_eq!(reply.twin_key(), key);
        assert_ne!(reply.near[0], forward.near[0]);
        assert_eq!(reply.near[2], forward.near[2]);
        assert_eq!(reply.twin(&reply_key), forward);
    }
}
