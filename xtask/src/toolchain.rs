//! The Rust toolchain that builds the kernel object. Shared with the build script of `lbr-agent`.
//!
//! `core` must be built for `bpfel-unknown-none`: by a nightly with its sources (`rust-src`) or, where rustup cannot
//! download, by Debian's `rustc-web` with `RUSTC_BOOTSTRAP=1`. `bpf-linker` reads the compiler's bitcode, so its LLVM
//! must not be older than the compiler's.

use std::path::Path;
use std::process::Command;

/// Name under which Debian's toolchain is linked: `rustup toolchain link debian /usr`.
pub(crate) const DEBIAN: &str = "debian";

/// The toolchains and the linker on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    /// LLVM major version of a nightly toolchain that has `rust-src`.
    pub(crate) nightly: Option<u32>,
    /// LLVM major version of Debian's toolchain, if it is linked and has `rust-web-src`.
    pub(crate) debian: Option<u32>,
    /// LLVM major version of `bpf-linker`; none if there is no linker, or if it does not report one.
    pub(crate) linker: Option<u32>,
}

/// A toolchain that can build the kernel object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's nightly.
    Nightly,
    /// Debian's stable compiler.
    Debian,
}

impl Toolchain {
    /// Its name for `rustup run`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Debian => DEBIAN,
        }
    }

    /// Whether unstable flags must be unlocked by `RUSTC_BOOTSTRAP=1`.
    pub(crate) fn needs_bootstrap(self) -> bool {
        self == Self::Debian
    }
}

/// Nightly if it is complete, else Debian's, else none. A toolchain whose LLVM the linker cannot read does not count.
pub(crate) fn choose(installed: &Installed) -> Option<Toolchain> {
    let usable = |llvm: Option<u32>| llvm.is_some_and(|llvm| installed.linker.is_none_or(|l| llvm <= l));
    if usable(installed.nightly) {
        Some(Toolchain::Nightly)
    } else if usable(installed.debian) {
        Some(Toolchain::Debian)
    } else {
        None
    }
}

impl Installed {
    /// Detects them on this machine.
    pub(crate) fn detect() -> Self {
        Self { nightly: llvm_with_source("nightly"), debian: llvm_with_source(DEBIAN), linker: linker_llvm() }
    }
}

/// LLVM major version of a toolchain that rustup knows and that has the sources of `core`.
fn llvm_with_source(toolchain: &str) -> Option<u32> {
    let sysroot = output(Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]))?;
    if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists() {
        return None;
    }
    let version = output(Command::new("rustup").args(["run", toolchain, "rustc", "-vV"]))?;
    major_after(&version, "LLVM version: ")
}

/// LLVM major version that `bpf-linker` is linked with.
fn linker_llvm() -> Option<u32> {
    let path = output(Command::new("sh").args(["-c", "command -v bpf-linker"]))?;
    major_after(&output(Command::new("ldd").arg(path.trim()))?, "libLLVM.so.")
}

/// The number that follows the first `mark` in `text`.
fn major_after(text: &str, mark: &str) -> Option<u32> {
    let rest = text.split_once(mark)?.1;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The output of a command, if it succeeds.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nightly_comes_first() {
        let all = Installed { nightly: Some(22), debian: Some(22), linker: Some(22) };
        assert_eq!(choose(&all), Some(Toolchain::Nightly));
        assert_eq!(choose(&Installed { nightly: None, ..all }), Some(Toolchain::Debian));
        assert_eq!(choose(&Installed { debian: None, ..all }), Some(Toolchain::Nightly));
        assert_eq!(choose(&Installed { nightly: None, debian: None, ..all }), None);
    }

    #[test]
    fn a_compiler_newer_than_the_linker_is_not_chosen() {
        let newer = Installed { nightly: Some(23), debian: Some(22), linker: Some(22) };
        assert_eq!(choose(&newer), Some(Toolchain::Debian));
        assert_eq!(choose(&Installed { debian: None, ..newer }), None);
        assert_eq!(choose(&Installed { linker: None, ..newer }), Some(Toolchain::Nightly));
    }

    #[test]
    fn only_debian_needs_the_bootstrap_variable() {
        assert!(Toolchain::Debian.needs_bootstrap());
        assert!(!Toolchain::Nightly.needs_bootstrap());
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(major_after("release: 1.95.0\nLLVM version: 22.1.2\n", "LLVM version: "), Some(22));
        assert_eq!(major_after("libLLVM.so.22.1 => /usr/lib/x\n", "libLLVM.so."), Some(22));
        assert_eq!(major_after("libc.so.6 => /lib/x\n", "libLLVM.so."), None);
    }
}
