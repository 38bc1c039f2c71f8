//! The place of a loaded object: a network namespace and a bpffs of its own.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process;
use crate::topology::{Mounts, PREFIX, reap};

/// The namespace of the calling thread's network.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// Keeps the calling thread in the namespace until it is dropped, or until the thread leaves.
pub struct Sandbox {
    pins: PathBuf,
    // In this order: the maps' folder is removed after everything is unloaded.
    netns: OwnNetns,
    mounts: Mounts,
}

impl Sandbox {
    /// Makes a sandbox and enters it. Leftovers of dead processes are removed first.
    pub fn enter(name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        reap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut mounts = Mounts::new(&format!("{PREFIX}{}-{number}-run-{name}", std::process::id()))?;
        let pins = mounts.bpffs()?.join("lbr");
        Ok(Self { pins, netns: OwnNetns::enter()?, mounts })
    }

    /// Makes a cgroup and moves the calling thread into it. Returns its folder.
    pub(super) fn enter_cgroup(&mut self) -> Result<PathBuf> {
        let cgroup = self.mounts.cgroup()?;
        cgroup.enter_thread()?;
        Ok(cgroup.path().to_owned())
    }

    /// A folder for pins, which does not exist yet.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Makes a veth whose other side is in another namespace, with this interface index or the next free one.
    pub fn veth(&self, name: &str, index: Option<u32>) -> Result<u32> {
        let mut command = Command::new("ip");
        command.args(["link", "add", name]);
        if let Some(index) = index {
            command.args(["index", &index.to_string()]);
        }
        let peers = format!("/proc/{}/fd/{}", std::process::id(), self.netns.peers.as_raw_fd());
        process::run(command.args(["type", "veth", "peer", "name", name, "netns", &peers]))?;
        nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface {name}"))
    }

    /// Moves the calling thread back to its former namespace. Everything in the sandbox stays.
    pub(super) fn leave(&mut self) {
        self.netns.leave();
    }

    /// Moves the calling thread, which may be another one, into the namespace again after [`Self::leave`].
    pub(super) fn enter_again(&mut self) -> Result<()> {
        self.netns.old = Some(File::open(CURRENT).context("open this thread's network namespace")?);
        setns(&self.netns.own, CloneFlags::CLONE_NEWNET).context("enter the network namespace")
    }

    /// Removes a link.
    pub fn remove(&self, name: &str) -> Result<()> {
        process::run(Command::new("ip").args(["link", "del", name])).map(drop)
    }
}

/// A network namespace without a name, entered by this thread; dropping it returns to the old one.
struct OwnNetns {
    /// The thread's former namespace; `None`: it is not in this one.
    old: Option<File>,
    own: File,
    /// Another one, for the pods' sides of veths.
    peers: File,
}

impl OwnNetns {
    fn enter() -> Result<Self> {
        let current = || File::open(CURRENT).context("open this thread's network namespace");
        let make = || unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (needs root)");
        let old = current()?;
        make()?;
        // From here on, dropping it returns to the old namespace.
        let mut netns = Self { own: old.try_clone()?, peers: old.try_clone()?, old: Some(old) };
        netns.peers = current()?;
        make()?;
        netns.own = current()?;
        Ok(netns)
    }

    fn leave(&mut self) {
        if let Some(old) = self.old.take() {
            // A thread that cannot go back stays where it does no harm.
            let _ = setns(&old, CloneFlags::CLONE_NEWNET);
        }
    }
}

impl Drop for OwnNetns {
    fn drop(&mut self) {
        self.leave();
    }
}
