//! The size of a cluster that lbr can serve: the shipped agent over the test API server, with the kernel's maps.
//!
//! The agent is a process of its own, so that its memory and CPU time are its own. The server is in this process, and
//! uses its part of the machine while objects are listed.

mod agent;
mod changes;
mod objects;

use std::fmt::Write as _;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::agent::Agent;
use self::objects::Cluster;
use super::nftables;
use crate::apiserver::Server;
use crate::interrupt;
use crate::topology::{Bed, Node};

/// Services, and endpoints of each: `45000x2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Services, with one port and one EndpointSlice each.
    pub services: u32,
    /// Endpoints of each.
    pub endpoints: u32,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('x').and_then(|(s, e)| s.parse().ok().zip(e.parse().ok()));
        match numbers {
            Some((services @ 1..=65_000, endpoints @ 1..=100)) => Ok(Self { services, endpoints }),
            _ => Err("write SERVICESxENDPOINTS: up to 65000, up to 100 for each".to_owned()),
        }
    }
}

/// The extent of the benchmark.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sizes of clusters.
    pub shapes: Vec<Shape>,
    /// Changes of an endpoint that are timed.
    pub changes: u32,
    /// How many are made in each second,
    pub rate: u32,
    /// and for how long.
    pub time: Duration,
    /// How many of the same changes `nft` makes in rules of kube-proxy's shape; 0: none.
    pub nft: u32,
    /// How long an idle agent is watched.
    pub rest: Duration,
}

/// Measures, and reports a table for each size as soon as it is ready.
pub fn run(plan: &Plan, tell: impl Fn(&str)) -> Result<()> {
    for shape in &plan.shapes {
        tell(&measure(*shape, plan)?);
    }
    Ok(())
}

fn measure(shape: Shape, plan: &Plan) -> Result<String> {
    let mut bed = Bed::new("scale")?;
    let node = bed.add_node("node")?;
    let server = node.ns.run(Server::start)?;
    // The cost of an agent without objects.
    let mut agent = Agent::start(&mut bed, &node, &server, "none")?;
    agent.wait_until_ready()?;
    let empty = agent.memory()?.resident;
    drop(agent);

    let cluster = Cluster { services: shape.services, endpoints: shape.endpoints };
    server.put_all(cluster.objects())?;
    let mut agent = Agent::start(&mut bed, &node, &server, "all")?;
    let start = agent.wait_until_ready()?;
    let parts = agent.parts_of_start()?;
    let first = agent.rounds()?;
    agent.wait_until_idle()?;
    let loaded = agent.memory()?;
    let before = agent.cpu_time()?;
    std::thread::sleep(plan.rest);
    let rest = agent.cpu_time()? - before;

    let maps = agent.maps()?;
    let single = changes::one_by_one(0..plan.changes, cluster, &server, &agent, &maps)?;
    agent.wait_until_idle()?;
    let later = agent.rounds()?;
    let later = later.get(first.len()..).context("the log has become shorter")?.to_vec();
    let many = changes::sustained(plan.changes, plan.rate, plan.time, cluster, &server, &agent, &maps)?;
    let after = agent.memory()?;
    // Killed, as by a node that runs out of memory.
    drop(agent);
    let next = plan.changes + plan.rate * u32::try_from(plan.time.as_secs()).context("too long")?;
    let start_next = || Agent::start(&mut bed, &node, &server, "all");
    let (mut agent, replaced) = changes::replaced(next, plan.rate, cluster, &server, &maps, start_next)?;
    let ready_again = agent.wait_until_ready()?;
    let parts_again = agent.parts_of_start()?;
    drop(agent);
    let nft = with_nft(&bed, &node, cluster, plan.nft)?;

    let part = |of: &[Duration], share: f64| {
        let index = ((of.len().saturating_sub(1)) as f64 * share).round() as usize;
        of.get(index).copied().unwrap_or_default()
    };
    let mut compiled: Vec<_> = later.iter().map(|round| round.compiled).collect();
    let mut whole: Vec<_> = later.iter().map(|round| round.in_force).collect();
    compiled.sort();
    whole.sort();
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let endpoints = u64::from(shape.services) * u64::from(shape.endpoints);
    let mut text = String::new();
    writeln!(text, "{} Services, {endpoints} endpoints", shape.services)?;
    let mut row = |name: &str, value: String| writeln!(text, "  {name:<48}{value}");
    row("start to everything in force", format!("{start:.2?}"))?;
    row("  its parts", parts)?;
    let compiling: Duration = first.iter().map(|round| round.compiled).sum();
    let rounds: Duration = first.iter().map(|round| round.in_force).sum();
    row(
        "  of it in rounds of the loop",
        format!("{rounds:.2?} in {} rounds, {compiling:.2?} compiling", first.len()),
    )?;
    let spread = |times: &[Duration]| {
        let [p50, p99, last] = [0.5, 0.99, 1.0].map(|share| part(times, share));
        format!("p50 {p50:.1?}, p99 {p99:.1?}, longest {last:.1?} of {}", times.len())
    };
    row("one endpoint changed, until in force", spread(&single.times))?;
    row("  CPU of the agent for it", format!("{:.2?}", single.cpu))?;
    let name = format!("{:.0} endpoints changed in each second", many.rate);
    row(&name, spread(&many.times))?;
    let share = many.share * 100.0;
    row(
        "  CPU of the agent",
        format!("{share:.0} % of one, {:.2?} for each, over {:.0?}", many.cpu, plan.time),
    )?;
    row(
        "  a round of the loop: compiled, all",
        format!("p50 {:.1?}, {:.1?} ({} rounds)", part(&compiled, 0.5), part(&whole, 0.5), later.len()),
    )?;
    row("agent replaced: a new Service in force after", format!("{replaced:.2?}"))?;
    row("  everything in force after", format!("{ready_again:.2?}"))?;
    row("  its parts", parts_again)?;
    row(
        "memory: empty, loaded, after changes, at most",
        format!(
            "{} MB, {} MB, {} MB, {} MB",
            megabytes(empty),
            megabytes(loaded.resident),
            megabytes(after.resident),
            megabytes(after.peak)
        ),
    )?;
    if let Some((loaded, times)) = nft {
        row("kube-proxy's rules: nft -f of all", format!("{loaded:.1?}"))?;
        row("  nft -f of one endpoint changed", spread(&times))?;
    }
    let share = rest.as_secs_f64() / plan.rest.as_secs_f64() * 100.0;
    row("CPU at rest", format!("{share:.2} % of one, over {:.0?}", plan.rest))?;
    text.push('\n');
    Ok(text)
}

/// Loads rules of kube-proxy's shape, and makes changes in them. Returns how long each took.
fn with_nft(
    bed: &Bed,
    node: &Node,
    cluster: Cluster,
    changes: u32,
) -> Result<Option<(Duration, Vec<Duration>)>> {
    if changes == 0 {
        return Ok(None);
    }
    let begin = Instant::now();
    nftables::load(bed, node, &cluster.service_ports(), &[])?;
    let loaded = begin.elapsed();
    let mut times = Vec::new();
    for number in 0..changes {
        interrupt::check()?;
        let [before, after] = cluster.changed(number);
        times.push(nftables::replace(bed, node, &before, &after)?);
    }
    times.sort();
    Ok(Some((loaded, times)))
}
