//! `bench`: measures the cost of a Service, in one run with its comparisons.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use lbr_tests::bench::load::Cpus;
use lbr_tests::bench::{
    Config, Metric, Outcome, Plan, load, node_port, policy, programs, revalidate, run, scale, verifier,
};
use lbr_tests::interrupt;

/// Measure lbr against direct traffic and against nftables rules as kube-proxy writes them.
#[derive(Parser)]
#[command(name = "bench")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// From one pod to another on the same node.
    PodToPod(PodToPod),
    /// From a client outside to a port of a node, with a backend on that node (here) and on another (there).
    NodePort(NodePort),
    /// Each program by itself: nanoseconds for a packet, by its way.
    Programs(Programs),
    /// What policies cost a packet, by their number.
    Policy(Policy),
    /// What changes of Services and pods cost the packets of flows that have nothing to do with them.
    Revalidate(Revalidate),
    /// How long the agent takes in large clusters, and how much memory.
    Scale(Scale),
    /// One end of a measurement.
    #[command(name = "__server", hide = true)]
    Server { address: IpAddr },
    /// The other end.
    #[command(name = "__client", hide = true)]
    Client { metric: Metric, target: SocketAddr, seconds: f64 },
}

#[derive(clap::Args)]
struct PodToPod {
    /// How often everything is measured in turn.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Length of one measurement.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Numbers of Services to measure with.
    #[arg(long, value_delimiter = ',', default_value = "1,10000")]
    services: Vec<u32>,
    /// What to compare with direct traffic.
    #[arg(long, value_delimiter = ',', default_value = "nftables,lbr")]
    configs: Vec<Config>,
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "tcp_crr,tcp_rr,udp_rr,tcp_stream")]
    metrics: Vec<Metric>,
    /// Let the kernel choose CPUs, in place of one for each end.
    #[arg(long)]
    unpinned: bool,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct NodePort {
    /// How often everything is measured in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of one measurement; of iperf3 whole seconds.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// What to compare with the backend's own address: nftables, lbr, or lbr:XDP for a value of its flag `--xdp`.
    #[arg(long, value_delimiter = ',', default_value = node_port::CONFIGS)]
    configs: Vec<node_port::Config>,
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "tcp_crr,tcp_rr,udp_rr,tcp_stream,udp_pps,udp_new")]
    metrics: Vec<Metric>,
    /// Let the kernel choose CPUs, in place of one for each end.
    #[arg(long)]
    unpinned: bool,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Programs {
    /// How often everything is measured in turn.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// What each program costs the kernel's verifier, in place of the time for a packet.
    #[arg(long)]
    verifier: bool,
}

#[derive(clap::Args)]
struct Policy {
    /// How often everything is measured in turn.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Numbers of policies; the others are compared with the first one.
    #[arg(long, value_delimiter = ',', default_value = "0,1,100,10000")]
    policies: Vec<u32>,
    /// Pods of the cluster.
    #[arg(long, default_value_t = 100_000)]
    pods: u32,
}

#[derive(clap::Args)]
struct Revalidate {
    /// How often both are measured in turn.
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Active flows.
    #[arg(long, default_value_t = 100_000)]
    flows: u32,
    /// Changes while each flow has one packet.
    #[arg(long, default_value_t = 50)]
    changes: u32,
}

#[derive(clap::Args)]
struct Scale {
    /// Sizes of clusters: Services, and endpoints of each.
    #[arg(long, value_delimiter = ',', default_value = "45000x2,5000x50,10000x10")]
    shapes: Vec<scale::Shape>,
    /// Changes of an endpoint that are timed.
    #[arg(long, default_value_t = 1_000)]
    changes: u32,
    /// Changes of endpoints in each second, after those that are timed one by one,
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// and for how many seconds.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// The same changes by `nft` in rules of kube-proxy's shape, which take a while to load; 0: none.
    #[arg(long, default_value_t = 20)]
    nft: u32,
    /// Seconds for which an agent with nothing to do is watched.
    #[arg(long, default_value_t = 10.0)]
    rest: f64,
}

fn main() -> Result<()> {
    match Cli::parse().what {
        What::PodToPod(arguments) => pod_to_pod(arguments),
        What::NodePort(arguments) => node_port(arguments),
        What::Programs(Programs { verifier: true, .. }) => {
            print!("{}", verifier::run()?);
            Ok(())
        }
        What::Programs(Programs { rounds, .. }) => {
            interrupt::watch()?;
            print!("{}", programs::run(rounds)?);
            Ok(())
        }
        What::Policy(Policy { rounds, policies, pods }) => {
            interrupt::watch()?;
            print!("{}", policy::run(&policy::Plan { rounds, policies, pods })?);
            Ok(())
        }
        What::Revalidate(Revalidate { rounds, flows, changes }) => {
            interrupt::watch()?;
            print!("{}", revalidate::run(&revalidate::Plan { rounds, flows, changes })?);
            Ok(())
        }
        What::Scale(Scale { shapes, changes, rate, seconds, nft, rest }) => {
            interrupt::watch()?;
            let [time, rest] = [seconds, rest].map(Duration::try_from_secs_f64);
            let (time, rest) = (time?, rest?);
            scale::run(&scale::Plan { shapes, changes, rate, time, nft, rest }, |table| print!("{table}"))
        }
        What::Server { address } => load::serve(address),
        What::Client { metric, target, seconds } => {
            println!("{}", load::ask(metric, target, Duration::try_from_secs_f64(seconds)?)?);
            Ok(())
        }
    }
}

fn pod_to_pod(arguments: PodToPod) -> Result<()> {
    interrupt::watch()?;
    let plan = Plan {
        rounds: arguments.rounds,
        time: Duration::try_from_secs_f64(arguments.seconds)?,
        services: arguments.services,
        configs: arguments.configs,
        metrics: arguments.metrics,
        cpus: cpus(arguments.unpinned)?,
    };
    let outcomes = run(&plan)?;
    report(&outcomes, plan.rounds, plan.time, plan.cpus, arguments.json)
}

fn node_port(arguments: NodePort) -> Result<()> {
    interrupt::watch()?;
    let plan = node_port::Plan {
        rounds: arguments.rounds,
        time: Duration::try_from_secs_f64(arguments.seconds)?,
        configs: arguments.configs,
        metrics: arguments.metrics,
        cpus: cpus(arguments.unpinned)?,
    };
    let outcomes = node_port::run(&plan)?;
    report(&outcomes, plan.rounds, plan.time, plan.cpus, arguments.json)
}

fn cpus(unpinned: bool) -> Result<Option<Cpus>> {
    if unpinned { Ok(None) } else { load::cpus().map(Some) }
}

/// Prints the table, and writes the file.
fn report(
    outcomes: &[Outcome],
    rounds: usize,
    time: Duration,
    cpus: Option<Cpus>,
    json: Option<PathBuf>,
) -> Result<()> {
    let place = match cpus {
        Some(cpus) => format!("client on CPU {}, server on CPU {}", cpus.client, cpus.server),
        None => "not pinned".to_owned(),
    };
    println!("{rounds} rounds of {time:?} each, in turn; {place}\n");
    print!("{}", Outcome::table(outcomes));
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&Outcome::json(outcomes))?;
        std::fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
