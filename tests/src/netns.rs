//! One network namespace, by its name under `/run/netns`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::process::{self, Proc};

/// The folder where `ip netns` keeps its names.
pub const FOLDER: &str = "/run/netns";

/// A network namespace. A plain name: its creator removes it with [`Self::delete`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace with its loopback up and without duplicate address detection, which would keep new
    /// IPv6 addresses unusable for a second.
    pub fn create(name: &str) -> Result<Self> {
        process::run(Command::new("ip").args(["netns", "add", name]))?;
        let ns = Self { name: name.to_owned() };
        ns.run(|| {
            for scope in ["all", "default"] {
                sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
                sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "0")?;
                sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
                sysctl(&format!("ipv6/conf/{scope}/router_solicitations"), "0")?;
            }
            // Lets `Client::ping` use the kernel's own echo sockets (icmp(7)).
            sysctl("ipv4/ping_group_range", "0 2147483647")
        })?;
        ns.ip(["link set lo up"])?;
        Ok(ns)
    }

    /// Removes the name; the kernel removes the rest when the last process has left.
    pub fn delete(&self) -> Result<()> {
        process::run(Command::new("ip").args(["netns", "del", &self.name])).map(drop)
    }

    /// Name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file of the namespace.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs `f` on a thread of its own inside the namespace, and returns its result. Sockets made there stay in the
    /// namespace wherever they are used later.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let thread = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    f()
                })
                .join()
        });
        thread.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a thread inside the namespace, which keeps the namespace alive until it ends.
    pub fn spawn_thread<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let ns = self.clone();
        std::thread::spawn(move || {
            ns.enter()?;
            f()
        })
    }

    /// Moves the calling thread into the namespace, for the rest of its life.
    pub fn enter(&self) -> Result<()> {
        let file = self.open()?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("enter namespace {}", self.name))
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        self.place(&mut command)?;
        Ok(command)
    }

    /// Starts a command inside the namespace.
    pub fn spawn_in(&self, mut command: Command) -> Result<Proc> {
        self.place(&mut command)?;
        Proc::spawn(&mut command)
    }

    /// Runs lines of `ip -batch` in one process.
    pub fn ip<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) -> Result<()> {
        batch(self.command("ip")?, lines).with_context(|| format!("namespace {}", self.name))
    }

    /// Interface index of a link.
    pub fn ifindex(&self, link: &str) -> Result<u32> {
        self.run(|| nix::net::if_::if_nametoindex(link).with_context(|| format!("no interface {link}")))
    }

    fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("open namespace {}", self.name))
    }

    fn place(&self, command: &mut Command) -> Result<()> {
        let file = self.open()?;
        // SAFETY: between fork and exec only the system call setns runs, on a descriptor that the closure
        // keeps open: no allocation, no lock.
        unsafe {
            command.pre_exec(move || match libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        Ok(())
    }
}

/// Runs lines of `ip -batch` in one process, in the calling thread's namespace.
pub fn ip<L: AsRef<str>>(lines: impl IntoIterator<Item = L>) -> Result<()> {
    batch(Command::new("ip"), lines)
}

fn batch<L: AsRef<str>>(mut command: Command, lines: impl IntoIterator<Item = L>) -> Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start `ip` (of iproute2)")?;
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip -batch: {}\nlines were:\n{text}", said.trim_end());
    }
    written.unwrap_or(Ok(())).context("write to `ip`")
}

/// Writes a value under `/proc/sys/net` of the calling thread's namespace.
pub fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(key);
    fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
}
