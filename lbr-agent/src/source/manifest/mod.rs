//! Ordinary Kubernetes YAML in a folder, as a source of [`Change`]s.
//!
//! ```text
//! folder ─> look (what settled) ─> parse (file → objects) ─> set (files → changes) ─> channel
//! ```
//!
//! This file is the only one of them that touches the file system.

mod causes;
pub(crate) mod documents;
mod look;
mod notes;
mod parse;
mod set;
mod watch;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::look::{Listing, Looker, Signature};
use self::notes::{Notes, Other};
pub use self::parse::{Held, Parsed, ParsedObject, parse};
pub use self::set::ManifestSet;
use self::watch::Watch;
use crate::cluster::Change;
use crate::model::{Kind, Rejected};

/// Larger files are not manifests.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// A folder whose `*.yaml`, `*.yml` and `*.json` files describe the cluster. Not recursive; files whose names begin
/// with a dot are not read.
#[derive(Debug)]
pub struct ManifestSource {
    dir: PathBuf,
    looker: Looker,
    set: ManifestSet,
    /// Files that exist and could not be read.
    failed: BTreeSet<String>,
    notes: Notes,
    contact: Arc<Contact>,
}

/// Whether the folder can be listed.
#[derive(Debug, Default)]
pub struct Contact(Mutex<Option<Instant>>);

impl Contact {
    /// How long the folder could not be listed; zero if all is well.
    pub fn silent_for(&self) -> Duration {
        self.lost().map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn is_lost(&self) -> bool {
        self.lost().is_some()
    }

    /// Returns whether it was lost before.
    fn set_lost(&self, is_lost: bool) -> bool {
        let mut since = self.lost();
        let before = *since;
        *since = is_lost.then(|| before.unwrap_or_else(Instant::now));
        before.is_some()
    }

    fn lost(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receiver of the changes is gone.
struct Closed;

impl ManifestSource {
    /// Makes sure that the folder exists and can be listed.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let shown = dir.display();
        match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => bail!(
                "--manifests {shown}: is a file: give a folder that holds it, all of whose YAML files are read"
            ),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                bail!("--manifests {shown}: the folder does not exist: create it, or give another one")
            }
            Err(e) => bail!("--manifests {shown}: {e}"),
        }
        list(dir, &mut Vec::new()).with_context(|| format!("--manifests {shown}: cannot be listed"))?;
        Ok(Self {
            dir: dir.to_owned(),
            looker: Looker::default(),
            set: ManifestSet::new(),
            failed: BTreeSet::new(),
            notes: Notes::default(),
            contact: Arc::default(),
        })
    }

    /// How long the folder could not be listed.
    pub fn contact(&self) -> Arc<Contact> {
        Arc::clone(&self.contact)
    }

    /// Sends everything in the folder, then [`Change::Synced`] for every kind, then all changes, as long as there is a
    /// receiver. Works on its own thread, since it mostly waits for the disk.
    pub fn spawn(self, changes: mpsc::Sender<Change>) -> io::Result<()> {
        let thread = std::thread::Builder::new().name("manifests".to_owned());
        thread.spawn(move || self.run(&changes))?;
        Ok(())
    }

    fn run(mut self, changes: &mpsc::Sender<Change>) {
        // Watch before the first look: a change in between is seen twice rather than never.
        let mut watch = Watch::new(&self.dir);
        if self.start(changes).is_err() {
            return;
        }
        let mut unsettled = false;
        while !changes.is_closed() {
            let is_slow_look = watch.wait(unsettled, self.contact.is_lost());
            if is_slow_look {
                for name in std::mem::take(&mut self.failed) {
                    self.looker.retry(&name);
                }
            }
            match self.look(changes) {
                Ok(again) => unsettled = again,
                Err(Closed) => return,
            }
            watch.follow(&self.dir);
        }
    }

    fn start(&mut self, changes: &mpsc::Sender<Change>) -> Result<(), Closed> {
        let mut others = Vec::new();
        match list(&self.dir, &mut others) {
            Ok(listing) => {
                self.note(&listing, others);
                for name in self.looker.first(listing) {
                    self.read(&name);
                }
            }
            Err(e) => self.lose_dir(&e),
        }
        self.hand_over(changes)?;
        for kind in Kind::ALL {
            changes.blocking_send(Change::Synced(kind)).map_err(|_| Closed)?;
        }
        Ok(())
    }

