//! The path of packets: past the node's stack wherever possible.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use lbr_tests::probe::Protocol;
use lbr_tests::topology::PodNetwork;

use crate::catalog::{self, MIRROR, WEB};
use crate::world::{Place, Plan, World, at, packets};

const REQUESTS: usize = 100;

/// Packets that the node's stack has forwarded, IPv4 and IPv6.
fn forwarded(world: &World) -> Result<[u64; 2]> {
    world.node.ns.run(|| {
        // Not `/proc/net`, which belongs to the process' first thread.
        let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        let (_, v4) = pairs.find(|(name, _)| *name == "ForwDatagrams").context("ForwDatagrams")?;
        let text = fs::read_to_string("/proc/thread-self/net/snmp6")?;
        let v6 = text.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
        Ok([v4.parse()?, v6.context("Ip6OutForwDatagrams")?.trim().parse()?])
    })
}

/// The increase of forwarded packets and of the two counters at the pods' hook during `traffic`.
fn measure(world: &World, traffic: impl FnOnce() -> Result<()>) -> Result<([u64; 2], [u64; 2])> {
    let count = |verdict| packets(world, "from_pod", verdict);
    let (before, to, back) = (forwarded(world)?, count("to_backend")?, count("to_client")?);
    traffic()?;
    let after = forwarded(world)?;
    let stack = [after[0] - before[0], after[1] - before[1]];
    Ok((stack, [count("to_backend")? - to, count("to_client")? - back]))
}

fn requests(world: &World, service: u8) -> Result<()> {
    for to in at(service, 80) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            world.ask().spread(protocol, to, REQUESTS)?;
        }
    }
    Ok(())
}

#[test]
fn routed_pods_are_reached_past_the_stack() {
    let plan = Plan::new(PodNetwork::Routed, Place::SameNode);
    let world = World::start("fr", plan, catalog::all).unwrap();
    for service in [WEB, MIRROR] {
        let (stack, [to, back]) = measure(&world, || requests(&world, service)).unwrap();
        println!("forwarded {stack:?}, to backends {to}, to clients {back}");
        assert_eq!(stack, [0, 0], "the stack forwarded packets of a Service");
        // A TCP request takes at least four packets each way, a datagram one.
        let least = u64::try_from(2 * REQUESTS * 5).unwrap();
        assert!(to >= least && back >= least, "{to} to backends, {back} to clients");
    }
    // A check of the measure: packets without a Service go by the stack.
    let direct = std::net::SocketAddr::new(world.backends[0].v4.into(), crate::world::PORT);
    let (stack, _) = measure(&world, || world.ask().tcp(direct).map(drop)).unwrap();
    assert!(stack[0] > 0, "{stack:?}");
}

#[test]
fn bridged_pods_are_reached_by_the_stack() {
    let plan = Plan::new(PodNetwork::Bridge, Place::SameNode);
    let world = World::start("fb", plan, catalog::all).unwrap();
    let ensured = || -> Result<()> {
        let (stack, [to, _]) = measure(&world, || requests(&world, WEB))?;
        println!("forwarded {stack:?}, to backends {to}");
        let least = u64::try_from(REQUESTS)?;
        ensure!(stack.iter().all(|count| *count >= least), "{stack:?}");
        ensure!(to >= 2 * least, "{to} to backends");
        Ok(())
    };
    ensured().unwrap();
}
