//! `lbr`: the command line.

use std::process::ExitCode;

use lbr_agent::cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::of_command_line().command {
        Command::Run(args) => lbr_agent::cli::run::run(*args),
        Command::Cleanup(args) => lbr_agent::cli::cleanup::cleanup(&args),
        Command::Show(args) => lbr_agent::cli::show::show(&args),
        Command::Status(args) => lbr_agent::cli::status::status(&args),
        Command::Version(args) => lbr_agent::cli::version::version(&args),
        Command::Monitor(args) => lbr_agent::cli::monitor::monitor(&args),
        Command::Completions(args) => lbr_agent::cli::completions::completions(&args),
        Command::Why(args) => return why(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lbr_agent::cli::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

/// The exit code is part of the answer.
fn why(args: &lbr_agent::cli::args::WhyArgs) -> ExitCode {
    match lbr_agent::cli::why::why(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            lbr_agent::cli::print_error(&error);
            ExitCode::from(2)
        }
    }
}
