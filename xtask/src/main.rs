//! The tasks of a contributor: `cargo xtask setup|build|check|test|soak|demo|bench|image|vm`.
//!
//! It needs only the Rust toolchain of `rust-toolchain.toml`; `setup` installs everything else, and every other
//! command starts with it.

mod arch;
mod build;
mod check;
mod cross;
mod image;
mod lanes;
mod layering;
mod machine;
mod plan;
mod play;
mod run;
mod say;
mod setup;
mod soak;
mod source_text;
mod suites;
mod summary;
mod test;
mod toolchain;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Tasks for people who work on lbr, or try it"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing (every other task does it too)
    Setup,
    /// Build the agent and the test binaries
    Build(build::Args),
    /// Check format, lints, documentation and the walls between modules
    Check,
    /// Run every test; needs root for those on the real kernel
    Test(test::Args),
    /// Play random packets, and a flood of them, for a long time; needs root
    Soak(soak::Args),
    /// Show lbr at work: pods as network namespaces, a folder of YAML (or `--kubernetes`), a minute
    Demo(play::Args),
    /// Measure lbr against a direct path and against nftables
    Bench(play::Args),
    /// Make a container image of lbr, and a list of its components
    Image(image::Args),
    /// Run lbr and tests on other kernels, which QEMU boots
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::run(true).map(|_| true),
        Task::Build(args) => build::run(&args).map(|()| true),
        Task::Check => check::run().map(|()| true),
        Task::Test(args) => test::run(&args),
        Task::Soak(args) => soak::run(&args).map(|()| true),
        Task::Demo(args) => play::run("demo", &args).map(|()| true),
        Task::Bench(args) => play::run("bench", &args).map(|()| true),
        Task::Image(args) => image::run(&args).map(|()| true),
        Task::Vm(args) => vm::run(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        // The failures have been reported.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say::error(&error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_demo_reach_it() {
        let cli = Cli::try_parse_from(["cargo xtask", "demo", "--kubernetes"]).map_err(|e| e.to_string());
        let Ok(Cli { task: Task::Demo(args) }) = cli else { panic!("{:?}", cli.err()) };
        assert_eq!(args.given(), ["--kubernetes"]);
    }
    #[test]
    fn words_after_the_kernels_are_the_suite() {
        let words = ["cargo xtask", "vm", "6.1", "6.12", "--jobs", "2", "--", "network", "restart::"];
        let cli = Cli::try_parse_from(words).map_err(|e| e.to_string());
        let Ok(Cli { task: Task::Vm(args) }) = cli else { panic!("{:?}", cli.err()) };
        assert_eq!(args.asked(), (vec!["6.1", "6.12"], vec!["network", "restart::"]));
    }
}
