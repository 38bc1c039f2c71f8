//! Conversations of honest hosts, and the check that each packet arrives as part of its conversation.

use std::net::SocketAddr;

use lbr_tests::packet::{Packet, chunk, flags};

use super::super::random::Random;
use super::super::world::{SCTP, TCP, UDP, tuple};
use super::{Broken, Model};

/// How far a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client has sent a SYN or a datagram.
    Asked,
    /// The server has answered.
    Answered,
    /// Both sides send.
    Open,
    /// TCP: one side has sent FIN; true: the client.
    Half(bool),
}

#[derive(Clone, Debug)]
pub(super) struct Talk {
    pub(super) proto: u8,
    pub(super) client: SocketAddr,
    /// The address that the client asks: a Service's, or a server's own.
    pub(super) dialed: SocketAddr,
    /// Client and server, as the server sees them.
    pub(super) seen: (SocketAddr, SocketAddr),
    /// Initial sequence numbers; SCTP: tags.
    pub(super) isn: (u32, u32),
    pub(super) phase: Phase,
    /// UDP: its backend is gone, so that the next datagram of the client finds another one.
    pub(super) moves: bool,
    /// The backend is gone: a repeated SYN would find another one.
    pub(super) is_orphan: bool,
}

/// The live conversations.
#[derive(Debug, Default)]
pub(super) struct Talks {
    pub(super) live: Vec<Talk>,
    /// Protocol and ends of datagram conversations as seen by backends that they have left: answers may still be on
    /// the way.
    pub(super) left: Vec<(u8, (SocketAddr, SocketAddr))>,
}

impl Talks {
    /// Whether a host has a conversation with these ends, seen from it, as (itself, the other one).
    pub(super) fn uses(&self, proto: u8, own: SocketAddr, other: SocketAddr) -> bool {
        self.live.iter().any(|talk| {
            talk.proto == proto && ((talk.client, talk.dialed) == (own, other) || talk.seen == (other, own))
        })
    }

    /// Whether a packet with these ends belongs to a conversation, where it is received.
    pub(super) fn receives(&self, proto: u8, src: SocketAddr, dst: SocketAddr) -> bool {
        self.uses(proto, dst, src)
    }

    /// Whether a packet with these ends belongs to a conversation, where it is sent.
    pub(super) fn sends(&self, proto: u8, src: SocketAddr, dst: SocketAddr) -> bool {
        self.uses(proto, src, dst)
    }
}

/// The SCTP packet in the place of a TCP segment with these flags.
fn association(src: SocketAddr, dst: SocketAddr, bits: u8, own: u32, other: u32) -> Packet {
    let (kind, tag) = match bits & (flags::SYN | flags::ACK | flags::RST) {
        flags::SYN => (chunk::INIT, 0),
        flags::RST => (chunk::ABORT, other),
        bits if bits & flags::RST != 0 => (chunk::SHUTDOWN_COMPLETE, other),
        bits if bits & flags::SYN != 0 => (chunk::INIT_ACK, other),
        _ => (chunk::DATA, other),
    };
    Packet::sctp(src, dst, kind).tags(own, tag)
}

impl Talk {
    fn packet(&self, by_client: bool, bits: u8, payload: &[u8]) -> Packet {
        let (src, dst) = if by_client { (self.client, self.dialed) } else { (self.seen.1, self.seen.0) };
        let (own, other) = if by_client { self.isn } else { (self.isn.1, self.isn.0) };
        match self.proto {
            UDP => return Packet::udp(src, dst).payload(b"datagram"),
            SCTP => return association(src, dst, bits, own, other).payload(payload),
            _ => {}
        }
        let numbers = match bits & (flags::SYN | flags::ACK) {
            flags::SYN => (own, 0),
            bits if bits & flags::SYN != 0 => (own, other.wrapping_add(1)),
            _ => (own.wrapping_add(1), other.wrapping_add(1)),
        };
        Packet::tcp(src, dst, bits).numbers(numbers.0, numbers.1).payload(payload)
    }
}

