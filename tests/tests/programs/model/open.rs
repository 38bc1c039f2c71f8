//! How conversations begin.

use std::net::SocketAddr;

use lbr_tests::packet::Parsed;

use super::super::random::Random;
use super::super::world::{PORT, PROTOS, at, opening};
use super::talk::{Phase, Talk};
use super::{Broken, Model};

/// Few ports, so that tuples meet.
pub(super) const PORTS: [u16; 3] = [PORT, PORT + 1, 8080];

impl Model {
    /// A host opens a conversation, unless it has one with these ends.
    pub(super) fn open(&mut self, random: &mut Random) -> Broken {
        let (net, port) = (self.cast.net, random.pick(&PORTS));
        let proto = random.pick(&PROTOS);
        let backend = at(net.local, random.pick(&[8080, 8080, 8081]));
        let served = random.pick(&PORTS);
        let (client, dialed) = match random.below(12) {
            0..3 => (at(net.client, port), at(net.service, 80)),
            3..5 => (at(net.client, port), backend),
            5 => (at(net.client, port), at(net.service2, 80)),
            6..8 => (at(net.local, port), at(net.client, served)),
            8..10 => (at(net.other, port), at(net.service, 80)),
            10 => (at(net.other, port), random.pick(&[backend, at(net.client, served)])),
            _ => (at(net.other, port), at(net.service2, 80)),
        };
        if self.talks.uses(proto, client, dialed) || self.talks.left.contains(&(proto, (dialed, client))) {
            return Ok(());
        }
        let isn = (random.below(1 << 32) as u32, random.below(1 << 32) as u32);
        let talk = Talk {
            proto,
            client,
            dialed,
            seen: (client, dialed),
            isn,
            phase: Phase::Asked,
            moves: false,
            is_orphan: false,
        };
        let Some(seen) = self.ask(&talk)? else { return Ok(()) };
        self.talks.live.push(Talk { seen, ..talk });
        if seen.0.port() != client.port() && dialed == backend && client.ip() == net.client {
            // A pod's direct connection beside one to a Service from the same port.
            self.cast.count("beside");
        }
        self.cast.count("opened");
        Ok(())
    }

    /// The client of a datagram conversation whose backend is gone sends the next one.
    pub(super) fn find_backend(&mut self, at: usize) -> Broken {
        let talk = self.talks.live.remove(at);
        self.talks.left.push((talk.proto, talk.seen));
        let Some(seen) = self.ask(&talk)? else { return Ok(()) };
        self.talks.live.push(Talk { seen, moves: false, is_orphan: false, phase: Phase::Asked, ..talk });
        Ok(())
    }

    /// Sends the first packet; returns the ends that its receiver sees. None: policy denies it, and it does not
    /// arrive.
    fn ask(&mut self, talk: &Talk) -> Result<Option<(SocketAddr, SocketAddr)>, String> {
        let net = self.cast.net;
        let frame = opening(talk.proto, talk.client, talk.dialed);
        let frame = frame.numbers(talk.isn.0, 0).tags(talk.isn.0, 0).build();
        let place = self.cast.place(talk.client.ip());
        let got = self.cast.travel("opens", place, &frame);
        let servers: Vec<SocketAddr> = if talk.dialed == at(net.service, 80) {
            self.cast.backends[&talk.proto].iter().map(|(_, to)| *to).collect()
        } else if talk.dialed == at(net.service2, 80) {
            vec![at(net.remote, 8080)]
        } else {
            vec![talk.dialed]
        };
        let is_allowed = |to: &SocketAddr| self.cast.allows(talk.client.ip(), to.ip());
        let Some(Parsed { src, dst, .. }) = got else {
            // An older flow may still lead to a pod that denies the client, even if that is no backend any more.
            let is_of_service = talk.dialed == at(net.service, 80);
            let may_meet_pod = is_of_service && !is_allowed(&at(net.local, 8080));
            if servers.iter().all(is_allowed) && !may_meet_pod {
                return Err(format!("{talk:?}: the opening does not arrive"));
            }
            self.cast.count("denied");
            return Ok(None);
        };
        if !is_allowed(&dst) {
            return Err(format!("{talk:?}: the opening is denied, and arrives at {dst}"));
        }
        // An older flow may still lead to its backend.
        let is_of_service = talk.dialed == at(net.service, 80) && [net.local, net.remote].contains(&dst.ip());
        if !servers.contains(&dst) && !is_of_service {
            return Err(format!("{talk:?}: the opening arrives at {dst}"));
        }
        let is_own = src.ip() == talk.client.ip() || self.cast.pod(talk.client.ip()).is_none();
        if !is_own || self.talks.receives(talk.proto, src, dst) {
            return Err(format!("{talk:?}: the opening arrives from {src}, which is not the client's"));
        }
        Ok(Some((src, dst)))
    }
}
