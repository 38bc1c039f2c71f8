//! The plan of an installation: a pure function of the machine's state.

use std::fmt;

use crate::machine::{LINKER_LLVM, LINKER_VERSION, Machine, llvm_packages};
use crate::toolchain::{DEBIAN, Installed, Toolchain, choose};

/// A step of setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Adds the sources of `core` to rustup's nightly.
    Nightly {
        /// There is no nightly yet.
        install: bool,
    },
    /// Fetches apt's lists.
    PackageLists,
    /// Installs Debian packages.
    Packages(Vec<Package>),
    /// Makes Debian's toolchain known to rustup.
    LinkDebian,
    /// Builds bpf-linker with this LLVM.
    Linker {
        /// Major version.
        llvm: u32,
    },
}

/// A Debian package and its purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its purpose.
    pub(crate) why: &'static str,
}

impl Step {
    /// Whether it needs root.
    pub(crate) fn needs_root(&self) -> bool {
        matches!(self, Self::PackageLists | Self::Packages(_))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nightly { install: false } => {
                f.write_str("rust-src for nightly: the kernel object needs a `core` of its own")
            }
            Self::Nightly { install: true } => {
                f.write_str("a nightly toolchain with rust-src: the kernel object needs a `core` of its own")
            }
            Self::PackageLists => f.write_str("package lists: apt does not know all that is needed"),
            Self::Packages(packages) => {
                let texts: Vec<String> = packages.iter().map(|p| format!("{} ({})", p.name, p.why)).collect();
                write!(f, "packages: {}", texts.join(", "))
            }
            Self::LinkDebian => write!(f, "toolchain link `{DEBIAN}`: lets rustup run Debian's compiler"),
            Self::Linker { llvm } => {
                write!(f, "bpf-linker {LINKER_VERSION} with LLVM {llvm}: links the kernel object")
            }
        }
    }
}

/// The missing steps, in order; empty if everything is installed. Made anew after each step, since a failed step may
/// have an alternative: if rustup cannot download, Debian's packages are used.
///
/// # Errors
/// The reason why this machine cannot build the kernel object.
pub(crate) fn plan(machine: &Machine) -> Result<Vec<Step>, String> {
    let have = machine.installed;
    // A linker whose LLVM is older than every compiler's is built again, if that helps.
    let outdated = choose(&have).is_none() && have.linker.is_some() && machine.llvm_offered > have.linker;
    let build_linker = !machine.linker || outdated;
    let linker = if build_linker { machine.llvm_offered } else { have.linker };

    let mut first = Vec::new();
    let mut packages = Vec::new();
    let mut last = Vec::new();
    let toolchain = choose(&Installed { linker, ..have });
    if toolchain.is_none() && have.nightly.is_none() && !machine.rustup_tried {
        first.push(Step::Nightly { install: !machine.nightly });
    } else if toolchain != Some(Toolchain::Nightly) {
        if !machine.debian_packages {
            packages.push(package("rustc-web", "a compiler that can build `core` for the kernel object"));
            packages.push(package("cargo-web", "its cargo"));
            packages.push(package("rust-web-src", "the sources of `core`"));
        }
        if !machine.debian_packages || !machine.debian_clippy {
            packages.push(package("rust-web-clippy", "lints for the kernel object"));
        }
        if have.debian.is_none() {
            last.push(Step::LinkDebian);
        } else if toolchain.is_none() {
            return Err(format!(
                "Debian's compiler has LLVM {}, and there is no newer one for bpf-linker",
                have.debian.unwrap_or_default()
            ));
        }
    }
    packages.extend(machine.missing.iter().map(|tool| package(tool.package, tool.why)));
    if build_linker {
        if let Some(llvm) = machine.llvm_offered {
            if !machine.llvm_installed {
                let names = llvm_packages(llvm);
                packages.extend(names.iter().map(|name| package(name, "bpf-linker is built with it")));
            }
            last.push(Step::Linker { llvm });
        } else if machine.lists_fetched {
            let names = LINKER_LLVM.map(|llvm| format!("llvm-{llvm}-dev")).join(", ");
            return Err(format!("bpf-linker {LINKER_VERSION} needs one of {names}, and apt offers none"));
        }
        if !machine.cxx {
            packages.push(package("g++", "bpf-linker is linked with it"));
        }
    }
    let needs_apt = !packages.is_empty() || build_linker;
    if needs_apt && machine.lists_incomplete && !machine.lists_fetched {
        first.push(Step::PackageLists);
    }
    let packages = (!packages.is_empty()).then_some(Step::Packages(packages));
    Ok(first.into_iter().chain(packages).chain(last).collect())
}