    /// One look at the folder. True if another one should follow soon.
    fn look(&mut self, changes: &mpsc::Sender<Change>) -> Result<bool, Closed> {
        let mut others = Vec::new();
        let listing = match list(&self.dir, &mut others) {
            Ok(listing) => listing,
            Err(e) => {
                self.lose_dir(&e);
                return Ok(false);
            }
        };
        if self.contact.set_lost(false) {
            info!("the folder {} is back", self.dir.display());
        }
        self.note(&listing, others);
        let seen = self.looker.look(listing);
        for name in &seen.gone {
            info!("{name} is gone, and the objects that only it had");
            self.failed.remove(name);
            self.set.remove_file(name);
        }
        for name in &seen.changed {
            self.read(name);
        }
        if !seen.gone.is_empty() || !seen.changed.is_empty() {
            self.hand_over(changes)?;
        }
        Ok(seen.unsettled)
    }

    /// Says once what is in the folder and is not read.
    fn note(&mut self, listing: &Listing, others: Vec<Other>) {
        for text in self.notes.of(listing.is_empty(), others) {
            warn!("{}: {text}", self.dir.display());
        }
    }

    fn lose_dir(&mut self, error: &io::Error) {
        if !self.contact.set_lost(true) {
            warn!(
                "the folder {} cannot be listed ({error}): the last state stays in force until the folder is back",
                self.dir.display()
            );
        }
    }

    fn read(&mut self, name: &str) {
        let parsed = match read_text(&self.dir.join(name)) {
            Ok(text) => parse(name, &text),
            // The next look will notice that it is gone.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(e) => {
                self.failed.insert(name.to_owned());
                Parsed::unreadable(name, format!("cannot be read: {e}"))
            }
        };
        if !parsed.skipped.is_empty() {
            let kinds: Vec<_> = parsed.skipped.iter().map(String::as_str).collect();
            info!("{name}: skipped {}, which lbr does not use", kinds.join(", "));
        }
        self.set.set_file(name, parsed);
    }

    fn hand_over(&mut self, changes: &mpsc::Sender<Change>) -> Result<(), Closed> {
        let before: BTreeSet<Rejected> = self.set.rejected().iter().cloned().collect();
        let list = self.set.changes();
        for rejected in self.set.rejected().iter().filter(|r| !before.contains(r)) {
            warn!("{rejected}");
        }
        let applied = list.iter().filter(|c| matches!(c, Change::Apply(_))).count();
        let deleted = list.iter().filter(|c| matches!(c, Change::Delete(_))).count();
        if applied + deleted > 0 {
            info!(
                applied,
                deleted,
                in_force = self.set.len(),
                rejected = self.set.rejected().len(),
                "manifests"
            );
        }
        for change in list {
            changes.blocking_send(change).map_err(|_| Closed)?;
        }
        Ok(())
    }
}

/// The manifests of a folder. `others`: what else is there.
fn list(dir: &Path, others: &mut Vec<Other>) -> io::Result<Listing> {
    let mut listing = Listing::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // Of editors and of mounted ConfigMaps.
        if name.starts_with('.') {
            continue;
        }
        // Follows symbolic links, since a mounted ConfigMap consists of them. A broken link is no file.
        let Ok(meta) = fs::metadata(entry.path()) else { continue };
        if !is_manifest(&name) || !meta.is_file() {
            others.push(Other { name, is_folder: meta.is_dir() });
        } else {
            let signature = Signature {
                inode: meta.ino(),
                len: meta.len(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            };
            listing.insert(name, signature);
        }
    }
    Ok(listing)
}

fn is_manifest(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    matches!(ending, "yaml" | "yml" | "json")
}

fn read_text(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_FILE_BYTES {
        let megabytes = MAX_FILE_BYTES / (1024 * 1024);
        return Err(io::Error::other(format!(
            "it is larger than {megabytes} MiB: split it into several files"
        )));
    }
    String::from_utf8(fs::read(path)?).map_err(|_| io::Error::other("it is not UTF-8 text: save it as UTF-8"))
}

#[cfg(test)]
mod tests;
