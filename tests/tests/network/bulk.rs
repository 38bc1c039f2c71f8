//! Bulk data both ways over one connection, with every byte compared.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::probe::{Client, pattern};
use lbr_tests::topology::{Pod, PodNetwork};

use crate::catalog::{TWIN, simple};
use crate::world::{Place, Plan, World, at, run};

/// The port where the server listens.
pub(crate) const PORT: u16 = 9_000;

/// A prime, so that a shift by any number of segments shows.
const BLOCK: usize = 1_048_573;

/// From client to server, then back.
pub(crate) fn both_ways(client: &Pod, server: &Pod, to: SocketAddr, len: u64) -> Result<()> {
    let local = SocketAddr::new(server.address(Family::of(to.ip())), PORT);
    let listener = server.ns.run(|| TcpListener::bind(local).context("listen"))?;
    let stream = Client::new(&client.ns).timeout(Duration::from_secs(20)).tcp_stream(to)?;
    let (accepted, _) = listener.accept()?;
    // A stalled transfer is a failure, not a hang.
    for end in [&stream, &accepted] {
        end.set_read_timeout(Some(Duration::from_secs(20)))?;
        end.set_write_timeout(Some(Duration::from_secs(20)))?;
    }
    let block = pattern(BLOCK);
    for (what, from, into) in [("to the server", &stream, &accepted), ("back", &accepted, &stream)] {
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| send(from, &block, len));
            let received = receive(into, &block, len);
            let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
            received.and(sent).with_context(|| format!("{len} bytes {what} through {to}"))
        })?;
    }
    Ok(())
}

fn send(mut to: impl Write, block: &[u8], len: u64) -> Result<()> {
    let mut left = len;
    while left > 0 {
        let part = block.len().min(usize::try_from(left)?);
        to.write_all(&block[..part])?;
        left -= u64::try_from(part)?;
    }
    Ok(())
}

fn receive(mut from: impl Read, block: &[u8], len: u64) -> Result<()> {
    let (mut seen, mut at, mut buffer) = (0, 0, vec![0; 1 << 18]);
    while seen < len {
        let most = buffer.len().min(block.len() - at).min(usize::try_from(len - seen)?);
        let got = from.read(&mut buffer[..most]).with_context(|| format!("after {seen} bytes"))?;
        ensure!(got > 0, "closed after {seen} bytes");
        ensure!(buffer[..got] == block[at..at + got], "damaged within {got} bytes after {seen}");
        at = (at + got) % block.len();
        seen += u64::try_from(got)?;
    }
    Ok(())
}

/// A gigabyte each way and for each family, with the default offloads of veths.
fn gigabyte(name: &str, network: PodNetwork) {
    let plan = Plan { backends: 1, ..Plan::new(network, Place::SameNode) };
    let files = |world: &World| vec![("bulk.yaml", simple("twin", TWIN, &world.first(1), PORT))];
    let mut world = World::start(name, plan, files).unwrap();
    run(
        &mut world,
        &[
            ("1 GiB, IPv4", |w| both_ways(&w.client, &w.backends[0], at(TWIN, 80)[0], 1 << 30)),
            ("1 GiB, IPv6", |w| both_ways(&w.client, &w.backends[0], at(TWIN, 80)[1], 1 << 30)),
        ],
    );
}

#[test]
fn routed_same_node() {
    gigabyte("gr", PodNetwork::Routed);
}

#[test]
fn bridge_same_node() {
    gigabyte("gb", PodNetwork::Bridge);
}
