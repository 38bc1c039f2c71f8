//! The folder on bpffs where maps and links are pinned, so that they outlive the agent.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::bpffs;
use super::owner::{self, Owner};

/// Where a cluster's bpffs is.
pub const DEFAULT: &str = "/sys/fs/bpf/lbr";

/// Folder of the pinned links, in the pin folder.
pub(super) const ATTACHED: &str = "attached";

/// A pin folder that this process may write.
#[derive(Debug)]
pub(super) struct Pins {
    dir: PathBuf,
    /// Content of the folder at start, until [`Self::keep`]: all else is removed again if the start fails.
    before: Option<BTreeSet<OsString>>,
    owner: Option<Owner>,
}

impl Pins {
    /// Makes the folder (0700) and locks it.
    pub(super) fn create(dir: &Path) -> anyhow::Result<Self> {
        bpffs::check(dir)?;
        let parent = dir.parent().filter(|parent| !bpffs::is_bpffs(parent));
        parent.map_or(Ok(()), mount)?;
        let is_new = !dir.exists();
        make_private(dir)?;
        let owner = Some(Owner::take(dir)?);
        let before = if is_new { BTreeSet::new() } else { names(dir)? };
        make_private(&dir.join(ATTACHED))?;
        Ok(Self { dir: dir.to_owned(), before: Some(before), owner })
    }

    /// The start succeeded: the pins stay.
    pub(super) fn keep(&mut self) {
        self.before = None;
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where a link is pinned.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.dir.join(ATTACHED).join(name)
    }

    /// Names of the pinned links.
    pub(super) fn links(&self) -> anyhow::Result<Vec<String>> {
        let folder = self.dir.join(ATTACHED);
        let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// Removes the pin of a link, if there is one.
    pub(super) fn remove_link(&self, name: &str) -> std::io::Result<()> {
        match fs::remove_file(self.link(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a pin readable for root only.
    pub(super) fn protect(path: &Path) -> std::io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    }
}

impl Drop for Pins {
    /// A failed start leaves the folder as it found it.
    fn drop(&mut self) {
        let Some(before) = self.before.take() else { return };
        let now = names(&self.dir).unwrap_or_default();
        for name in now.difference(&before).filter(|name| *name != owner::NAME) {
            let path = self.dir.join(name);
            let _ = if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        }
        // The owner removes its own file and frees the lock.
        self.owner = None;
        if before.is_empty() {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// Names of a folder's entries.
fn names(dir: &Path) -> anyhow::Result<BTreeSet<OsString>> {
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    match builder.mode(0o700).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let mode = fs::metadata(dir)?.mode();
            if mode & 0o077 != 0 {
                fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            }
            Ok(())
        }
        other => other.with_context(|| format!("make the pin folder {}", dir.display())),
    }
}

/// Mounts bpffs at its usual place, the only one that [`bpffs::check`] lets pass without a mount. Anywhere else a missing
/// mount is more likely a typo.
fn mount(parent: &Path) -> anyhow::Result<()> {
    nix::mount::mount(
        Some("bpf"),
        parent,
        Some("bpf"),
        nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV | nix::mount::MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .with_context(|| {
        format!(
            "{0} is not a BPF filesystem, and mounting one failed: on the node, run `mount -t bpf bpf {0}`",
            parent.display()
        )
    })
}
