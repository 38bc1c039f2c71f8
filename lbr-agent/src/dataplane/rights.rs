//! The capabilities that loading programs needs (capabilities(7)), checked before anything is touched: the kernel
//! itself only reports "operation not permitted".

use std::io;

use anyhow::bail;

/// A needed capability, and its number.
struct Right {
    name: &'static str,
    bit: u32,
    /// Whether `CAP_SYS_ADMIN` includes it.
    in_sys_admin: bool,
    why: &'static str,
}

const SYS_ADMIN: u32 = 21;

const NEEDED: [Right; 3] = [
    Right { name: "CAP_NET_ADMIN", bit: 12, in_sys_admin: false, why: "programs of networking" },
    // Without it the verifier refuses a pointer to one of two fields that a branch chose, and slows each program down
    // by measures against speculation.
    Right {
        name: "CAP_PERFMON",
        bit: 38,
        in_sys_admin: true,
        why: "what the verifier asks of the pods' programs",
    },
    Right { name: "CAP_BPF", bit: 39, in_sys_admin: true, why: "maps and programs" },
];

/// Fails if a capability is missing, and says what to do.
pub(super) fn check() -> anyhow::Result<()> {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    // An unreadable status leaves the check to the kernel.
    let Some(held) = effective(&status) else { return Ok(()) };
    let missing = missing(held);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|right| right.name).collect();
    let reasons: Vec<String> =
        missing.iter().map(|right| format!("{} for {}", right.name, right.why)).collect();
    let short: Vec<&str> = names.iter().map(|name| name.trim_start_matches("CAP_")).collect();
    bail!(
        "this process lacks {} ({}): run it as root, or add {} to securityContext.capabilities.add of the container",
        names.join(" and "),
        reasons.join(", "),
        short.join(", ")
    )
}

/// Names another possible reason if the kernel refuses although the capabilities are there.
pub(super) fn hint(error: anyhow::Error) -> anyhow::Error {
    let refused = error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        io.is_some_and(|io| io.raw_os_error() == Some(libc::EPERM))
    });
    if !refused {
        return error;
    }
    error.context(
        "the capabilities are there, but the kernel refuses: does a seccomp profile forbid bpf(2)? \
         (RuntimeDefault allows it with CAP_BPF from containerd 1.6.9 and Docker 23 on)",
    )
}

/// The effective capabilities in `/proc/PID/status`.
fn effective(status: &str) -> Option<u64> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

fn missing(held: u64) -> Vec<&'static Right> {
    let has = |bit: u32| held >> bit & 1 == 1;
    let granted = |right: &Right| has(right.bit) || right.in_sys_admin && has(SYS_ADMIN);
    NEEDED.iter().filter(|right| !granted(right)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(status: &str) -> Vec<&'static str> {
        missing(effective(status).unwrap()).iter().map(|right| right.name).collect()
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(names("Name:\tlbr\nCapEff:\t000000c000001000\n"), [""; 0]);
        assert_eq!(names("CapEff:\t0000004000001000\n"), ["CAP_BPF"]);
        assert_eq!(names("CapEff:\t0000008000001000\n"), ["CAP_PERFMON"]);
        assert_eq!(names("CapEff:\t0000000000000000\n"), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        // Before Linux 5.8, CAP_SYS_ADMIN included them all; it still does.
        assert_eq!(names("CapEff:\t0000000000201000\n"), [""; 0]);
        assert_eq!(effective("Name:\tlbr\n"), None);
    }

    #[test]
    fn seccomp_is_mentioned_only_where_the_kernel_refuses() {
        let refused = anyhow::Error::from(io::Error::from_raw_os_error(libc::EPERM)).context("load");
        assert!(hint(refused).to_string().contains("seccomp"));
        let full = anyhow::Error::from(io::Error::from_raw_os_error(libc::ENOSPC)).context("load");
        assert_eq!(hint(full).to_string(), "load");
    }
}
