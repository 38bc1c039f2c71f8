//! The state machine of a connection, and how long each state lasts: pure functions.
//!
//! Both entries of a flow carry the state. A packet moves it, and only a packet that proves something moves it
//! forward: what an off-path sender can forge never makes a flow [`State::is_confirmed`]. Flows that are not
//! confirmed have a quota (`unconfirmed`), so a flood of first packets takes nothing from established connections.
//!
//! The words are nf_conntrack's: *original* is the direction of the first packet, *reply* the other one.

use crate::tuple::proto;

/// State of a connection. Value of [`crate::flow::Flow::state`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Unreplied: a SYN or a datagram, and no answer yet.
    New = 0,
    /// TCP, SCTP: SYN-RECEIVED, the handshake's last segment is missing. Others: answered, but not yet a stream.
    Replied = 1,
    /// Assured: the client proved that it receives what the server sends. Others: a stream.
    Established = 2,
    /// TCP: the client sent FIN (FIN-WAIT, seen from it).
    FinOriginal = 3,
    /// TCP: the server sent FIN (CLOSE-WAIT, seen from the client).
    FinReply = 4,
    /// TCP: both sent FIN (TIME-WAIT).
    Closed = 5,
    /// TCP: a RST on an assured connection. Any later segment shows that its receiver did not accept it (RFC 5961).
    Reset = 6,
    /// TCP: a RST before the connection was assured.
    Refused = 7,
    /// TCP: mid-stream pickup. The first segment that was seen opens nothing, so which end is the client is unknown.
    PickedUp = 8,
}

/// Direction of a packet within its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// As the first packet.
    Original,
    /// The other way.
    Reply,
}

/// What a packet is to the state machine, in TCP's words. [`sctp`] says which they are for SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Any packet of a protocol without handshake.
    Datagram,
    /// SYN without ACK and RST, whatever else is set: a receiver may take it for the beginning of a connection (RFC 9293,
    /// 3.10.7.2).
    Syn,
    /// SYN with ACK.
    SynAck,
    /// Neither SYN, FIN nor RST, and no payload.
    Ack,
    /// The same with payload.
    Data,
    /// FIN without RST.
    Fin,
    /// RST, whatever else is set.
    Rst,
}

/// Bits of the TCP flags byte (RFC 9293, 3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// Any of these does more than carry data.
    pub const TURNS: u8 = SYN | FIN | RST;
}

/// An SCTP packet in TCP's words, by its first chunk (RFC 9260, 3.3). Both protocols open a connection by a handshake
/// in which the client repeats a number that only the server's answer has, so they share the state machine.
pub mod sctp {
    use super::tcp_flags::{ACK, RST, SYN};

    /// Opens an association.
    pub const INIT: u8 = 1;
    /// The server's answer, with the tag that everything to the server carries from then on.
    pub const INIT_ACK: u8 = 2;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// The last packet of an association.
    pub const SHUTDOWN_COMPLETE: u8 = 14;

    /// The TCP flags that stand for this type of chunk. Every chunk that is not named is data.
    #[inline(always)]
    #[must_use]
    pub const fn as_tcp_flags(chunk: u8) -> u8 {
        match chunk {
            INIT => SYN,
            INIT_ACK => SYN | ACK,
            ABORT | SHUTDOWN_COMPLETE => RST,
            _ => ACK,
        }
    }
}

/// Whether a protocol opens connections by a handshake: TCP and SCTP.
#[inline(always)]
#[must_use]
pub const fn has_handshake(proto: u8) -> bool {
    proto == proto::TCP || proto == proto::SCTP
}

impl Segment {
    /// The kind of a TCP segment with these flags.
    #[inline(always)]
    #[must_use]
    pub const fn of_tcp(flags: u8, has_payload: bool) -> Self {
        if flags & tcp_flags::RST != 0 {
            Self::Rst
        } else if flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN {
            Self::Syn
        } else if flags & tcp_flags::FIN != 0 {
            Self::Fin
        } else if flags & tcp_flags::SYN != 0 {
            Self::SynAck
        } else if has_payload {
            Self::Data
        } else {
            Self::Ack
        }
    }
}

