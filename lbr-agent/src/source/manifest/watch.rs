//! Waits until a look at the folder is worthwhile.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tracing::warn;

/// Delay after an event, to collect the steps of one save.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Delay before the look that must agree with the last one.
const SETTLE: Duration = Duration::from_millis(100);
/// Interval of looks without events.
const POLL: Duration = Duration::from_millis(500);
/// Interval of looks with events, which may get lost, as on network file systems.
const BACKSTOP: Duration = Duration::from_secs(5);

/// Events of one folder.
pub(super) struct Watch {
    events: Receiver<()>,
    sender: Sender<()>,
    /// The watcher and the folder it watches; `None` if there is no watcher.
    watcher: Option<(RecommendedWatcher, FolderId)>,
    has_warned: bool,
}

/// Device and inode: a folder that was removed and created again has the same name, but is not watched.
type FolderId = (u64, u64);

impl Watch {
    /// Starts to watch. If that fails, [`Watch::wait`] returns often.
    pub(super) fn new(dir: &Path) -> Self {
        let (sender, events) = channel();
        let mut watch = Self { events, sender, watcher: None, has_warned: false };
        watch.follow(dir);
        watch
    }

    /// Waits for an event, or for the time of the next look. True if nothing happened for long.
    pub(super) fn wait(&self, unsettled: bool, is_lost: bool) -> bool {
        let timeout = match (unsettled, is_lost || self.watcher.is_none()) {
            (true, _) => SETTLE,
            (false, true) => POLL,
            (false, false) => BACKSTOP,
        };
        let happened = match self.events.recv_timeout(timeout) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        };
        if happened {
            std::thread::sleep(DEBOUNCE);
            while self.events.try_recv().is_ok() {}
        }
        !happened && !unsettled
    }

    /// Watches the folder that has this name now.
    pub(super) fn follow(&mut self, dir: &Path) {
        let Ok(meta) = std::fs::metadata(dir) else { return };
        let id = (meta.dev(), meta.ino());
        if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == id) {
            return;
        }
        self.watcher = match watch_folder(dir, self.sender.clone()) {
            Ok(watcher) => {
                // The folder may have changed before the watch began.
                let _ = self.sender.send(());
                Some((watcher, id))
            }
            Err(e) => {
                if !std::mem::replace(&mut self.has_warned, true) {
                    warn!("no events for {} ({e}): looking at it twice a second instead", dir.display());
                }
                None
            }
        };
    }
}

fn watch_folder(dir: &Path, sender: Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too; lbr's own reads would cause looks forever.
        let is_read = event.is_ok_and(|e| match e.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            kind => kind.is_access(),
        });
        if !is_read {
            // The source may have ended.
            let _ = sender.send(());
        }
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
