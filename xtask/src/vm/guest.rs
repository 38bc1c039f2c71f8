//! One boot for one suite: builds the guest, runs it, and reports the result.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::binaries::Binaries;
use super::fetch::{self, Kernel};
use super::report::{self, Console, Row};
use super::suite::Suite;
use super::{Args, initramfs, qemu};
use crate::say;

/// Last lines of a console that are shown if its suite failed.
const LAST_LINES: usize = 30;
/// Prefix of the folders of single guests; the process id follows.
const OWN: &str = "run-";

/// Boots a kernel for one suite. `own`: the folder of virtual machines, the archive of the tools, and a number that
/// is unique among the guests of this run.
pub(super) fn run<'a>(
    args: &Args,
    kernel: &'a Kernel,
    suite: &'a Suite,
    binaries: &Binaries,
    own: (&Path, &Path, usize),
) -> Result<Ended<'a>> {
    let (folder, base, number) = own;
    let release = &kernel.release;
    let label = format!("{release} {}", suite.name());
    let own = qemu::folder(&folder.join(format!("{OWN}{}-{number}", std::process::id())))?;
    let programs = binaries.of(suite, args.arch, &own)?;
    let initramfs = own.join("initramfs");
    let run = initramfs::Run { suite, release, binaries: &programs, root: &binaries.root };
    initramfs::write(&initramfs, [base, &kernel.modules], &run)?;
    let log = qemu::folder(&folder.join("logs"))?.join(format!("{release}.{}.log", suite.name()));
    let guest = qemu::Guest {
        label,
        arch: args.arch,
        image: kernel.image.clone(),
        initramfs,
        memory: args.memory,
        cpus: args.cpus,
        log: log.clone(),
        niced: args.niced,
        limit: Duration::from_secs(args.minutes * 60),
    };
    let outcome = guest.run();
    fetch::remove(&own)?;
    Ok(Ended { release, suite, outcome: outcome?, log, minutes: args.minutes })
}

/// A guest that has ended.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    release: &'a str,
    suite: &'a Suite,
    outcome: qemu::Outcome,
    log: PathBuf,
    minutes: u64,
}

impl Ended<'_> {
    /// Prints the result of its suite: its own report, and after a failure the end of its console.
    pub(super) fn tell(&self) -> Row {
        let console = Console::read(&self.outcome.text);
        let failed = console.sum.failed > 0;
        if failed {
            for line in report::last_lines(&self.outcome.text, LAST_LINES) {
                say::line(&format!("  | {line}"));
            }
            if self.outcome.cut_off {
                say::line(&format!("  ended after {} minutes (--minutes)", self.minutes));
            } else if console.ended.is_none() {
                say::line("  the guest ended before its suite did");
            }
            say::line(&format!("  its console: {}", self.log.display()));
        } else if *self.suite == Suite::Verifier {
            for line in report::of_suite(&self.outcome.text) {
                say::line(&format!("  {line}"));
            }
        }
        for text in console.said.iter().chain(&self.suite.left_out(self.release)) {
            say::line(&format!("  {text}"));
        }
        let row = Row {
            release: self.release.to_owned(),
            suite: self.suite.name().to_owned(),
            sum: console.sum,
            booted: console.booted,
            took: self.outcome.took,
        };
        let mark = if failed { say::red("FAILED") } else { say::green("ok") };
        let (name, sum) = (format!("{} {}", row.release, row.suite), &row.sum);
        say::line(&format!("vm: {name:<36} {mark}  {sum}  ({:.1} s)", row.took.as_secs_f64()));
        row
    }
}

/// Removes the folders of guests of an interrupted run.
pub(super) fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(OWN).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            fetch::remove(&entry.path())?;
        }
    }
    Ok(())
}
