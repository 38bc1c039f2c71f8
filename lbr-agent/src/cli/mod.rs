//! The command line: flags as typed ([`args`]), and a file for each subcommand.

pub mod args;
mod json;
mod rows;
pub mod run;
pub mod show;
mod table;

pub use args::{Cli, Command};

/// One line for a person: what happened, and why, outermost first.
#[expect(clippy::print_stderr, reason = "the error output of a command-line tool")]
pub fn print_error(error: &anyhow::Error) {
    eprintln!("lbr: {error:#}");
}
