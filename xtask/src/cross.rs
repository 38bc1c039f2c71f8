//! Builds for another architecture than this machine's.

use std::process::Command;

use anyhow::{Result, bail};

use crate::arch::Arch;
use crate::{run, say};

/// Makes sure that the compiler has the standard library of another architecture.
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
            "rustup can not fetch the standard library of {triple}; --binaries takes what was built elsewhere"
        );
    }
    Ok(())
}

/// Makes a call of cargo build for another architecture.
pub(crate) fn for_target(command: &mut Command, arch: Arch) {
    let (triple, compiler) = (arch.triple(), format!("{}-gcc", arch.multiarch()));
    let variable = format!("CARGO_TARGET_{}_LINKER", triple.to_uppercase().replace('-', "_"));
    command.args(["--target", triple]).env(variable, &compiler);
    command.env(format!("CC_{}", triple.replace('-', "_")), compiler);
}
