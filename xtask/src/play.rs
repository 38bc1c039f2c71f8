//! `cargo xtask demo` and `cargo xtask bench`: binaries of package `lbr-tests`, built optimised and run as root.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{build, run, say, setup};

/// Command line arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Arguments for the program itself; `-- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[cfg(test)]
impl Args {
    /// The arguments of the program.
    pub(crate) fn given(&self) -> &[String] {
        &self.args
    }
}

/// Builds the program, and replaces this process by it.
pub(crate) fn run(name: &str, args: &Args) -> Result<()> {
    setup::run(false)?;
    let binary = build::release_binary(name)?;
    let mut command = if run::is_root() {
        Command::new(&binary)
    } else {
        say::line(&format!("{name}: network namespaces and BPF need root, asking sudo"));
        let mut sudo = Command::new("sudo");
        sudo.arg(&binary);
        sudo
    };
    command.args(&args.args).current_dir(run::root());
    // This returns only on failure.
    Err(command.exec()).with_context(|| format!("cannot start `{}`", run::text(&command)))
}
