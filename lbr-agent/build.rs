//! Builds the kernel object, which the agent carries inside.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=../lbr-ebpf");
    println!("cargo:rerun-if-changed=../lbr-common");
    println!("cargo:rerun-if-changed=../xtask/src/toolchain.rs");
    let chosen = toolchain::choose(&toolchain::Installed::detect());
    let chosen = chosen.context("no toolchain for the kernel object: run `cargo xtask setup`")?;
    // aya-build repeats each line of the inner cargo as a warning: its progress would be a screen of them. Errors stay.
    // SAFETY: the build script has one thread.
    unsafe { std::env::set_var("CARGO_TERM_QUIET", "true") };
    if chosen.needs_bootstrap() {
        // SAFETY: as above.
        unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    let package = aya_build::Package { name: "lbr-ebpf", root_dir: "../lbr-ebpf", ..Default::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(chosen.name()))
}
