//! The command line: flags as typed ([`args`]), and a file for each subcommand.

pub mod args;
pub mod cleanup;
pub mod completions;
#[cfg(test)]
mod example;
mod json;
pub mod monitor;
mod names;
mod rows;
pub mod run;
pub mod show;
pub mod status;
mod table;
pub mod version;
pub mod why;

use std::io::Write as _;

pub use args::{Cli, Command};

/// Writes to standard output. A reader that has gone is no error (`lbr show flows | head`).
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// One line for a person: what failed, and why, outermost first.
#[expect(clippy::print_stderr, reason = "the error output of a command-line tool")]
pub fn print_error(error: &anyhow::Error) {
    eprintln!("lbr: {error:#}");
}
