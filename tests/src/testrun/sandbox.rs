//! Where the object is loaded: a network namespace and a bpffs of its own.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};

use crate::process;
use crate::topology::{Mounts, PREFIX, reap};

/// The calling thread is in the namespace until this is dropped.
pub struct Sandbox {
    pins: PathBuf,
    // In this order: the maps' folder goes when nothing is loaded any more.
    netns: OwnNetns,
    _mounts: Mounts,
}

impl Sandbox {
    /// Makes it and enters. Leftovers of dead processes are removed first.
    pub fn enter(name: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        reap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut mounts = Mounts::new(&format!("{PREFIX}{}-{number}-run-{name}", std::process::id()))?;
        let pins = mounts.bpffs()?.join("lbr");
        Ok(Self { pins, netns: OwnNetns::enter()?, _mounts: mounts })
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

    /// Removes a link.
    pub fn remove(&self, name: &str) -> Result<()> {
        process::run(Command::new("ip").args(["link", "del", name])).map(drop)
    }
}

/// A network namespace without a name, entered by this thread; dropping it goes back to the old one.
struct OwnNetns {
    old: File,
    /// Another one, for the pods' sides of veths.
    peers: File,
}

impl OwnNetns {
    fn enter() -> Result<Self> {
        const CURRENT: &str = "/proc/thread-self/ns/net";
        let old = File::open(CURRENT).context("open this thread's network namespace")?;
        let own = || unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (needs root)");
        own()?;
        // From here on, dropping it leads back.
        let mut netns = Self { peers: old.try_clone()?, old };
        netns.peers = File::open(CURRENT).context("open the namespace of the pods")?;
        own()?;
        Ok(netns)
    }
}

impl Drop for OwnNetns {
    fn drop(&mut self) {
        // A thread that can not go back stays where it harms nobody.
        let _ = setns(&self.old, CloneFlags::CLONE_NEWNET);
    }
}
