//! A link argument that only this crate needs.

fn main() {
    // bpf-linker asks LLVM to keep copies in order, and LLVM then also turns every `memset` and `memmove` that
    // is not a power of two into a call of a byte-wise loop: 40 rounds to copy a tuple, in the path of every
    // packet.
    println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    println!("cargo::rerun-if-changed=build.rs");
}
