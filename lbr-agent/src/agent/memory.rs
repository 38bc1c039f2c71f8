//! Memory that a list leaves behind.

/// Gives free memory back to the kernel. Reading a list and compiling it take much memory for a short time, in pieces between
/// those that stay, and glibc by itself gives back only what is free at the end of its heaps.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer, and any thread may make it at any time.
    let _ = unsafe { libc::malloc_trim(0) };
}