fn package(name: &str, why: &'static str) -> Package {
    Package { name: name.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::TOOLS;

    /// A fresh Debian 12 with rustup: a nightly without sources, nothing else.
    fn fresh() -> Machine {
        Machine {
            nightly: true,
            llvm_offered: Some(22),
            cxx: true,
            missing: TOOLS.to_vec(),
            ..Machine::default()
        }
    }

    fn complete() -> Machine {
        Machine {
            installed: Installed { nightly: Some(22), debian: None, linker: Some(22) },
            nightly: true,
            linker: true,
            cxx: true,
            ..Machine::default()
        }
    }

    fn packages(steps: &[Step]) -> Vec<&str> {
        let all = steps.iter().filter_map(|s| if let Step::Packages(p) = s { Some(p) } else { None });
        all.flatten().map(|p| p.name.as_str()).collect()
    }

    #[test]
    fn nothing_to_do_where_everything_is_there() {
        assert_eq!(plan(&complete()), Ok(vec![]));
        let debian = Installed { nightly: None, debian: Some(22), linker: Some(22) };
        let machine = Machine { installed: debian, debian_packages: true, debian_clippy: true, ..complete() };
        assert_eq!(plan(&machine), Ok(vec![]));
    }

    #[test]
    fn rustup_is_tried_first() {
        let steps = plan(&fresh()).unwrap();
        assert_eq!(steps[0], Step::Nightly { install: false });
        assert!(!packages(&steps).contains(&"rustc-web"));
        assert_eq!(steps.last(), Some(&Step::Linker { llvm: 22 }));
        let steps = plan(&Machine { nightly: false, ..fresh() }).unwrap();
        assert_eq!(steps[0], Step::Nightly { install: true });
    }

    #[test]
    fn after_rustup_worked_debian_is_not_needed() {
        let installed = Installed { nightly: Some(22), ..Installed::default() };
        let steps = plan(&Machine { installed, ..fresh() }).unwrap();
        let tools =
            ["iproute2", "bpftool", "nftables", "iptables", "iperf3", "kubernetes-client", "prometheus"];
        assert_eq!(packages(&steps), [&tools[..], &["llvm-22-dev", "libpolly-22-dev"]].concat());
        assert_eq!(steps.last(), Some(&Step::Linker { llvm: 22 }));
        assert!(!steps.contains(&Step::LinkDebian));
    }

    #[test]
    fn without_downloads_debian_is_used() {
        let steps = plan(&Machine { rustup_tried: true, ..fresh() }).unwrap();
        let compiler = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"];
        assert_eq!(packages(&steps)[..4], compiler);
        assert_eq!(steps[1..], [Step::LinkDebian, Step::Linker { llvm: 22 }]);
    }

    #[test]
    fn a_nightly_too_new_for_every_llvm_gives_way_to_debian() {
        let installed = Installed { nightly: Some(24), ..Installed::default() };
        let steps = plan(&Machine { installed, ..fresh() }).unwrap();
        assert!(packages(&steps).contains(&"rustc-web"));
        assert!(steps.contains(&Step::LinkDebian));
    }

    #[test]
    fn an_outdated_linker_is_built_again() {
        let installed = Installed { nightly: Some(22), debian: None, linker: Some(21) };
        let machine = Machine { installed, llvm_offered: Some(22), ..complete() };
        let steps = plan(&machine).unwrap();
        assert_eq!(packages(&steps), ["llvm-22-dev", "libpolly-22-dev"]);
        assert_eq!(steps.last(), Some(&Step::Linker { llvm: 22 }));
    }

    #[test]
    fn packages_that_are_there_are_not_asked_for_again() {
        let installed = Installed { nightly: Some(22), ..Installed::default() };
        let machine = Machine { installed, llvm_installed: true, missing: Vec::new(), ..fresh() };
        assert_eq!(plan(&machine), Ok(vec![Step::Linker { llvm: 22 }]));
    }

    #[test]
    fn lists_are_fetched_only_when_they_lack_something() {
        let stale = Machine { rustup_tried: true, llvm_offered: None, lists_incomplete: true, ..fresh() };
        assert_eq!(plan(&stale).unwrap()[0], Step::PackageLists);
        assert!(plan(&Machine { lists_fetched: true, ..stale }).unwrap_err().contains("llvm-22-dev"));
        assert!(!plan(&fresh()).unwrap().contains(&Step::PackageLists));
        let unneeded = Machine { lists_incomplete: true, ..complete() };
        assert_eq!(plan(&unneeded), Ok(vec![]));
    }

    #[test]
    fn a_plan_never_repeats_itself() {
        let mut machine = Machine { rustup_tried: true, ..fresh() };
        machine.missing.clear();
        machine.debian_packages = true;
        machine.debian_clippy = true;
        machine.installed.debian = Some(22);
        machine.installed.linker = Some(22);
        machine.linker = true;
        assert_eq!(plan(&machine), Ok(vec![]));
    }
}
