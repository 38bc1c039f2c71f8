//! Expectations of an address: which endpoints answer, which source they see, or how the request fails.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use lbr_common::addr::Family;
use lbr_tests::probe::{Identity, Protocol, is_refused, is_timeout};

use crate::world::{From, World, patience, until};

/// Both protocols.
pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Longer than any answer takes here.
fn silence() -> Duration {
    lbr_tests::patience::millis(300)
}

/// The time within which a refusal must arrive.
fn at_once() -> Duration {
    lbr_tests::patience::millis(300)
}

impl World {
    /// Asserts that all of these and no other endpoints answer. Returns the answers, with the client as each endpoint
    /// saw it.
    pub(crate) fn reaches(&self, from: From, to: SocketAddr, names: &[&str]) -> Result<Vec<Identity>> {
        let wanted: BTreeSet<&str> = names.iter().copied().collect();
        let mut all = Vec::new();
        for protocol in PROTOCOLS {
            let what = || format!("{from:?} to {to} {protocol:?}");
            let client = self.client(from);
            let mut seen = BTreeSet::new();
            // One of six is missed once in 80,000 times.
            let tries = if names.len() == 1 { 3 } else { 12 * names.len() };
            for _ in 0..tries {
                let answer = client.ask(protocol, to).with_context(what)?;
                ensure!(wanted.contains(answer.name.as_str()), "{}: answered by {answer}", what());
                seen.insert(answer.name.clone());
                all.push(answer);
                if seen.len() == wanted.len() && names.len() > 1 {
                    break;
                }
            }
            ensure!(seen.len() == wanted.len(), "{}: answered by {seen:?}, not by {wanted:?}", what());
        }
        Ok(all)
    }

    /// The same; each endpoint sees the client under this address.
    pub(crate) fn reaches_as(
        &self,
        from: From,
        to: SocketAddr,
        names: &[&str],
        source: IpAddr,
    ) -> Result<()> {
        for answer in self.reaches(from, to, names)? {
            ensure!(answer.peer.ip() == source, "{from:?} to {to}: seen as {}, not {source}", answer.peer);
        }
        Ok(())
    }

    /// The answer of this address is too big for a router before the client, and arrives after the router's ICMP
    /// error.
    pub(crate) fn answers_over_a_narrow_path(&self, to: SocketAddr) -> Result<()> {
        let client = self.address(From::Outside, Family::of(to.ip()));
        let route = format!("{client} dev br1");
        self.bed.fabric().ip([format!("route add {route} mtu lock 1300")])?;
        let client = self.client(From::Outside).timeout(silence());
        let heard =
            until(patience(), || client.udp_echo(to, 1_350)).with_context(|| format!("answer from {to}"));
        self.bed.fabric().ip([format!("route del {route}")])?;
        heard
    }

    /// Asserts that the client is refused at once.
    pub(crate) fn is_refused(&self, from: From, to: SocketAddr) -> Result<()> {
        for protocol in PROTOCOLS {
            let begin = Instant::now();
            let Err(error) = self.client(from).ask(protocol, to) else {
                bail!("{from:?} to {to} {protocol:?}: answered, where it should be refused");
            };
            let took = begin.elapsed();
            ensure!(is_refused(&error), "{from:?} to {to} {protocol:?}: not refused: {error:#}");
            ensure!(took < at_once(), "{from:?} to {to} {protocol:?}: refused after {took:?} only");
        }
        Ok(())
    }

    /// Asserts that there is no answer, and no refusal.
    pub(crate) fn is_lost(&self, from: From, to: SocketAddr) -> Result<()> {
        for protocol in PROTOCOLS {
            match self.client(from).timeout(silence()).ask(protocol, to) {
                Ok(answer) => {
                    bail!("{from:?} to {to} {protocol:?}: answered by {answer}, where it should be lost")
                }
                Err(error) => {
                    ensure!(is_timeout(&error), "{from:?} to {to} {protocol:?}: not lost: {error:#}");
                }
            }
        }
        Ok(())
    }

    /// Asserts that there is no answer, in whatever way the request fails.
    pub(crate) fn fails(&self, from: From, to: SocketAddr) -> Result<()> {
        for protocol in PROTOCOLS {
            if let Ok(answer) = self.client(from).timeout(silence()).ask(protocol, to) {
                bail!("{from:?} to {to} {protocol:?}: answered by {answer}, where it should fail");
            }
        }
        Ok(())
    }

    /// Asserts that the same endpoint answers every request. Returns its name.
    pub(crate) fn sticks(&self, from: From, to: SocketAddr) -> Result<String> {
        // As many requests as in the tests of Kubernetes.
        const REQUESTS: usize = 15;
        let client = self.client(from);
        let mut names = BTreeSet::new();
        for protocol in [Protocol::Tcp; REQUESTS] {
            let answer = client.ask(protocol, to).with_context(|| format!("{from:?} to {to}"))?;
            names.insert(answer.name);
        }
        ensure!(names.len() == 1, "{from:?} to {to}: answered by {names:?}, not by one endpoint");
        names.pop_first().context("no endpoint answered")
    }
}
