//! Which Rust toolchain builds the kernel object. Shared with the build script of `lbr-agent`.
//!
//! `core` has to be built for `bpfel-unknown-none`: by a nightly that has its sources (`rust-src`), or, where
//! rustup can download nothing, by Debian's `rustc-web` with `RUSTC_BOOTSTRAP=1`.

use std::path::Path;
use std::process::Command;

/// Name under which Debian's toolchain is linked: `rustup toolchain link debian /usr`.
pub const DEBIAN: &str = "debian";

/// What is on this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Installed {
    /// A nightly toolchain with `rust-src`.
    pub nightly_with_source: bool,
    /// Debian's toolchain, linked, with `rust-web-src`.
    pub debian_with_source: bool,
}

/// A toolchain that can build the kernel object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// rustup's nightly.
    Nightly,
    /// Debian's stable compiler.
    Debian,
}

impl Toolchain {
    /// Its name for `rustup run`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Debian => DEBIAN,
        }
    }

    /// Whether unstable flags must be unlocked by `RUSTC_BOOTSTRAP=1`.
    pub fn needs_bootstrap(self) -> bool {
        self == Self::Debian
    }
}

/// Nightly where it is complete, else Debian's, else none.
pub fn choose(installed: &Installed) -> Option<Toolchain> {
    if installed.nightly_with_source {
        Some(Toolchain::Nightly)
    } else if installed.debian_with_source {
        Some(Toolchain::Debian)
    } else {
        None
    }
}

impl Installed {
    /// Looks at this machine.
    pub fn detect() -> Self {
        Self { nightly_with_source: has_source("nightly"), debian_with_source: has_source(DEBIAN) }
    }
}

/// Whether rustup knows this toolchain and it has the sources of `core`.
fn has_source(toolchain: &str) -> bool {
    let output = Command::new("rustup").args(["run", toolchain, "rustc", "--print", "sysroot"]).output();
    let Ok(output) = output else { return false };
    if !output.status.success() {
        return false;
    }
    let sysroot = String::from_utf8_lossy(&output.stdout);
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}
