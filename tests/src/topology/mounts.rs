//! File systems of one bed, under a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::Cgroup;

/// A folder under the temporary folder, and the mounts in it.
#[derive(Debug)]
pub(crate) struct Mounts {
    folder: PathBuf,
    bpffs: Option<PathBuf>,
    cgroup: Option<Cgroup>,
}

impl Mounts {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { folder, bpffs: None, cgroup: None })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn bpffs(&mut self) -> Result<PathBuf> {
        if let Some(path) = &self.bpffs {
            return Ok(path.clone());
        }
        let path = self.mount("bpffs", "bpf")?;
        self.bpffs = Some(path.clone());
        Ok(path)
    }

    pub(crate) fn cgroup(&mut self) -> Result<Cgroup> {
        if let Some(cgroup) = &self.cgroup {
            return Ok(cgroup.clone());
        }
        let root = self.mount("cgroup", "cgroup2")?;
        let name = self.folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let cgroup = Cgroup::create(&root, &name)?;
        self.cgroup = Some(cgroup.clone());
        Ok(cgroup)
    }

    fn mount(&self, name: &str, kind: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        mount(Some("none"), &path, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {kind} at {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        remove_folder(&self.folder);
    }
}

/// Unmounts everything that is mounted directly in a bed's folder, and removes the folder. Never enters a filesystem
/// that it could not unmount.
pub(crate) fn remove_folder(folder: &Path) {
    for name in ["bpffs", "cgroup"] {
        let path = folder.join(name);
        if path.exists() {
            let _ = umount2(&path, MntFlags::MNT_DETACH);
            let _ = fs::remove_dir(&path);
        }
    }
    if !["bpffs", "cgroup"].iter().any(|name| folder.join(name).exists()) {
        let _ = fs::remove_dir_all(folder);
    }
}
