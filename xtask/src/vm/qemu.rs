//! Runs a guest and reads its console.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::report;
use crate::arch::Arch;
use crate::{run, say};

/// Time for a guest to switch off after its suite.
const SWITCH_OFF: Duration = Duration::from_secs(20);
/// Without a terminal, a running guest is reported this often.
const REMINDER: Duration = Duration::from_secs(60);
/// The kernel's arguments besides its console: exit on panic, quiet, and without protections that only cost time in a
/// guest.
const KERNEL: &str = "panic=-1 quiet loglevel=2 mitigations=off init_on_alloc=0 random.trust_cpu=on";

/// The configuration of a guest.
#[derive(Debug)]
pub(super) struct Guest {
    /// For the status line.
    pub(super) label: String,
    /// Its architecture.
    pub(super) arch: Arch,
    /// The kernel's image.
    pub(super) image: PathBuf,
    /// Its first file system.
    pub(super) initramfs: PathBuf,
    /// In MiB.
    pub(super) memory: u32,
    /// Processors.
    pub(super) cpus: u32,
    /// The file of the console.
    pub(super) log: PathBuf,
    /// Runs with a lower priority.
    pub(super) niced: bool,
    /// Its time limit.
    pub(super) limit: Duration,
}

/// How a guest ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Its console.
    pub(super) text: String,
    /// How long it ran.
    pub(super) took: Duration,
    /// The time limit ended it.
    pub(super) cut_off: bool,
}

impl Guest {
    /// Runs it until it ends, or until its time limit.
    pub(super) fn run(&self) -> Result<Outcome> {
        let start = Instant::now();
        let mut log = File::create(&self.log).with_context(|| format!("write {}", self.log.display()))?;
        let (reader, writer) = std::io::pipe().context("pipe")?;
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn();
        let mut child =
            Ended(child.with_context(|| format!("cannot start {}", self.arch.emulator().program))?);
        // The command holds the writing end of the pipe.
        drop(command);

        let chunks = chunks(reader);
        let (mut text, mut line) = (String::new(), String::new());
        let (mut end, mut mentioned) = (start + self.limit, start);
        let mut cut_off = false;
        say::status(&self.label);
        loop {
            match chunks.recv_timeout(Duration::from_secs(1)) {
                Ok(chunk) => {
                    let new = String::from_utf8_lossy(&chunk).replace('\r', "");
                    let _ = log.write_all(new.as_bytes());
                    for piece in new.split_inclusive('\n') {
                        line.push_str(piece);
                        say::status(&format!("{}: {}", self.label, line.trim_end()));
                        if line.ends_with('\n') {
                            if report::is_end(&line) {
                                end = end.min(Instant::now() + SWITCH_OFF);
                            }
                            text.push_str(&line);
                            line.clear();
                        }
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() > end {
                cut_off = !text.lines().any(report::is_end);
                break;
            }
            if !say::is_terminal() && mentioned.elapsed() > REMINDER {
                mentioned = Instant::now();
                let (seconds, newest) = (start.elapsed().as_secs(), newest(&text, &line));
                say::line(&format!("  {}: still running after {seconds} s; last line: {newest}", self.label));
            }
        }
        text.push_str(&line);
        child.end();
        say::clear();
        Ok(Outcome { text, took: start.elapsed(), cut_off })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("setpriv");
        // A guest must end with this process.
        command.args(["--pdeathsig", "KILL", self.arch.emulator().program]);
        command.args(self.arch.machine(self.arch.accel()));
        command.args(["-m", &self.memory.to_string(), "-smp", &self.cpus.to_string()]);
        command.args(["-no-reboot", "-nodefaults", "-display", "none", "-serial", "stdio"]);
        command.args(["-device", "virtio-rng-pci"]);
        command.arg("-kernel").arg(&self.image).arg("-initrd").arg(&self.initramfs);
        command.args(["-append", &format!("console={} {KERNEL}", self.arch.console())]);
        if self.niced { run::niced(&command) } else { command }
    }
}

/// A child that is killed when this is dropped.
struct Ended(Child);

impl Ended {
    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.end();
    }
}

/// The output of a pipe, as it arrives.
fn chunks(mut reader: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            let chunk = buffer.get(..count).unwrap_or_default().to_vec();
            if sender.send(chunk).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The newest line that is not blank.
fn newest<'a>(text: &'a str, line: &'a str) -> &'a str {
    let last = || text.lines().rev().find(|line| !line.trim().is_empty());
    if line.trim().is_empty() { last().unwrap_or_default() } else { line }
}

/// The folder of a file for guests, made if it does not exist.
pub(super) fn folder(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    Ok(path.to_owned())
}
