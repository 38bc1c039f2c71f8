//! The agent ends, by a stop or a kill, and starts again while traffic goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lbr_tests::agent::{self, AgentOptions};
use lbr_tests::probe::LongLived;
use lbr_tests::process;
use lbr_tests::topology::{PodNetwork, Underlay};

use crate::attached::{POD_HOOKS, programs};
use crate::catalog::{self, CYCLE, WEB, simple};
use crate::load::Load;
use crate::mounted;
use crate::world::{Check, PORT, Place, Plan, World, at, ends, patience, run, until};

const CHECKS: &[Check] = &[
    ("nothing fails", nothing_fails),
    ("what changed meanwhile", changed_meanwhile),
    ("a mounted ConfigMap is exchanged under load", mounted::swapped_under_load),
    ("a second agent", second_agent),
];

fn cell(name: &str, plan: Plan, attach: &str) {
    let arguments = ["--attach", attach].map(str::to_owned).to_vec();
    let agent = AgentOptions { arguments, ..AgentOptions::default() };
    let mut world = World::start(name, Plan { agent, ..plan }, catalog::all).unwrap();
    run(&mut world, CHECKS);
}

#[test]
fn tcx() {
    cell("rt", Plan::new(PodNetwork::Routed, Place::SameNode), "tcx");
}

#[test]
fn tcx_bridge_other_node() {
    cell("ro", Plan::new(PodNetwork::Bridge, Place::OtherNode(Underlay::Routed)), "tcx");
}

#[test]
fn clsact() {
    cell("rc", Plan::new(PodNetwork::Routed, Place::SameNode), "clsact");
}

fn nothing_fails(world: &mut World) -> Result<()> {
    let before = attached(world)?;
    ensure!(before.iter().all(|(_, ids)| ids.len() == 1), "attached: {before:?}");
    let load = Load::start(world.ask(), at(WEB, 80));
    let (interval, limit) = (Duration::from_millis(5), lbr_tests::patience::millis(500));
    let streams: Vec<_> =
        at(WEB, 80).into_iter().map(|to| LongLived::start(&world.ask(), to, interval, limit)).collect();
    let flows = world.agent().show("flows")?.as_array().map_or(0, Vec::len);
    for killed in [true, false, true] {
        for agent in &mut world.agents {
            if killed {
                agent.kill()
            } else {
                agent.stop()?
            }
            agent.run()?;
        }
        let after = attached(world)?;
        ensure!(after.iter().all(|(_, ids)| ids.len() == 1), "attached twice: {after:?}");
        ensure!(after.iter().map(|(at, _)| at).eq(before.iter().map(|(at, _)| at)), "{after:?}");
    }
    let now = world.agent().show("flows")?.as_array().map_or(0, Vec::len);
    ensure!(now >= flows, "{now} flows, {flows} before: the maps were not taken over");
    for stream in streams {
        let report = stream?.stop()?;
        ensure!(report.error.is_none() && report.stalls == 0 && report.answers > 5, "{report:?}");
    }
    let count = load.stop()?;
    println!("    {count} requests, none failed");
    ensure!(count > 50, "only {count} requests");
    Ok(())
}

/// Ids of lbr's programs at both sides of every pod link, as the kernel reports them.
fn attached(world: &World) -> Result<Vec<(String, Vec<u64>)>> {
    let mut found = Vec::new();
    for pod in world.bed.pods().values().filter(|pod| pod.node == world.node.name) {
        for (side, hook) in POD_HOOKS {
            let ids = programs(&world.node.ns, world.plan.is_clsact(), &pod.link, side, hook)?;
            found.push((format!("{} {side}", pod.link), ids));
        }
    }
    Ok(found)
}

/// After its start, the agent puts changes from the time without it into force, and removes what was deleted then.
fn changed_meanwhile(world: &mut World) -> Result<()> {
    for killed in [true, false] {
        world.write("cycle.yaml", &simple("cycle", CYCLE, &world.first(2), PORT))?;
        world.wait_for("cycle", &ends(&world.first(2), PORT))?;
        for agent in &mut world.agents {
            if killed { agent.kill() } else { agent.stop()? }
        }
        world.write("cycle.yaml", &simple("cycle", CYCLE, &world.first(1), PORT))?;
        for agent in &world.agents {
            agent.remove("twin.yaml")?;
        }
        for to in at(catalog::TWIN, 80) {
            world.ask().tcp(to).context("without an agent")?;
        }
        for agent in &mut world.agents {
            agent.run()?;
        }
        world.wait_for("cycle", &ends(&world.first(1), PORT))?;
        world.wait_for("twin", &[])?;
        let names: BTreeSet<String> = (0..30)
            .map(|n| world.ask().tcp(at(CYCLE, 80)[n % 2]).map(|who| who.name))
            .collect::<Result<_>>()?;
        ensure!(names.len() == 1, "{names:?}");
        let one = world.first(1);
        world.write("twin.yaml", &simple("twin", catalog::TWIN, &one, PORT))?;
        world.wait_for("twin", &ends(&one, PORT))?;
    }
    Ok(())
}

/// A second agent refuses to run, gives the reason, and disturbs nothing.
fn second_agent(world: &mut World) -> Result<()> {
    let first = world.agent();
    let mut command = world.node.ns.command(agent::binary()?)?;
    command.args(["run", "--node-name", "other", "--socket-lb", "off", "--manifests"]);
    command.arg(first.manifests()).arg("--bpffs").arg(first.bpffs());
    let Err(error) = process::run(&mut command) else { bail!("a second agent ran to its end") };
    let error = format!("{error:#}");
    ensure!(error.contains(&first.bpffs().display().to_string()), "names no folder: {error}");
    ensure!(error.contains("another lbr agent"), "says nothing of the other one: {error}");
    until(patience(), || world.ask().tcp(at(WEB, 80)[0]).map(drop))
}
