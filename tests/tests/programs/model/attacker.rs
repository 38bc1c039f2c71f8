//! Packets of an untrusted pod, and of a host at the wire that forges packets.

use std::net::SocketAddr;

use lbr_tests::packet::{Packet, Reason, chunk, flags};

use super::super::random::Random;
use super::super::world::{PORT, PROTOS, SCTP, TCP, UDP, at};
use super::cast::Place;
use super::open::PORTS;
use super::{Broken, Model};

/// A forged packet.
struct Forged {
    packet: Packet,
    proto: u8,
    /// Its receiver may take it for the beginning of a conversation.
    begins: bool,
}

impl Model {
    /// A packet of the attacker never arrives as part of another's conversation, nor where policy denies it.
    pub(super) fn attack(&mut self, random: &mut Random) -> Broken {
        let from = if random.once_in(3) { Place::Pod(2) } else { Place::Wire };
        let (src, dst) = self.forged_ends(random, from);
        let forged = self.forge(random, src, dst);
        // On the wire it is indistinguishable from a packet of the host itself, or of a former backend that may still
        // send.
        let is_former = src == at(self.cast.net.remote, 8080)
            && self.talks.live.iter().any(|talk| (talk.proto, talk.client) == (forged.proto, dst));
        let is_known = forged.proto != 0 && (is_former || self.talks.sends(forged.proto, src, dst));
        if from == Place::Wire && self.cast.pod(src.ip()).is_none() && is_known {
            return Ok(());
        }
        if random.once_in(8) {
            for fragment in forged.packet.fragments(random.below(8) as u32, 8 + random.below(24)) {
                if !random.once_in(4) {
                    self.strike(from, &fragment, &forged)?;
                }
            }
            return Ok(());
        }
        self.strike(from, &forged.packet.build(), &forged)
    }

    fn strike(&mut self, from: Place, frame: &[u8], forged: &Forged) -> Broken {
        let Some(got) = self.cast.travel("attacker", from, frame) else {
            self.cast.count("attack stopped");
            return Ok(());
        };
        self.cast.count("attack passed");
        // A later fragment has no ports of its own, and an ICMP error is judged by its receiver.
        if forged.proto == 0 || got.fragment.is_some_and(|part| part.offset != 0) {
            return Ok(());
        }
        if self.talks.receives(forged.proto, got.src, got.dst) {
            return Err(format!("a forged packet arrives as one of a conversation: {got:?}"));
        }
        if forged.begins && !self.cast.allows(got.src.ip(), got.dst.ip()) {
            return Err(format!("a packet that policy denies arrives: {got:?}"));
        }
        Ok(())
    }

    fn forged_ends(&self, random: &mut Random, from: Place) -> (SocketAddr, SocketAddr) {
        let net = self.cast.net;
        let port = |random: &mut Random| random.pick(&[PORTS[0], PORTS[1], 8080, 8081, 80, 61_000]);
        // Half of the time: the ends of a live conversation's packet, as they are on the way.
        if random.once_in(2) && !self.talks.live.is_empty() {
            let talk = &self.talks.live[random.below(self.talks.live.len())];
            let (client, server) = talk.seen;
            let all = [
                (talk.client, talk.dialed),
                (client, server),
                (talk.client, server),
                (server, client),
                (talk.dialed, talk.client),
                (server, talk.client),
            ];
            let (mut src, dst) = random.pick(&all);
            if from == Place::Pod(2) && !random.once_in(3) {
                src.set_ip(self.cast.evil);
            }
            return (src, dst);
        }
        let hosts = [net.client, net.local, net.other, net.remote, net.router, self.cast.evil, net.service];
        let src =
            if from == Place::Pod(2) && !random.once_in(4) { self.cast.evil } else { random.pick(&hosts) };
        let to = [net.client, net.local, net.service, net.service2, net.local, net.service];
        (at(src, port(random)), at(random.pick(&to), port(random)))
    }

    fn forge(&self, random: &mut Random, src: SocketAddr, dst: SocketAddr) -> Forged {
        let proto = random.pick(&PROTOS);
        if random.once_in(6) {
            let inner = match proto {
                TCP => Packet::tcp(dst, src, flags::ACK),
                UDP => Packet::udp(dst, src),
                _ => Packet::sctp(dst, src, chunk::DATA),
            };
            let reasons = [
                Reason::PortUnreachable,
                Reason::HostUnreachable,
                Reason::TooBig { mtu: 1280 },
                Reason::TimeExceeded,
            ];
            let by = if random.once_in(2) { src.ip() } else { self.cast.net.router };
            let quoted = inner.payload(&[7; 24]).build_ip();
            let packet = Packet::icmp_error(by, dst.ip(), random.pick(&reasons), &quoted);
            return Forged { packet, proto: 0, begins: false };
        }
        if proto == UDP {
            return Forged { packet: Packet::udp(src, dst).payload(&[1; 40]), proto, begins: true };
        }
        if proto == SCTP {
            let usual = [chunk::INIT, chunk::INIT_ACK, chunk::COOKIE_ECHO, chunk::ABORT, chunk::DATA];
            let kind = if random.once_in(4) { random.below(16) as u8 } else { random.pick(&usual) };
            let tags = (random.below(1 << 32) as u32, random.below(1 << 32) as u32);
            let packet = Packet::sctp(src, dst, kind).tags(tags.0, tags.1).payload(&[1; 40]);
            return Forged { packet, proto, begins: kind == chunk::INIT };
        }
        let usual = [flags::SYN, flags::ACK, flags::RST, flags::SYN | flags::ACK, flags::FIN | flags::ACK];
        let bits = if random.once_in(4) { random.below(64) as u8 } else { random.pick(&usual) };
        let numbers = (random.below(1 << 32) as u32, random.below(1 << 32) as u32);
        let payload = vec![2; random.pick(&[0, 0, 9, 40])];
        let packet = Packet::tcp(src, dst, bits).numbers(numbers.0, numbers.1).payload(&payload);
        let begins = bits & (flags::SYN | flags::ACK | flags::RST) == flags::SYN;
        Forged { packet, proto, begins }
    }
}

const _: () = assert!(PORTS[0] == PORT);
