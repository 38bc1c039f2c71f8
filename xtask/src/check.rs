//! `cargo xtask check`: checks that a reviewer should not have to make.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::toolchain::Toolchain;
use crate::{layering, run, say, setup};

/// Files longer than this are reported; nothing fails.
const LONG: usize = 400;
/// The packages that are built for this machine.
const HOST: [&str; 3] = ["--workspace", "--exclude", "lbr-ebpf"];

/// Runs all checks, even after a failure, and names the failed ones.
pub(crate) fn run() -> Result<()> {
    let toolchain = setup::run(false)?;
    let mut failed = Vec::new();
    let mut report = |name: &str, hint: &str, outcome: Result<bool>| match outcome {
        Ok(true) => say::line(&format!("check: {name:<18} {}", say::green("ok"))),
        Ok(false) => {
            say::line(&format!("check: {name:<18} {} ({hint})", say::red("FAILED")));
            failed.push(name.to_owned());
        }
        Err(error) => {
            say::line(&format!("check: {name:<18} {} ({error:#})", say::red("FAILED")));
            failed.push(name.to_owned());
        }
    };
    report(
        "format",
        "run `cargo fmt --all`",
        tool("format", run::cargo().args(["fmt", "--all", "--check", "--", "-l"])),
    );
    let sources = sources()?;
    report("layering", "move the code, or the wall in xtask/src/layering.rs", layers(&sources));
    report("clippy", "see above", tool("clippy", &mut host_clippy()));
    report("clippy lbr-ebpf", "see above", kernel_clippy(toolchain));
    report("doc", "see above", tool("doc", &mut documentation()));
    if run::succeeds(run::cargo().args(["deny", "--version"])) {
        let words = ["deny", "check", "bans", "licenses", "sources"];
        report("cargo-deny", "see above, and deny.toml", tool("deny", run::cargo().args(words)));
        match advisories() {
            Ok(None) => not_run("advisories", "the advisory database cannot be fetched from here"),
            Ok(Some(clean)) => report("advisories", "see above", Ok(clean)),
            Err(error) => report("advisories", "see above", Err(error)),
        }
    } else {
        not_run("cargo-deny", "cargo install cargo-deny --locked");
    }
    report_long(&sources)?;
    if !failed.is_empty() {
        bail!("checks failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Whether the dependencies have no known vulnerabilities. None if the database cannot be fetched.
fn advisories() -> Result<Option<bool>> {
    let outcome = run::captured("advisories", run::cargo().args(["deny", "check", "advisories"]))?;
    if outcome.text.contains("failed to fetch advisory database") {
        return Ok(None);
    }
    if !outcome.ok {
        say::line(outcome.text.trim_end());
    }
    Ok(Some(outcome.ok))
}

fn not_run(name: &str, why: &str) {
    say::line(&format!("check: {name:<18} {} ({why})", say::yellow("not run")));
}

/// Runs a tool; shows its output if it fails.
fn tool(label: &str, command: &mut Command) -> Result<bool> {
    let outcome = run::captured(label, command)?;
    if !outcome.ok {
        for line in outcome.text.lines().filter(|line| !is_progress(line)) {
            say::line(line);
        }
    }
    Ok(outcome.ok)
}

/// Whether a line is only cargo's progress, including that of cargo within lbr-agent's build script.
fn is_progress(line: &str) -> bool {
    let own = line.strip_prefix("warning: lbr-agent@").and_then(|rest| rest.split_once(": "));
    let first = own.map_or(line, |(_, text)| text).split_whitespace().next().unwrap_or_default();
    matches!(first, "Compiling" | "Checking" | "Documenting" | "Downloading" | "Downloaded" | "Finished")
}

fn host_clippy() -> Command {
    let mut command = run::cargo();
    command.arg("clippy").args(HOST).args(["--all-targets", "--", "-D", "warnings"]);
    command
}

fn documentation() -> Command {
    let mut command = run::cargo();
    command.arg("doc").args(HOST).args(["--no-deps", "--document-private-items"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// Clippy for the kernel object, with the toolchain that builds it; only the compiler's own warnings if that
/// toolchain has no clippy.
fn kernel_clippy(toolchain: Toolchain) -> Result<bool> {
    let name = toolchain.name();
    let has_clippy = run::succeeds(Command::new("rustup").args(["run", name, "cargo-clippy", "--version"]));
    let mut command = Command::new("rustup");
    command.args(["run", name, "cargo", if has_clippy { "clippy" } else { "check" }]);
    command.args(["-p", "lbr-ebpf", "--bins", "--release", "--target", "bpfel-unknown-none"]);
    command.args(["-Z", "build-std=core"]);
    // A target folder of its own: the agent's build of it has other flags, and each would undo the other's work.
    command.arg("--target-dir").arg(target_folder()?.join("check-lbr-ebpf"));
    let arch = std::env::consts::ARCH;
    let flags = [&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Dwarnings"].join("\u{1f}");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags).current_dir(run::root());
    // The cargo that runs this task passes its own compiler to its children.
    for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "RUSTC", "RUSTDOC", "RUSTC_WORKSPACE_WRAPPER"] {
        command.env_remove(variable);
    }
    if toolchain.needs_bootstrap() {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    tool("clippy lbr-ebpf", &mut command)
}

/// cargo's target folder: two folders above this program.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where this program is")?;
    let folder = own.parent().and_then(Path::parent).context("this program is in no folder")?;
    Ok(folder.to_owned())
}

/// A source file: its path from the root of the workspace, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

fn layers(sources: &[Source]) -> Result<bool> {
    let broken: Vec<String> =
        sources.iter().flat_map(|source| layering::check(&source.path, &source.text)).collect();
    for text in &broken {
        say::line(text);
    }
    Ok(broken.is_empty())
}

fn report_long(sources: &[Source]) -> Result<()> {
    for source in sources {
        let lines = source.text.lines().count();
        if lines > LONG {
            let note = say::yellow("long");
            say::line(&format!("check: {:<18} {note}: {} has {lines} lines", "file length", source.path));
        }
    }
    Ok(())
}

/// Every Rust source of the workspace, ordered by path.
fn sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for package in ["lbr-agent", "lbr-common", "lbr-ebpf", "tests", "xtask"] {
        collect(&run::root().join(package), package, &mut sources)?;
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn collect(folder: &Path, name: &str, sources: &mut Vec<Source>) -> Result<()> {
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let own = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{name}/{own}");
        if entry.file_type()?.is_dir() && own != "target" {
            collect(&entry.path(), &path, sources)?;
        } else if own.ends_with(".rs") {
            let text = std::fs::read_to_string(entry.path()).with_context(|| path.clone())?;
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_distinguished_from_findings() {
        assert!(is_progress("   Compiling aya v0.14.0"));
        assert!(is_progress("warning: lbr-agent@0.1.0:    Compiling core v0.0.0"));
        assert!(!is_progress("warning: lbr-agent@0.1.0: error: unused variable"));
        assert!(!is_progress("error: unreachable `pub` item"));
        assert!(!is_progress(""));
    }

    #[test]
    fn this_file_is_among_the_sources() {
        let all = sources().unwrap();
        assert!(all.iter().any(|source| source.path == "xtask/src/check.rs"));
    }
}