impl State {
    /// All of them, in order of their number.
    pub const ALL: [Self; 9] = [
        Self::New,
        Self::Replied,
        Self::Established,
        Self::FinOriginal,
        Self::FinReply,
        Self::Closed,
        Self::Reset,
        Self::Refused,
        Self::PickedUp,
    ];

    /// The state with this number. A number that is none reads as [`State::Refused`]: unconfirmed, and over.
    #[inline(always)]
    #[must_use]
    pub const fn of(number: u32) -> Self {
        match number {
            0 => Self::New,
            1 => Self::Replied,
            2 => Self::Established,
            3 => Self::FinOriginal,
            4 => Self::FinReply,
            5 => Self::Closed,
            6 => Self::Reset,
            8 => Self::PickedUp,
            _ => Self::Refused,
        }
    }

    /// Name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Replied => "replied",
            Self::Established => "established",
            Self::FinOriginal => "fin_original",
            Self::FinReply => "fin_reply",
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Refused => "refused",
            Self::PickedUp => "picked_up",
        }
    }

    /// Whether the connection is assured: nothing that is not has its place.
    #[inline(always)]
    #[must_use]
    pub const fn is_confirmed(self) -> bool {
        matches!(self, Self::Established | Self::FinOriginal | Self::FinReply | Self::Closed | Self::Reset)
    }

    /// Whether the connection has ended, so that a SYN begins a new one and others may take its tuple.
    #[inline(always)]
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Reset | Self::Refused)
    }

    /// The state of a flow that begins with this packet. `sees_replies`: answers pass by here too.
    #[inline(always)]
    #[must_use]
    pub const fn first(segment: Segment, sees_replies: bool) -> Self {
        match segment {
            // Nothing but the client's own perseverance can confirm such a flow.
            _ if !sees_replies => Self::Replied,
            Segment::Datagram | Segment::Syn => Self::New,
            _ => Self::PickedUp,
        }
    }

    /// The state after a packet. `is_proven`: see [`crate::flow::Flow::proof`].
    ///
    /// A SYN moves nothing: whether it belongs to the flow or begins another one is decided before.
    #[inline(always)]
    #[must_use]
    pub const fn next(self, side: Side, segment: Segment, is_proven: bool) -> Self {
        let is_reply = matches!(side, Side::Reply);
        match (self, segment) {
            (_, Segment::Syn) => self,

            (Self::New, Segment::Datagram) if is_reply => Self::Replied,
            (Self::Replied, Segment::Datagram) if is_proven => Self::Established,
            (_, Segment::Datagram) => self,

            (Self::Established | Self::FinOriginal | Self::FinReply, Segment::Rst) => Self::Reset,
            (Self::Closed | Self::Reset, Segment::Rst) => self,
            (_, Segment::Rst) => Self::Refused,

            (Self::New | Self::Refused, Segment::SynAck) if is_reply => Self::Replied,
            (Self::PickedUp, Segment::SynAck) if is_reply => Self::Established,
            (_, Segment::SynAck) => self,

            // An answer to an older connection with the same tuple proves nothing.
            (Self::New, _) => self,
            // A server sends data only after the handshake. A bare ACK may be its answer to a forged segment.
            (Self::Replied | Self::Refused, Segment::Data) if is_reply => Self::Established,
            (Self::Replied | Self::Refused, Segment::Fin) if is_reply => Self::FinReply,
            (Self::Replied, Segment::Ack | Segment::Data) if is_proven && !is_reply => Self::Established,
            (Self::Replied, Segment::Fin) if is_proven && !is_reply => Self::FinOriginal,
            (Self::Replied | Self::Refused, _) => self,
            // The other side takes part in the connection, so it is one.
            (Self::PickedUp, Segment::Fin) if is_reply => Self::FinReply,
            (Self::PickedUp, _) if is_reply => Self::Established,
            (Self::PickedUp, _) => self,

            (Self::Established | Self::Reset, Segment::Fin) => {
                if is_reply {
                    Self::FinReply
                } else {
                    Self::FinOriginal
                }
            }
            (Self::Reset, _) => Self::Established,
            (Self::FinOriginal, Segment::Fin) if is_reply => Self::Closed,
            (Self::FinReply, Segment::Fin) if !is_reply => Self::Closed,
            (_, _) => self,
        }
    }
}

