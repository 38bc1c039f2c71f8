//! One agent for each pin folder.
//!
//! The lock is flock(2) on the folder itself: the kernel frees it when the agent dies, and only processes with access
//! to the folder (0700) can take it. A socket would need a name that others could take first, and a lock file would
//! need a folder that outlives the container. A symbolic link beside the pins names the holder: bpffs has no ordinary
//! files, and a process id means nothing in another container.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Name of the symbolic link; its target is a text for people.
pub(super) const NAME: &str = "owner";

/// How often, and after which time, the lock is tried again: `lbr status` holds it for a moment.
const AGAIN: (u32, Duration) = (5, Duration::from_millis(20));

/// Locks the folder; `None` if an agent holds the lock.
pub(super) fn lock(dir: &Path) -> anyhow::Result<Option<Flock<File>>> {
    for again in 0..=AGAIN.0 {
        if again > 0 {
            std::thread::sleep(AGAIN.1);
        }
        if let Some(lock) = try_lock(dir, FlockArg::LockExclusiveNonblock)? {
            return Ok(Some(lock));
        }
    }
    Ok(None)
}

fn try_lock(dir: &Path, how: FlockArg) -> anyhow::Result<Option<Flock<File>>> {
    let file = File::open(dir).with_context(|| format!("open {}", dir.display()))?;
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("lock {}", dir.display())),
    }
}

/// Whether an agent holds the lock.
pub(super) fn is_held(dir: &Path) -> anyhow::Result<bool> {
    Ok(try_lock(dir, FlockArg::LockSharedNonblock)?.is_none())
}

/// Held for the life of the process.
#[derive(Debug)]
pub(super) struct Owner {
    link: PathBuf,
    _lock: Flock<File>,
}

impl Owner {
    /// Takes the folder, or fails with the name of its owner.
    pub(super) fn take(dir: &Path) -> anyhow::Result<Self> {
        let link = dir.join(NAME);
        let Some(lock) = lock(dir)? else {
            let first = fs::read_link(&link).map(|text| format!(" ({})", text.display()));
            bail!(
                "another lbr agent{} uses {}: stop it, or give this one another --bpffs folder",
                first.unwrap_or_default(),
                dir.display()
            );
        };
        // A killed agent has left its text.
        let _ = fs::remove_file(&link);
        if let Err(error) = std::os::unix::fs::symlink(own_text(), &link) {
            tracing::debug!("{}: {error}", link.display());
        }
        Ok(Self { link, _lock: lock })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Before the lock is freed. If the link stays, nothing reads it while the folder is not locked.
        let _ = fs::remove_file(&self.link);
    }
}

fn own_text() -> String {
    let place = match std::env::var("POD_NAME") {
        Ok(pod) if !pod.is_empty() => format!(" in pod {pod}"),
        _ => String::new(),
    };
    format!("version {}, process {}{place}", env!("CARGO_PKG_VERSION"), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_the_name_of_the_first() {
        let dir = std::env::temp_dir().join(format!("lbr-owner-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let idle = is_held(&dir).unwrap();
        let first = Owner::take(&dir).unwrap();
        let held = is_held(&dir).unwrap();
        let error = Owner::take(&dir).unwrap_err().to_string();
        drop(first);
        // The text of a killed agent does not matter.
        std::os::unix::fs::symlink("killed agent", dir.join(NAME)).unwrap();
        // Nor does a look at the lock.
        let look = try_lock(&dir, FlockArg::LockSharedNonblock).unwrap();
        let looker = std::thread::spawn(move || {
            std::thread::sleep(AGAIN.1);
            drop(look);
        });
        let again = Owner::take(&dir).map(drop);
        looker.join().unwrap();
        let left = fs::read_dir(&dir).unwrap().count();
        fs::remove_dir_all(&dir).unwrap();
        let expected = format!("another lbr agent (version {}, process ", env!("CARGO_PKG_VERSION"));
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        again.unwrap();
        assert_eq!((idle, held), (false, true));
        assert_eq!(left, 0, "the text goes with its owner");
    }
}