impl Model {
    /// A live conversation takes its next step.
    pub(super) fn go_on(&mut self, random: &mut Random) -> Broken {
        if self.talks.live.is_empty() {
            return Ok(());
        }
        let at = random.below(self.talks.live.len());
        let talk = self.talks.live[at].clone();
        if talk.moves {
            return self.find_backend(at);
        }
        let has_handshake = talk.proto != UDP;
        match talk.phase {
            Phase::Asked if has_handshake && random.once_in(12) => {
                self.reset_by(at, false, flags::RST | flags::ACK)
            }
            Phase::Asked if random.once_in(4) && !talk.is_orphan => self.send(at, true, flags::SYN, b""),
            Phase::Asked => {
                self.send(at, false, flags::SYN | flags::ACK, b"")?;
                self.set_phase(at, Phase::Answered);
                Ok(())
            }
            Phase::Answered if has_handshake && random.once_in(12) => self.reset_by(at, true, flags::RST),
            Phase::Answered => {
                if !has_handshake && random.once_in(2) {
                    self.wait(at, 3);
                }
                self.send(at, true, flags::ACK, b"")?;
                self.set_phase(at, Phase::Open);
                Ok(())
            }
            Phase::Open if has_handshake && random.once_in(12) => {
                self.reset_by(at, random.once_in(2), flags::RST | flags::ACK)
            }
            Phase::Open if random.once_in(6) => {
                if talk.proto != TCP {
                    self.end(at);
                    return Ok(());
                }
                let by_client = random.once_in(2);
                self.send(at, by_client, flags::FIN | flags::ACK, b"")?;
                self.set_phase(at, Phase::Half(by_client));
                Ok(())
            }
            Phase::Half(by_client) if random.once_in(2) => {
                self.send(at, !by_client, flags::FIN | flags::ACK, b"")?;
                self.send(at, by_client, flags::ACK, b"")?;
                self.cast.count("closed");
                self.talks.live.remove(at);
                Ok(())
            }
            // A side that has sent FIN sends nothing but ACK.
            Phase::Half(by_client) => self.send(at, by_client, flags::ACK, b""),
            Phase::Open => self.send(at, random.once_in(2), flags::PSH | flags::ACK, b"some data"),
        }
    }

    fn set_phase(&mut self, at: usize, phase: Phase) {
        self.talks.live[at].phase = phase;
    }

    fn reset_by(&mut self, at: usize, by_client: bool, bits: u8) -> Broken {
        self.send(at, by_client, bits, b"")?;
        self.cast.count("reset");
        self.talks.live.remove(at);
        Ok(())
    }

    /// Sends a packet of a conversation, which must arrive as part of it.
    pub(super) fn send(&mut self, at: usize, by_client: bool, bits: u8, payload: &[u8]) -> Broken {
        let talk = self.talks.live[at].clone();
        let frame = talk.packet(by_client, bits, payload).build();
        let sender = if by_client { talk.client } else { talk.seen.1 };
        let place = self.cast.place(sender.ip());
        let got = self.cast.travel("honest", place, &frame).map(|got| (got.src, got.dst));
        let wanted = if by_client { talk.seen } else { (talk.dialed, talk.client) };
        if got != Some(wanted) {
            return Err(format!("{talk:?}: a packet arrives as {got:?} instead of {wanted:?}"));
        }
        self.cast.count(if by_client { "there" } else { "back" });
        Ok(())
    }

    /// Lets so many seconds pass without a packet.
    pub(super) fn wait(&mut self, at: usize, seconds: u64) {
        let talk = &self.talks.live[at];
        let keys = [tuple(talk.proto, talk.client, talk.dialed), tuple(talk.proto, talk.seen.1, talk.seen.0)];
        let world = &mut self.cast.wire.world;
        if let Some(key) = keys.into_iter().find(|key| world.has_flow(*key)) {
            world.age(key, seconds);
        }
    }

    /// Both sides forget the conversation, and so does the node in time.
    pub(super) fn end(&mut self, at: usize) {
        self.wait(at, 100_000);
        self.talks.live.remove(at);
    }
}
