//! `cargo xtask setup`: installs what is missing.

use std::io::IsTerminal as _;
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine::{LINKER_VERSION, Machine, Tool, has_apt, llvm_prefix};
use crate::plan::{Step, plan};
use crate::toolchain::{self, DEBIAN, Toolchain};
use crate::{run, say};

/// The timeout of rustup, for machines without internet access.
const SECONDS_FOR_SOURCES: u32 = 90;
/// The same for a whole toolchain.
const SECONDS_FOR_TOOLCHAIN: u32 = 600;

/// Installs what is missing, and returns the toolchain for the kernel object. `verbose`: prints a line even if
/// nothing is missing.
pub(crate) fn run(verbose: bool) -> Result<Toolchain> {
    run_with(&[], verbose)
}

/// The same for a task that needs more programs than others do.
pub(crate) fn run_with(more: &[Tool], verbose: bool) -> Result<Toolchain> {
    if run::find_program("rustup").is_none() {
        bail!("rustup is missing: install it as described at https://rustup.rs, it manages the compilers");
    }
    let mut machine = Machine::detect(more);
    let mut done = Vec::new();
    announce(&machine)?;
    while let Some(step) = plan(&machine).map_err(anyhow::Error::msg)?.into_iter().next() {
        if done.contains(&step) {
            bail!("setup step done, but still needed: {step}");
        }
        perform(&step)?;
        let rustup_tried = machine.rustup_tried || matches!(step, Step::Nightly { .. });
        let lists_fetched = machine.lists_fetched || step == Step::PackageLists;
        done.push(step);
        machine = Machine { rustup_tried, lists_fetched, ..Machine::detect(more) };
    }
    let Some(chosen) = toolchain::choose(&machine.installed) else {
        bail!("no toolchain can build the kernel object, although nothing is missing");
    };
    if verbose || !done.is_empty() {
        let llvm = machine.installed.linker.map_or(String::new(), |llvm| format!(" with LLVM {llvm}"));
        say::line(&format!(
            "setup: complete (kernel object: toolchain `{}`, bpf-linker {LINKER_VERSION}{llvm})",
            chosen.name()
        ));
    }
    Ok(chosen)
}

/// Prints the steps that follow, or why setup is impossible.
fn announce(machine: &Machine) -> Result<()> {
    let steps = plan(machine).map_err(anyhow::Error::msg)?;
    if steps.is_empty() {
        return Ok(());
    }
    say::line("setup: missing on this machine:");
    for step in &steps {
        say::line(&format!("  - {step}"));
    }
    if !has_apt() {
        bail!(
            "this machine has no apt-get, and setup knows no other way: please install\n  \
             - nightly with rust-src: rustup toolchain install nightly --profile minimal --component rust-src,clippy\n  \
             - LLVM 22 with headers, and bpf-linker: cargo install bpf-linker --locked --version ~{LINKER_VERSION} \
             --no-default-features --features llvm-22 (LLVM_PREFIX: the folder of that LLVM)\n  \
             - the programs ip, bpftool, nft, iptables-nft-restore, iperf3, kubectl and promtool"
        );
    }
    if steps.iter().any(Step::needs_root) { become_able() } else { Ok(()) }
}

/// Makes sure that packages can be installed. sudo asks for the password here, before output is captured.
fn become_able() -> Result<()> {
    if run::is_root() || run::succeeds(Command::new("sudo").args(["-n", "true"])) {
        return Ok(());
    }
    if std::io::stdin().is_terminal() && run::find_program("sudo").is_some() {
        return run::shown(Command::new("sudo").arg("-v"));
    }
    bail!("packages need root: run `cargo xtask setup` as root, or at a terminal where sudo can ask");
}

/// Performs one step.
fn perform(step: &Step) -> Result<()> {
    if step.needs_root() {
        become_able()?;
    }
    match step {
        Step::Nightly { install } => {
            nightly(*install);
            Ok(())
        }
        Step::PackageLists => must("apt-get update", &mut apt(&["update"])),
        Step::Packages(packages) => {
            let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
            install(&names)
        }
        Step::LinkDebian => {
            must("toolchain link", Command::new("rustup").args(["toolchain", "link", DEBIAN, "/usr"]))
        }
        Step::Linker { llvm } => linker(*llvm),
    }
}

/// Requests the sources from rustup, with a timeout. A failure is no error: the next plan has an alternative.
fn nightly(install: bool) {
    let (limit, words): (u32, &[&str]) = if install {
        let words =
            ["toolchain", "install", "nightly", "--profile", "minimal", "-c", "rust-src", "-c", "clippy"];
        (SECONDS_FOR_TOOLCHAIN, &words.clone())
    } else {
        (SECONDS_FOR_SOURCES, &["component", "add", "rust-src", "--toolchain", "nightly"])
    };
    let mut command = Command::new("timeout");
    command.arg(limit.to_string()).arg("rustup").args(words).env("RUSTUP_MAX_RETRIES", "1");
    let worked = run::captured("rustup", &mut command).is_ok_and(|outcome| outcome.ok);
    say::line(if worked {
        "  nightly has rust-src now"
    } else {
        "  rustup cannot download here: taking Debian's toolchain instead"
    });
}

/// Installs packages; again with fresh lists if the mirror no longer has the listed versions.
fn install(names: &[&str]) -> Result<()> {
    let words = [&["install", "-y", "-q", "--no-install-recommends"], names].concat();
    if run::captured("apt-get install", &mut apt(&words))?.ok {
        say::line(&format!("  installed: {}", names.join(" ")));
        return Ok(());
    }
    must("apt-get update", &mut apt(&["update"]))?;
    must("apt-get install", &mut apt(&words))
}

fn apt(words: &[&str]) -> Command {
    let mut command = Command::new(if run::is_root() { "env" } else { "sudo" });
    if !run::is_root() {
        command.arg("env");
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(words);
    command
}

fn linker(llvm: u32) -> Result<()> {
    let mut command = run::cargo();
    command.args(["install", "bpf-linker", "--locked", "--force", "--no-default-features"]);
    command.args(["--version", &format!("~{LINKER_VERSION}"), "--features", &format!("llvm-{llvm}")]);
    command.env("LLVM_PREFIX", llvm_prefix(llvm));
    must("bpf-linker (about a minute)", &mut command)
}

/// Runs a step that has no alternative.
fn must(label: &str, command: &mut Command) -> Result<()> {
    let outcome = run::captured(label, command)?;
    if !outcome.ok {
        say::line(outcome.text.trim_end());
        bail!("setup step failed: `{}`; its output is above", run::text(command));
    }
    say::line(&format!("  {label}: done in {:.0} s", outcome.took.as_secs_f64()));
    Ok(())
}