/// A second, in the unit of [`lifetime`].
pub const SECOND_NS: u64 = 1_000_000_000;

/// Lifetimes that flags of the agent set, in seconds: kube-proxy's `conntrack` settings of the same names.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// An assured TCP connection without packets. RFC 5382, REQ-5: not below 2 h 4 min.
    pub tcp_established: u32,
    /// A TCP connection that one side has closed: the other one may still send for long.
    pub tcp_close_wait: u32,
    /// UDP that is not a stream.
    pub udp: u32,
    /// A UDP stream. RFC 4787, REQ-5: not below two minutes.
    pub udp_stream: u32,
}

impl Timeouts {
    /// The defaults of kube-proxy for TCP, and nf_conntrack's for UDP with RFC 4787's margin.
    pub const DEFAULT: Self =
        Self { tcp_established: 86_400, tcp_close_wait: 3_600, udp: 30, udp_stream: 180 };
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// For how long a flow in this state lives without a packet, in nanoseconds. Past that it is no flow any more.
#[inline(always)]
#[must_use]
pub const fn lifetime(state: State, proto: u8, timeouts: &Timeouts) -> u64 {
    let seconds = match (proto, state) {
        (proto::TCP, State::Established) => timeouts.tcp_established,
        (proto::TCP, State::FinOriginal | State::FinReply) => timeouts.tcp_close_wait,
        // nf_conntrack: time_wait.
        (proto::TCP, State::Closed) => 120,
        // The sequence number of a RST is not checked: a forged one must not end what is silent only. The tuple is free for
        // others all the same.
        (proto::TCP, State::Reset) => timeouts.tcp_close_wait,
        // nf_conntrack: close.
        (proto::TCP, State::Refused) => 10,
        // nf_conntrack: unacknowledged.
        (proto::TCP, State::PickedUp) => 300,
        // nf_conntrack: syn_recv.
        (proto::TCP, _) => 60,
        // nf_conntrack: established. Heartbeats come every 30 s (RFC 9260, 15), also after a forged ABORT.
        (proto::SCTP, State::Established | State::PickedUp | State::Reset) => 210,
        // nf_conntrack: closed.
        (proto::SCTP, State::Refused) => 10,
        // An INIT that is lost is sent again after 3 s and more.
        (proto::SCTP, _) => 60,
        (proto::UDP, State::Established) => timeouts.udp_stream,
        (proto::UDP, _) => timeouts.udp,
        // nf_conntrack: generic.
        (_, State::Established) => 600,
        // nf_conntrack: icmp.
        (_, _) => 30,
    };
    seconds as u64 * SECOND_NS
}

/// A conversation of datagrams becomes a stream after this, as nf_conntrack's does, in nanoseconds.
pub const STREAM_AFTER_NS: u64 = 2 * SECOND_NS;

/// Clock of [`crate::flow::Flow::proof`] where it is a time: units of 2^20 ns, about a millisecond, wrapping.
#[inline(always)]
#[must_use]
pub const fn stamp(now_ns: u64) -> u32 {
    (now_ns >> 20) as u32
}

/// Whether a flow that began at `stamp` is old enough to be a stream.
#[inline(always)]
#[must_use]
pub const fn is_stream(began: u32, now_ns: u64) -> bool {
    stamp(now_ns).wrapping_sub(began) >= (STREAM_AFTER_NS >> 20) as u32
}

#[cfg(test)]
mod tests;
