//! Builds for an architecture other than this machine's.

use std::process::Command;

use anyhow::{Result, bail};

use crate::arch::Arch;
use crate::{run, say};

/// Adds the standard library of another architecture to the compiler.
pub(crate) fn add_target(arch: Arch) -> Result<()> {
    let rustup = |words: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(words).current_dir(run::root());
        run::captured("rustup", &mut command)
    };
    let triple = arch.triple();
    if rustup(&["target", "list", "--installed"])?.text.lines().any(|line| line == triple) {
        return Ok(());
    }
    let outcome = rustup(&["target", "add", triple])?;
    if !outcome.ok {
        say::line(outcome.text.trim_end());
        bail!(
            "rustup cannot fetch the standard library of {triple}; use --binaries with programs built elsewhere"
        );
    }
    Ok(())
}

/// Adapts a call of cargo build to another architecture.
pub(crate) fn for_target(command: &mut Command, arch: Arch) {
    let (triple, compiler) = (arch.triple(), format!("{}-gcc", arch.multiarch()));
    let variable = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
    command.args(["--target", triple]).env(variable, &compiler);
    command.env(format!("CC_{}", triple.replace('-', "_")), compiler);
}
