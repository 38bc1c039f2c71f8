//! `cargo xtask soak`: what tests play for seconds, played until it says more.

use anyhow::{Result, ensure};

use crate::{build, run, say, setup};

/// What the user asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Random sequences of packets against the model (`programs model`); a million takes hours
    #[arg(long, default_value_t = 1_000_000)]
    sequences: u64,
    /// For how long the flood lasts that established connections outlast
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Plays both, and stops at the first that fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(false)?;
    ensure!(run::is_root(), "both load programs and make namespaces: run it as root");
    say::line("build: test binaries");
    build::tests()?;
    play("flood", "", ("LBR_FLOOD_SECONDS", args.seconds))?;
    play("programs", "model::", ("LBR_SEQUENCES", args.sequences))
}

/// The tests with this in their names, of one file in `tests/tests`.
fn play(suite: &str, filter: &str, (variable, value): (&str, u64)) -> Result<()> {
    let mut command = build::test_command();
    command.args(["--test", suite, "--", "--test-threads=1", "--include-ignored"]);
    if !filter.is_empty() {
        command.arg(filter);
    }
    run::shown(command.env(variable, value.to_string()))
}
