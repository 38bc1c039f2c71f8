//! `cargo xtask test`: every test, with one summary.

use anyhow::{Context as _, Result};

use crate::lanes::{self, Load};
use crate::suites::{self, Suite};
use crate::summary::Summary;
use crate::{build, run, say, setup, vm};

/// Command line arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only tests that need no root, and accept that as success
    #[arg(long)]
    unprivileged: bool,
    /// Leave out tests on another kernel in QEMU (`cargo xtask vm`)
    #[arg(long)]
    this_kernel: bool,
    /// Only tests whose name contains this, and other arguments for the test binaries
    #[arg(last = true)]
    filter: Vec<String>,
}

/// Runs the tests. False: some failed, and that has been reported; nothing may follow the summary.
pub(crate) fn run(args: &Args) -> Result<bool> {
    setup::run(false)?;
    let suites = suites::all()?;
    say::line("build: test binaries");
    build::tests().context("building the tests failed: see the compiler's output above")?;

    let (mut total, mut failed, mut left_out) = (Summary::default(), Vec::new(), Vec::new());
    let mut jobs = Vec::new();
    if !args.this_kernel && args.filter.is_empty() {
        // The longest of those that compute.
        jobs.push((Load::Computes, Job::AnotherKernel));
    } else {
        say::line("not run: tests on another kernel (`cargo xtask vm` runs them)");
    }
    for suite in &suites {
        if suite.root && (args.unprivileged || !run::is_root()) {
            total += list(suite, &args.filter)?;
            left_out.push(suite.name.as_str());
        } else {
            jobs.push((suite.load, Job::Suite(suite)));
        }
    }
    for (name, sum) in lanes::run(jobs, |job, niced| (job.name(), job.play(niced, &args.filter))) {
        // What cannot run has failed; the others have a summary all the same.
        let sum = sum.unwrap_or_else(|error| {
            say::error(&error.context(name.to_owned()));
            Summary { failed: 1, ..Summary::default() }
        });
        if sum.failed > 0 {
            failed.push(name);
        }
        total += sum;
    }
    Ok(conclude(args, &total, &failed, &left_out))
}

/// Prints the result. The summary is the last line on standard output.
fn conclude(args: &Args, total: &Summary, failed: &[&str], left_out: &[&str]) -> bool {
    if !failed.is_empty() {
        say::line(&format!("failed: {} (output above)", failed.join(", ")));
    }
    if !left_out.is_empty() {
        say::line(&format!("not run, they need root: {}", left_out.join(", ")));
        if !args.unprivileged {
            say::line("run `cargo xtask test` as root, or use `--unprivileged` if the rest is enough");
        }
    }
    let ignored = if left_out.is_empty() { total.skipped.as_slice() } else { &[] };
    for name in ignored {
        say::line(&format!("skipped: {name} (as root no test may be skipped: make it run or remove it)"));
    }
    say::line(&total.to_string());
    failed.is_empty() && ignored.is_empty() && (left_out.is_empty() || args.unprivileged)
}

/// What runs as one.
enum Job<'a> {
    Suite(&'a Suite),
    AnotherKernel,
}

impl<'a> Job<'a> {
    fn name(&self) -> &'a str {
        match self {
            Self::Suite(suite) => &suite.name,
            Self::AnotherKernel => "another kernel",
        }
    }

    fn play(&self, niced: bool, filter: &[String]) -> Result<Summary> {
        match self {
            Self::Suite(suite) => play(suite, niced, filter),
            Self::AnotherKernel => {
                vm::of_tests().context("the tests on another kernel (`--this-kernel` leaves them out)")
            }
        }
    }
}

/// Runs one suite and prints a line for it; all of its output if a test failed.
fn play(suite: &Suite, niced: bool, filter: &[String]) -> Result<Summary> {
    let mut command = build::test_command();
    command.args(&suite.args).args(["--no-fail-fast", "--"]).args(filter);
    if run::is_root() {
        // Tests that are ignored by default need root, which `cargo test` may lack.
        command.arg("--include-ignored");
    }
    if suite.root {
        // As many as there are CPUs would not keep their time limits.
        command.arg("--test-threads=1");
    }
    if niced {
        command = run::niced(&command);
    }
    let outcome = run::captured(&suite.name, &mut command)?;
    let sum = Summary::read(&outcome.text, outcome.ok);
    if sum.failed > 0 {
        say::line(outcome.text.trim_end());
    }
    let mark = if sum.failed > 0 { say::red("FAILED") } else { say::green("ok") };
    let seconds = outcome.took.as_secs_f64();
    say::line(&format!("test: {:<12} {mark}  {sum}  ({seconds:.1} s)", suite.name));
    Ok(sum)
}

/// The tests that a suite would run.
fn list(suite: &Suite, filter: &[String]) -> Result<Summary> {
    let mut command = build::test_command();
    command.args(&suite.args).arg("--").args(filter).arg("--list");
    Ok(Summary::not_run(&run::captured(&suite.name, &mut command)?.text))
}
