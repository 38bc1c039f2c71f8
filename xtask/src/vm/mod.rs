//! `cargo xtask vm`: lbr and its tests on kernels other than this machine's, in QEMU.
//!
//! Kernels are packages of Debian, the guest's programs are this machine's. Each suite has a boot of its own, so that
//! a kernel crash ends only one suite.

mod binaries;
mod cpio;
mod fetch;
mod foreign;
mod guest;
mod initramfs;
mod kernels;
mod mirror;
mod modules;
mod qemu;
mod report;
mod suite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

use self::binaries::Binaries;
use self::fetch::{Kernel, Store};
use self::report::{Row, Table};
use self::suite::Suite;
use crate::arch::Arch;
use crate::check::target_folder;
use crate::machine::Tool;
use crate::summary::Summary;
use crate::{run, say, setup, suites};

/// The kernel that `cargo xtask test` uses besides this machine's: the oldest one that Debian supports.
const OF_TESTS: &str = "6.1";
/// In MiB.
const MEMORY: u32 = 3072;
/// Tests run one after the other, so more processors bring little; with one, programs would never run in parallel.
const CPUS: u32 = 2;

/// Programs that virtual machines need, besides the emulator.
const TOOLS: [Tool; 6] = [
    Tool { program: "busybox", package: "busybox-static", why: "small programs for guests" },
    Tool { program: "depmod", package: "kmod", why: "an index of the guests' kernel modules" },
    Tool { program: "setpriv", package: "util-linux", why: "ends guests together with this program" },
    Tool { program: "strip", package: "binutils", why: "test binaries without debug symbols" },
    Tool { program: "xz", package: "xz-utils", why: "unpacks kernel modules" },
    Tool { program: "zstd", package: "zstd", why: "unpacks kernel modules" },
];

/// Command line arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Versions of Debian's kernels (`6.1`, `6.12`), or whole releases (`6.1.0-56-cloud-amd64`). Default: 6.1, with
    /// the suites `load` and `programs` only
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Architecture of the guests
    #[arg(long, default_value_t = Arch::own())]
    arch: Arch,
    /// Minutes after which a guest's suite counts as failed
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Memory of a guest, in MiB
    #[arg(long, default_value_t = MEMORY)]
    memory: u32,
    /// Processors of a guest
    #[arg(long, default_value_t = CPUS)]
    cpus: u32,
    /// Guests at a time
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Ask the mirror for newer kernels than those already downloaded
    #[arg(long)]
    update: bool,
    /// Debian's mirror, in place of the one in this machine's sources
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Run the binaries in this folder of cargo's (`target/debug`), without building
    #[arg(long, value_name = "FOLDER")]
    binaries: Option<PathBuf>,
    /// Guests leave the processors to other programs
    #[arg(skip)]
    niced: bool,
    /// `load`, `verifier`, or a test binary of tests/tests with words for it. Default: a selection
    #[arg(last = true, value_name = "SUITE [FILTER...]")]
    suite: Vec<String>,
}

impl Args {
    /// The arguments that `cargo xtask test` implies.
    fn of_tests() -> Self {
        Self {
            kernels: Vec::new(),
            arch: Arch::own(),
            // Five to eight on two idle processors; other suites run beside it and go first.
            minutes: 30,
            memory: MEMORY,
            cpus: CPUS,
            // Each of the two suites keeps a processor busy.
            jobs: 2,
            update: false,
            mirror: None,
            binaries: None,
            niced: true,
            suite: Vec::new(),
        }
    }
}

#[cfg(test)]
impl Args {
    /// The kernels, and the suite with its filters.
    pub(crate) fn asked(&self) -> (Vec<&str>, Vec<&str>) {
        (self.kernels.iter().map(String::as_str).collect(), self.suite.iter().map(String::as_str).collect())
    }
}

/// Runs the suites on each kernel. False: some failed, and that has been reported; nothing may follow the summary.
pub(crate) fn run(args: &Args) -> Result<bool> {
    let rows = rows(args)?;
    say::line("");
    say::line(&Table(&rows).to_string());
    let total = sum(rows);
    say::line(&total.to_string());
    Ok(total.failed == 0)
}

/// Runs the suites of `cargo xtask test` on the oldest kernel, and returns the result. Prints a line for each suite,
/// and its failures.
pub(crate) fn of_tests() -> Result<Summary> {
    rows(&Args::of_tests()).map(sum)
}

fn sum(rows: Vec<Row>) -> Summary {
    rows.into_iter().fold(Summary::default(), |mut total, row| {
        total += row.sum;
        total
    })
}

/// Prepares everything for the guests, and runs every suite on every kernel.
fn rows(args: &Args) -> Result<Vec<Row>> {
    let suites = match args.kernels.as_slice() {
        [] if args.suite.is_empty() => Suite::of_tests(),
        _ => Suite::chosen(&args.suite),
    };
    check_names(&suites)?;
    let tools: Vec<Tool> = TOOLS.into_iter().chain(args.arch.tools()).collect();
    setup::run_with(&tools, false)?;
    let binaries = match &args.binaries {
        Some(folder) => Binaries::take(folder, &suites)?,
        None => Binaries::build(&suites, args.arch)?,
    };
    play(args, &suites, &binaries)
}

/// Refuses unknown names of suites.
fn check_names(suites: &[Suite]) -> Result<()> {
    let names = suites::files(&run::root().join("tests/tests"))?;
    for suite in suites {
        if let Suite::Tests { name, .. } = suite
            && !names.contains(name)
        {
            bail!("there is no suite {name}: there are load, verifier, {}", names.join(", "));
        }
    }
    Ok(())
}

/// Runs every suite on every kernel.
fn play(args: &Args, suites: &[Suite], binaries: &Binaries) -> Result<Vec<Row>> {
    let folder = qemu::folder(&target_folder()?.join("vm"))?;
    guest::remove_leftovers(&folder)?;
    let mut store = Store::new(&folder, args.arch, args.mirror.clone(), args.update);
    let base = initramfs::base(&folder, args.arch, &mut store)?;
    let mut kernels = Vec::new();
    let default = [OF_TESTS.to_owned()];
    for wanted in if args.kernels.is_empty() { &default[..] } else { &args.kernels } {
        kernels.push(store.kernel(wanted).with_context(|| format!("kernel {wanted}"))?);
    }
    let runs: Vec<(&Kernel, &Suite)> =
        kernels.iter().flat_map(|kernel| suites.iter().map(move |suite| (kernel, suite))).collect();
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((kernel, suite)) = runs.get(number) else { return };
            let ended = guest::run(args, kernel, suite, binaries, (&folder, &base, number));
            // Held while it prints, so that the lines of a guest stay together.
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.insert(number, ended.map(|ended| ended.tell()));
        }
    };
    std::thread::scope(|scope| (0..args.jobs.max(1)).for_each(|_| drop(scope.spawn(worker))));
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}
