//! `cargo xtask build`: the agent with the kernel object inside, and the test binaries.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::suites::PACKAGES;
use crate::{run, say, setup};

/// Command line arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Optimised
    #[arg(long)]
    release: bool,
}

/// Builds everything.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(false)?;
    let mut command = run::cargo();
    command.args(["build", "-p", "lbr-agent", "--bin", "lbr"]);
    command.args(args.release.then_some("--release"));
    run::shown(&mut command).context("building lbr failed")?;
    tests().context("building the tests failed")?;
    let profile = if args.release { "release" } else { "debug" };
    say::line(&format!("build: complete (the agent is `lbr` in the {profile} folder of cargo's target)"));
    Ok(())
}

/// Builds every test binary, and the agent that some of them start.
pub(crate) fn tests() -> Result<()> {
    run::shown(run::cargo().arg("build").args(PACKAGES).args(["--bin", "lbr", "--quiet"]))?;
    run::shown(test_command().args(["--lib", "--bins", "--tests", "--no-run", "--quiet"]))
}

/// `cargo test` for all packages; the caller selects tests.
pub(crate) fn test_command() -> Command {
    let mut command = run::cargo();
    command.arg("test").args(PACKAGES);
    command
}

/// Builds a binary of package `lbr-tests` and the agent, optimised, and returns the path of the former. The agent is
/// in the same folder.
pub(crate) fn release_binary(name: &str) -> Result<PathBuf> {
    say::line(&format!("build: lbr and {name}, optimised (minutes at the first time)"));
    let mut command = run::cargo();
    command.args(["build", "--release", "-p", "lbr-agent", "--bin", "lbr", "-p", "lbr-tests", "--bin", name]);
    built(&mut command, name)
}

/// Runs `cargo build`, and returns the path of a binary that it built.
pub(crate) fn built(command: &mut Command, name: &str) -> Result<PathBuf> {
    command.arg("--message-format=json-render-diagnostics");
    let output = command.stdout(Stdio::piped()).spawn()?.wait_with_output()?;
    if !output.status.success() {
        bail!("building {name} failed: see the compiler's output above");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    executable(&messages, name).with_context(|| format!("cargo does not report the path of {name}"))
}

/// The path of a binary in cargo's messages, one JSON object on a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let paths = messages.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    paths.map(PathBuf::from).find(|path| path.file_name().is_some_and(|file| file == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_binary_in_the_messages() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"executable\":null,\"fresh\":true}\n",
            "{\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/lbr\",\"fresh\":true}\n",
            "{\"reason\":\"compiler-artifact\",\"executable\":\"/t/release/demo\",\"fresh\":false}\n",
        );
        assert_eq!(executable(messages, "demo"), Some(PathBuf::from("/t/release/demo")));
        assert_eq!(executable(messages, "bench"), None);
    }
}
