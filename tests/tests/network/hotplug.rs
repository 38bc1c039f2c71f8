//! Pods that come and go while the agent runs.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lbr_tests::agent::AgentOptions;
use lbr_tests::probe::Client;
use lbr_tests::topology::{Pod, PodNetwork, PodOptions};

use crate::attached::{POD_HOOKS, programs};
use crate::catalog::{self, ONE, WEB};
use crate::world::{Check, Place, Plan, World, at, run, serve, until};

/// The most time between a link's appearance and its programs, on a quiet machine.
fn attached() -> Duration {
    lbr_tests::patience::millis(100)
}
/// The same with the delays of a busy machine.
fn at_last() -> Duration {
    lbr_tests::patience::millis(500)
}

const CHECKS: &[Check] = &[
    ("a new client is translated at once", translated_at_once),
    ("a backend with an old address", same_address),
    ("nothing stays attached", nothing_stays),
];

fn cell(name: &str, network: PodNetwork, attach: &str) {
    let arguments = ["--attach", attach].map(str::to_owned).to_vec();
    let agent = AgentOptions { arguments, ..AgentOptions::default() };
    let plan = Plan { agent, ..Plan::new(network, Place::SameNode) };
    let mut world = World::start(name, plan, catalog::all).unwrap();
    run(&mut world, CHECKS);
}

#[test]
fn routed() {
    cell("hr", PodNetwork::Routed, "auto");
}

#[test]
fn bridged() {
    cell("hb", PodNetwork::Bridge, "auto");
}

#[test]
fn clsact() {
    cell("hc", PodNetwork::Routed, "clsact");
}

/// The best of several times is lbr's own; the worst includes delays of the machine.
fn translated_at_once(world: &mut World) -> Result<()> {
    let (mut best, mut worst, mut connected) = (Duration::MAX, Duration::ZERO, Duration::ZERO);
    for number in 0..4 {
        let name = format!("late{number}");
        let watch = watch(world, &name);
        let node = world.node.clone();
        let pod = world.bed.add_pod(&node, &name, world.plan.network.into())?;
        let (appeared, attached) = watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))??;
        let client = Client::new(&pod.ns).timeout(Duration::from_millis(200));
        for to in at(WEB, 80) {
            until(Duration::from_secs(2), || client.tcp(to).map(drop))?;
        }
        connected = connected.max(appeared.elapsed());
        for to in at(WEB, 80) {
            client.udp(to)?;
        }
        best = best.min(attached - appeared);
        worst = worst.max(attached - appeared);
        world.bed.remove_pod(&pod)?;
    }
    println!("    attached {best:?} to {worst:?} after the link appeared, connected after {connected:?}");
    ensure!(best < attached(), "attached after {best:?} at best");
    ensure!(
        worst < at_last() && connected < at_last(),
        "attached after {worst:?}, connected after {connected:?}"
    );
    Ok(())
}

/// The times when the link with this name's ending appeared, and when both programs were in place.
fn watch(world: &World, name: &str) -> JoinHandle<Result<(Instant, Instant)>> {
    let (node, clsact, ending) = (world.node.ns.clone(), world.plan.is_clsact(), format!("-{name}"));
    world.node.ns.spawn_thread(move || {
        let end = Instant::now() + Duration::from_secs(10);
        let mut appeared = None;
        while Instant::now() < end {
            let all = nix::net::if_::if_nameindex()?;
            let names = all.iter().map(|link| link.name().to_string_lossy().into_owned());
            if let Some(link) = names.into_iter().find(|name| name.ends_with(&ending)) {
                let since = *appeared.get_or_insert_with(Instant::now);
                let found = POD_HOOKS.map(|(side, hook)| programs(&node, clsact, &link, side, hook));
                // Errors happen, for instance when tc asks for a link that is being renamed.
                if found.iter().all(|ids| ids.as_ref().is_ok_and(|ids| ids.len() == 1)) {
                    return Ok((since, Instant::now()));
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        anyhow::bail!("no link {ending}, or nothing attached to it, within ten seconds")
    })
}

/// The backend's pod is replaced: another veth, the same address. Clients continue from their former ports.
fn same_address(world: &mut World) -> Result<()> {
    const BOUND: u16 = 20_100;
    let ask = |world: &World| -> Result<()> {
        for to in at(ONE, 80) {
            let client = world.ask().from_port(BOUND).timeout(Duration::from_millis(100));
            client.udp(to).with_context(|| format!("{to}/UDP"))?;
            client.tcp(to).with_context(|| format!("{to}/TCP"))?;
        }
        Ok(())
    };
    for _ in 0..2 {
        until(at_last(), || ask(world))?;
        let old = world.backends[0].clone();
        world.servers.remove(&old.name);
        world.bed.remove_pod(&old)?;
        let node = world.node.clone();
        let options = PodOptions { host: Some(old.host), ..PodOptions::from(world.plan.network) };
        let new = world.bed.add_pod(&node, &old.name, options)?;
        ensure!(new.addresses() == old.addresses() && new.ifindex != old.ifindex, "the test itself");
        world.servers.insert(new.name.clone(), serve(&new)?);
        world.backends[0] = new;
        let begin = Instant::now();
        // Packets sent before the new link is known are lost, so each request waits a short time only.
        until(at_last(), || ask(world))?;
        println!("    {:?} until the new pod was reached from the old ports", begin.elapsed());
    }
    Ok(())
}

/// `lbr show links` shows the links of the pods that exist, and no other.
fn nothing_stays(world: &mut World) -> Result<()> {
    let all: Vec<&Pod> = world.bed.pods().values().collect();
    let mut wanted: Vec<u64> = all.iter().map(|pod| pod.ifindex.into()).collect();
    wanted.sort_unstable();
    let indices = |shown: &serde_json::Value| -> Vec<u64> {
        shown.as_array().into_iter().flatten().filter_map(|row| row["ifindex"].as_u64()).collect()
    };
    world.agent().wait_for("links", Duration::from_secs(2), |shown| indices(shown) == wanted)?;
    Ok(())
}
