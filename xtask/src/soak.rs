//! `cargo xtask soak`: tests that normally run for seconds, for as long as requested.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, run, say, setup};

/// Command line arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Random sequences of packets against the model (`programs model`); a million takes about an hour on two CPUs
    #[arg(long, default_value_t = 1_000_000)]
    sequences: u64,
    /// Random clusters in which `lbr why` is compared with packets (`programs why`); about ten minutes on two CPUs
    #[arg(long, default_value_t = 5_000)]
    worlds: u64,
    /// Number of processes for each of these: more than CPUs, since changes of policies wait for the kernel
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    jobs: u64,
    /// Duration of the flood, in seconds, during which established connections must last
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
}

/// Runs all, and stops at the first failure.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(false)?;
    ensure!(run::is_root(), "these tests load programs and make namespaces: run it as root");
    say::line("build: test binaries");
    build::tests()?;
    run::shown(suite("flood").env("LBR_FLOOD_SECONDS", args.seconds.to_string()))?;
    in_jobs(args.jobs, args.worlds, "LBR_WORLDS", "why::", "`lbr why` differs from the programs")?;
    in_jobs(args.jobs, args.sequences, "LBR_SEQUENCES", "model::", "the programs differ from the model")
}

/// Each job runs its share of the seeds.
fn in_jobs(jobs: u64, all: u64, variable: &str, test: &str, failure: &str) -> Result<()> {
    let share = all.div_ceil(jobs);
    let mut running = Vec::new();
    for job in 0..jobs {
        let mut command = suite("programs");
        command.args(["--nocapture", test]);
        command.env("LBR_SEED", (1 + job * share).to_string()).env(variable, share.to_string());
        running.push(command.spawn().with_context(|| run::text(&command))?);
    }
    // Waits for all of them, so that none outlives this process.
    let ends: Vec<_> = running.iter_mut().map(std::process::Child::wait).collect::<Result<_, _>>()?;
    if let Some(failed) = ends.iter().find(|status| !status.success()) {
        bail!("{failure} ({failed}): its output above has the seed");
    }
    Ok(())
}

/// The command for one file in `tests/tests`.
fn suite(name: &str) -> Command {
    let mut command = build::test_command();
    command.args(["--test", name, "--", "--test-threads=1", "--include-ignored"]);
    command
}
