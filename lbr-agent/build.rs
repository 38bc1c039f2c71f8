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
    if chosen.needs_bootstrap() {
        // SAFETY: the build script has one thread.
        unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    }
    let package = aya_build::Package { name: "lbr-ebpf", root_dir: "../lbr-ebpf", ..Default::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(chosen.name()))
}
