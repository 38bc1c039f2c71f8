//! Checks that change endpoints while traffic goes on.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::probe::{Identity, ask_on};
use lbr_tests::topology::Pod;

use crate::catalog::{self, CYCLE, LATER, simple};
use crate::world::{OTHER_PORT, PORT, World, at, ends, refused_at_once, soon, until};

/// Refused as long as no endpoint is ready, and served at once afterwards, also from the same source port.
pub(crate) fn ready_later(world: &mut World) -> Result<()> {
    let client = world.ask();
    let bound = world.ask().from_port(20_003);
    for to in at(LATER, 80) {
        refused_at_once(&format!("{to}/TCP"), || client.tcp(to))?;
        for _ in 0..3 {
            refused_at_once(&format!("{to}/UDP from a fixed port"), || bound.udp(to))?;
        }
    }
    world.write("later.yaml", &catalog::later(&world.backends[0], true))?;
    world.wait_for("later", &ends(&world.first(1), PORT))?;
    for to in at(LATER, 80) {
        client.tcp(to)?;
        bound.udp(to).context("from the port that was refused before")?;
    }
    Ok(())
}

/// Open connections keep their backend while the Service shrinks to one endpoint and grows again.
pub(crate) fn connections_stay(world: &mut World) -> Result<()> {
    cycle(world, &world.first(3), PORT)?;
    let mut streams = Vec::new();
    for to in at(CYCLE, 80) {
        for _ in 0..12 {
            let stream = world.ask().tcp_stream(to)?;
            let who = ask_on(&stream)?.name;
            streams.push((stream, who));
        }
    }
    let used: BTreeSet<&String> = streams.iter().map(|(_, who)| who).collect();
    ensure!(used.len() > 1, "the test itself: only {used:?} is used");
    for count in [1, 3] {
        cycle(world, &world.first(count), PORT)?;
        for (stream, who) in &streams {
            let now = ask_on(stream).with_context(|| format!("{who}, with {count} endpoints"))?;
            ensure!(now.name == *who, "a connection moved from {who} to {}", now.name);
        }
        if count == 1 {
            for to in at(CYCLE, 80) {
                let new = world.ask().spread(lbr_tests::probe::Protocol::Tcp, to, 30)?;
                ensure!(new.keys().eq([&world.backends[0].name]), "new connections: {new:?}");
            }
        }
    }
    Ok(())
}

/// A client that never pauses moves away from a removed backend within a second.
pub(crate) fn datagrams_move(world: &mut World) -> Result<()> {
    for (number, to) in (0..).zip(at(CYCLE, 80)) {
        cycle(world, &world.first(2), PORT)?;
        let mut stream = Datagrams::start(world, to, 20_010 + number)?;
        let old = stream.until(|_| true)?;
        let rest: Vec<&Pod> = world.backends.iter().filter(|pod| pod.name != old.name).collect();
        world.write("cycle.yaml", &simple("cycle", CYCLE, &rest, PORT))?;
        let (new, took) = stream.timed(|who| who.name != old.name)?;
        ensure!(took < soon(), "moved from {} to {} after {took:?}", old.name, new.name);
        stream.keeps(&new)?;
        println!("    moved after {took:?}, {} lost of {}", stream.lost()?, stream.sent);
        ensure!(stream.lost()? <= 1, "{} of {} datagrams lost", stream.lost()?, stream.sent);
    }
    Ok(())
}

/// The same pod on another port is another backend.
pub(crate) fn target_port_changes(world: &mut World) -> Result<()> {
    for (number, to) in (0..).zip(at(CYCLE, 80)) {
        cycle(world, &world.first(1), PORT)?;
        let mut stream = Datagrams::start(world, to, 20_020 + number)?;
        let old = stream.until(|_| true)?;
        ensure!(old.local.port() == PORT, "{old}");
        world.write("cycle.yaml", &simple("cycle", CYCLE, &world.first(1), OTHER_PORT))?;
        let (new, took) = stream.timed(|who| who.local.port() == OTHER_PORT)?;
        ensure!(took < soon(), "moved from {} to {} after {took:?}", old.local, new.local);
        stream.keeps(&new)?;
        ensure!(stream.lost()? <= 1, "{} of {} datagrams lost", stream.lost()?, stream.sent);
    }
    Ok(())
}

fn cycle(world: &World, pods: &[&Pod], port: u16) -> Result<()> {
    world.write("cycle.yaml", &simple("cycle", CYCLE, pods, port))?;
    world.wait_for("cycle", &ends(pods, port)).map(drop)
}

/// A client with one source port that asks every 50 milliseconds, with or without an answer.
pub(crate) struct Datagrams {
    socket: UdpSocket,
    pub(crate) sent: usize,
    answered: usize,
}

impl Datagrams {
    const INTERVAL: Duration = Duration::from_millis(50);

    pub(crate) fn start(world: &World, to: SocketAddr, port: u16) -> Result<Self> {
        let socket = world.ask().from_port(port).timeout(Self::INTERVAL).udp_socket(Family::of(to.ip()))?;
        socket.connect(to)?;
        Ok(Self { socket, sent: 0, answered: 0 })
    }

    /// Asks until an answer satisfies the condition.
    pub(crate) fn until(&mut self, wanted: impl Fn(&Identity) -> bool) -> Result<Identity> {
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            if let Some(who) = self.step()?.filter(&wanted) {
                return Ok(who);
            }
        }
        anyhow::bail!("no such answer within five seconds ({} of {})", self.answered, self.sent)
    }

    /// The same, with the time that it took.
    pub(crate) fn timed(&mut self, wanted: impl Fn(&Identity) -> bool) -> Result<(Identity, Duration)> {
        let begin = Instant::now();
        Ok((self.until(wanted)?, begin.elapsed()))
    }

    /// For a while, no other server answers.
    pub(crate) fn keeps(&mut self, who: &Identity) -> Result<()> {
        for _ in 0..6 {
            let Some(now) = self.step()? else { continue };
            ensure!(now == *who, "went on from {who} to {now}");
        }
        Ok(())
    }

    /// One request, then a wait for the rest of the interval.
    fn step(&mut self) -> Result<Option<Identity>> {
        let begin = Instant::now();
        self.sent += usize::from(self.socket.send(b"who").is_ok());
        let answer = self.receive()?;
        std::thread::sleep(Self::INTERVAL.saturating_sub(begin.elapsed()));
        Ok(answer)
    }

    fn receive(&mut self) -> Result<Option<Identity>> {
        let mut buffer = [0; 256];
        match self.socket.recv(&mut buffer) {
            Ok(len) => {
                self.answered += 1;
                Ok(Some(std::str::from_utf8(&buffer[..len])?.parse()?))
            }
            // A late answer, or an ICMP error.
            Err(_) => Ok(None),
        }
    }

    /// Datagrams without an answer, after a wait for late answers.
    pub(crate) fn lost(&mut self) -> Result<usize> {
        let late = until(Duration::from_millis(300), || {
            self.receive()?;
            ensure!(self.answered == self.sent, "some are missing");
            Ok(())
        });
        drop(late);
        Ok(self.sent - self.answered)
    }
}
