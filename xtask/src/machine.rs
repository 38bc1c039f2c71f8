//! The state of this machine, compared with lbr's needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run;
use crate::toolchain::Installed;

/// A program that tests, demo and benchmark run, or that a build needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tool {
    /// Name of the program.
    pub(crate) program: &'static str,
    /// Debian package that has it.
    pub(crate) package: &'static str,
    /// Its purpose.
    pub(crate) why: &'static str,
}

/// The programs that every task needs, besides the toolchain.
pub(crate) const TOOLS: [Tool; 7] = [
    Tool { program: "ip", package: "iproute2", why: "network namespaces for tests and demo" },
    Tool { program: "bpftool", package: "bpftool", why: "tests that people can read the maps" },
    Tool {
        program: "nft",
        package: "nftables",
        why: "the benchmark compares with nftables rules, and nodes of tests masquerade by them",
    },
    Tool {
        program: "iptables-nft-restore",
        package: "iptables",
        why: "tests remove rules of kube-proxy's shape",
    },
    Tool { program: "iperf3", package: "iperf3", why: "throughput in tests and benchmark" },
    Tool {
        program: "kubectl",
        package: "kubernetes-client",
        why: "tests and demo speak to an API server as people do",
    },
    Tool {
        program: "promtool",
        package: "prometheus",
        why: "a test that Prometheus understands the metrics",
    },
];

/// The LLVM versions that bpf-linker 0.13 can be built with.
pub(crate) const LINKER_LLVM: [u32; 3] = [23, 22, 21];

/// Versions of bpf-linker that build this kernel object.
pub(crate) const LINKER_VERSION: &str = "0.13";

/// The facts for [`crate::plan::plan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The toolchains and the linker.
    pub(crate) installed: Installed,
    /// rustup has a nightly, complete or not.
    pub(crate) nightly: bool,
    /// rustup was asked for a nightly with its sources in this run; if there is still none, it cannot download.
    pub(crate) rustup_tried: bool,
    /// Debian's compiler and the sources of its `core` are installed, linked or not.
    pub(crate) debian_packages: bool,
    /// Debian's clippy is installed.
    pub(crate) debian_clippy: bool,
    /// There is a bpf-linker of the right version.
    pub(crate) linker: bool,
    /// The newest LLVM that apt offers and bpf-linker can use. Only looked up if it matters.
    pub(crate) llvm_offered: Option<u32>,
    /// The packages of that LLVM that bpf-linker's build needs are installed.
    pub(crate) llvm_installed: bool,
    /// This run has fetched apt's lists.
    pub(crate) lists_fetched: bool,
    /// apt's lists lack a package that may be needed.
    pub(crate) lists_incomplete: bool,
    /// There is a C++ compiler.
    pub(crate) cxx: bool,
    /// Missing programs.
    pub(crate) missing: Vec<Tool>,
}

impl Machine {
    /// Detects the state. Takes well under a second if everything is installed. `more`: programs that this task
    /// needs, besides those of every task.
    pub(crate) fn detect(more: &[Tool]) -> Self {
        let installed = Installed::detect();
        let tools = TOOLS.iter().chain(more).copied();
        let missing: Vec<Tool> = tools.filter(|tool| run::find_program(tool.program).is_none()).collect();
        let linker = linker_version().is_some_and(|version| is_right(&version));
        let mut machine = Self {
            installed,
            nightly: run::succeeds(Command::new("rustup").args(["run", "nightly", "rustc", "-V"])),
            debian_packages: has_debian_toolchain(),
            debian_clippy: Path::new("/usr/bin/cargo-clippy").exists(),
            linker,
            cxx: run::find_program("c++").is_some(),
            missing,
            ..Self::default()
        };
        let complete = machine.missing.is_empty() && linker && crate::toolchain::choose(&installed).is_some();
        if !complete {
            machine.ask_apt();
        }
        machine
    }

    /// Looks up the packages that apt offers.
    fn ask_apt(&mut self) {
        let offered = |package: &str| run::succeeds(Command::new("apt-cache").args(["show", package]));
        self.llvm_offered = LINKER_LLVM.into_iter().find(|llvm| offered(&format!("llvm-{llvm}-dev")));
        self.llvm_installed = self.llvm_offered.is_some_and(|llvm| {
            let installed = |package: &String| run::succeeds(Command::new("dpkg").args(["-s", package]));
            llvm_packages(llvm).iter().all(installed)
        });
        let tools_known = self.missing.iter().all(|tool| offered(tool.package));
        self.lists_incomplete = self.llvm_offered.is_none() || !tools_known || !offered("rust-web-src");
    }
}

/// Whether packages can be installed with apt.
pub(crate) fn has_apt() -> bool {
    run::find_program("apt-get").is_some()
}

/// The packages that bpf-linker's build needs.
pub(crate) fn llvm_packages(llvm: u32) -> [String; 2] {
    [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]
}

/// The folder of this LLVM in Debian.
pub(crate) fn llvm_prefix(llvm: u32) -> PathBuf {
    format!("/usr/lib/llvm-{llvm}").into()
}

fn has_debian_toolchain() -> bool {
    let source = "/usr/lib/rustlib/src/rust/library/core/src/lib.rs";
    ["/usr/bin/rustc", "/usr/bin/cargo", source].iter().all(|file| Path::new(file).exists())
}

fn linker_version() -> Option<String> {
    let output = Command::new("bpf-linker").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// Whether the output of `bpf-linker --version` is a version that is known to work.
fn is_right(version: &str) -> bool {
    let number = version.split_whitespace().last().unwrap_or_default();
    number.strip_prefix(LINKER_VERSION).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linker_versions() {
        assert!(is_right("bpf-linker 0.13.0"));
        assert!(is_right("bpf-linker 0.13.7"));
        assert!(!is_right("bpf-linker 0.1.3"));
        assert!(!is_right("bpf-linker 0.130.0"));
        assert!(!is_right(""));
    }
}
