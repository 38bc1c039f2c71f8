//! Changes of the node during a sequence.

use lbr_tests::packet::flags;

use super::super::random::Random;
use super::super::world::{PROTOS, UDP, at, tuple};
use super::cast::Rules;
use super::talk::Phase;
use super::{Broken, Model};

impl Model {
    pub(super) fn happen(&mut self, random: &mut Random) -> Broken {
        match random.below(8) {
            0 | 1 => self.cast.wire.world.raise_epoch(),
            2..4 => self.change_backends(random),
            4 => self.change_rules(random),
            _ => return self.evict(random),
        }
        Ok(())
    }

    /// The first Service gets other backends; its former ones are removed, or stay as terminating ones do.
    fn change_backends(&mut self, random: &mut Random) {
        let (net, proto) = (self.cast.net, random.pick(&PROTOS));
        let all = [at(net.local, 8080), at(net.local, 8081), at(net.remote, 8080)];
        let to = random.pick(&[&all[..1], &all[1..2], &all[..2], &all[..], &all[2..]]);
        let old = self.cast.backends[&proto].clone();
        self.cast.note(format!("backends of {proto}: {to:?}"));
        self.cast.set_backends(proto, to);
        if random.once_in(3) {
            return;
        }
        self.cast.note("the former backends are removed".to_owned());
        for (id, _) in old {
            self.cast.wire.world.remove_backend(id);
        }
        for talk in &mut self.talks.live {
            if talk.proto == proto && talk.dialed == at(net.service, 80) {
                talk.moves = proto == UDP;
                talk.is_orphan = true;
            }
        }
    }

    /// Ends the conversations that are no longer allowed.
    fn change_rules(&mut self, random: &mut Random) {
        let rules = Rules { a_isolated: random.once_in(2), b_isolated: random.once_in(2) };
        self.cast.set_rules(rules);
        self.cast.note(format!("{rules:?}"));
        let mut at = 0;
        while let Some(talk) = self.talks.live.get(at) {
            if self.cast.allows(talk.client.ip(), talk.seen.1.ip()) {
                at += 1;
            } else {
                self.end(at);
            }
        }
    }

    /// The kernel evicts an entry. The twin restores it if the connection is assured; any other entry may be lost.
    fn evict(&mut self, random: &mut Random) -> Broken {
        if self.talks.live.is_empty() {
            return Ok(());
        }
        let at = random.below(self.talks.live.len());
        let talk = self.talks.live[at].clone();
        let there = tuple(talk.proto, talk.client, talk.dialed);
        let back = tuple(talk.proto, talk.seen.1, talk.seen.0);
        let is_whole = |key| self.cast.wire.world.programs.flows.is_confirmed(&key);
        if talk.proto == UDP
            || talk.phase != Phase::Open
            || talk.is_orphan
            || ![there, back].into_iter().all(is_whole)
        {
            return Ok(());
        }
        let of_client = random.once_in(2);
        let gone = if of_client { there } else { back };
        self.cast.wire.world.programs.flows.remove(&gone).unwrap();
        self.cast.note(format!("evicted: {gone:?}"));
        self.wait(at, 3);
        // A packet of the other side, which still has its entry.
        self.send(at, !of_client, flags::PSH | flags::ACK, b"data")?;
        if !self.cast.wire.world.has_flow(gone) {
            return Err(format!("{talk:?}: the entry {gone:?} is not back"));
        }
        self.cast.count("evicted");
        self.send(at, of_client, flags::PSH | flags::ACK, b"data")
    }
}
