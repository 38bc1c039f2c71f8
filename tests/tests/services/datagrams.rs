//! A client with one source port that keeps asking, with or without an answer.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use lbr_common::addr::Family;
use lbr_tests::probe::Identity;

use crate::world::{From, World, patience};

const INTERVAL: Duration = Duration::from_millis(50);

pub(crate) struct Datagrams {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Datagrams {
    /// Sends nothing yet.
    pub(crate) fn from(world: &World, from: From, port: u16, to: SocketAddr) -> Result<Self> {
        let socket = world.client(from).from_port(port).udp_socket(Family::of(to.ip()))?;
        socket.set_read_timeout(Some(INTERVAL))?;
        Ok(Self { socket, to })
    }

    /// Asks until an answer satisfies the condition. Each request keeps the flow alive.
    pub(crate) fn until(&self, wanted: impl Fn(&Identity) -> bool) -> Result<Identity> {
        let begin = Instant::now();
        let mut last = None;
        while begin.elapsed() < patience() {
            let next = Instant::now() + INTERVAL;
            if let Some(answer) = self.once()? {
                if wanted(&answer) {
                    return Ok(answer);
                }
                last = Some(answer);
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        match last {
            Some(last) => bail!("{}: still answered by {last} after {:?}", self.to, patience()),
            None => bail!("{}: no answer for {:?}", self.to, patience()),
        }
    }

    /// Asks, and returns the answer that comes soon, if any. A refusal is not an error.
    pub(crate) fn once(&self) -> Result<Option<Identity>> {
        if self.socket.send_to(b"who", self.to).is_err() {
            return Ok(None);
        }
        let mut buffer = [0; 256];
        match self.socket.recv_from(&mut buffer) {
            Ok((len, from)) if from == self.to => {
                let text = std::str::from_utf8(&buffer[..len]).context("an identity")?;
                text.parse().map(Some)
            }
            Ok((_, from)) => bail!("the answer of {} came from {from}", self.to),
            Err(_) => Ok(None),
        }
    }
}
