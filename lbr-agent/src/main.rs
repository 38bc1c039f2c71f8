//! `lbr`: the command line.

use std::process::ExitCode;

use clap::Parser as _;
use lbr_agent::cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => lbr_agent::cli::run::run(args),
        Command::Show(args) => lbr_agent::cli::show::show(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lbr_agent::cli::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
