//! A cgroup of a bed, for socket programs.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A cgroup below that of this process. It is threaded, so that single threads of a test may enter it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes it in a mount of the hierarchy.
    pub(super) fn create(root: &Path, name: &str) -> Result<Self> {
        let path = own(root)?.join(name);
        fs::create_dir(&path).with_context(|| format!("make cgroup {}", path.display()))?;
        let cgroup = Self { path };
        let kind = cgroup.path.join("cgroup.type");
        if let Err(error) = fs::write(&kind, "threaded") {
            cgroup.remove();
            return Err(error).with_context(|| format!("write to {}", kind.display()));
        }
        Ok(cgroup)
    }

    /// Its folder, as `lbr run --cgroup` takes it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread into it. Sockets that the thread opens from now on belong to the cgroup.
    pub fn enter_thread(&self) -> Result<()> {
        // "0" stands for the writing thread.
        fs::write(self.path.join("cgroup.threads"), "0")
            .with_context(|| format!("enter cgroup {}", self.path.display()))
    }

    /// Makes a command start in it.
    pub fn place(&self, command: &mut Command) -> Result<()> {
        use std::io::Write as _;
        let path = self.path.join("cgroup.threads");
        let file = fs::File::options().write(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        // SAFETY: between fork and exec only the system call write runs, on a descriptor that the closure
        // keeps open: no allocation, no lock.
        unsafe {
            command.pre_exec(move || {
                let mut file: &fs::File = &file;
                file.write_all(b"0").map_err(|e| io::Error::from_raw_os_error(e.raw_os_error().unwrap_or(0)))
            });
        }
        Ok(())
    }

    /// Removes it, after moving its threads out.
    pub(super) fn remove(&self) {
        let Some(parent) = self.path.parent() else { return };
        for _ in 0..50 {
            let threads = fs::read_to_string(self.path.join("cgroup.threads")).unwrap_or_default();
            for thread in threads.lines() {
                let _ = fs::write(parent.join("cgroup.threads"), thread);
            }
            // It is busy for a moment after the last thread has left.
            match fs::remove_dir(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// The cgroup of this process in a mount of the hierarchy.
pub(super) fn own(root: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup2 on this machine")?;
    // The path is relative to this process' cgroup namespace, and so is the mount.
    Ok(root.join(line.trim_start_matches('/')))
}
