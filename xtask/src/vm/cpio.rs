//! Writes archives that the kernel unpacks as its first filesystem (cpio, format `newc`).
//!
//! All files belong to root, whatever their owner here, and several archives in a row count as one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Bits of a mode with the type of the file.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;

/// An archive being written.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    written: u64,
    inode: u32,
    folders: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub(super) fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0, folders: BTreeSet::new() }
    }

    /// A folder and its parents. Paths have no leading `/`.
    pub(super) fn folder(&mut self, path: &str) -> Result<()> {
        if path.is_empty() || self.folders.contains(path) {
            return Ok(());
        }
        self.folders_above(path)?;
        self.folders.insert(path.to_owned());
        let mode = if path == "tmp" { 0o1777 } else { 0o755 };
        self.header(path, FOLDER | mode, 0, (0, 0))
    }

    /// A file with this text.
    pub(super) fn text(&mut self, path: &str, mode: u32, text: &str) -> Result<()> {
        self.file(path, mode, text.len() as u64, text.as_bytes())
    }

    /// A copy of a file of this machine, with its mode.
    pub(super) fn copy(&mut self, source: &Path, path: &str) -> Result<()> {
        let open = || -> io::Result<(File, fs::Metadata)> {
            let file = File::open(source)?;
            let metadata = file.metadata()?;
            Ok((file, metadata))
        };
        let (file, metadata) = open().with_context(|| format!("read {}", source.display()))?;
        let mode = metadata.permissions().mode() & 0o777;
        self.file(path, mode, metadata.len(), file)
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.folders_above(path)?;
        self.header(path, LINK | 0o777, target.len() as u64, (0, 0))?;
        self.body(target.as_bytes(), target.len() as u64)
    }

    /// A character device.
    pub(super) fn device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.folders_above(path)?;
        self.header(path, DEVICE | 0o600, 0, (major, minor))
    }

    /// Ends the archive; another one may follow in the same file.
    pub(super) fn finish(mut self) -> Result<()> {
        self.header("TRAILER!!!", 0, 0, (0, 0))?;
        self.pad(512)?;
        self.out.flush().context("write an archive")
    }

    fn file(&mut self, path: &str, mode: u32, length: u64, from: impl Read) -> Result<()> {
        self.folders_above(path)?;
        self.header(path, FILE | mode, length, (0, 0))?;
        self.body(from, length).with_context(|| format!("write {path} to an archive"))
    }

    fn folders_above(&mut self, path: &str) -> Result<()> {
        path.rsplit_once('/').map_or(Ok(()), |(above, _)| self.folder(above))
    }

    fn header(&mut self, path: &str, mode: u32, length: u64, device: (u32, u32)) -> Result<()> {
        self.inode += 1;
        let length = u32::try_from(length).with_context(|| format!("{path} is too large for an archive"))?;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let (major, minor) = device;
        let name = path.len() + 1;
        // inode, mode, owner, group, links, time, size, device numbers of its disk and its own, name, checksum
        let text = format!(
            "070701{:08X}{mode:08X}{:08X}{:08X}{links:08X}{:08X}{length:08X}{:08X}{:08X}{major:08X}{minor:08X}\
             {name:08X}{:08X}{path}\0",
            self.inode, 0, 0, 0, 0, 0, 0
        );
        self.write(text.as_bytes())?;
        self.pad(4)
    }

    fn body(&mut self, from: impl Read, length: u64) -> Result<()> {
        let copied = io::copy(&mut from.take(length), &mut self.out).context("copy")?;
        anyhow::ensure!(copied == length, "it became shorter");
        self.written += copied;
        self.pad(4)
    }

    fn pad(&mut self, to: u64) -> Result<()> {
        let missing = self.written.next_multiple_of(to) - self.written;
        let zeros = [0; 512];
        let some = usize::try_from(missing).ok().and_then(|count| zeros.get(..count)).unwrap_or_default();
        self.write(some)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).context("write an archive")?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// Every file below a folder, in order. Links to files count, folders do not.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in next.read_dir().with_context(|| next.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_has_the_kernels_format() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.text("etc/hosts", 0o644, "hello").unwrap();
        archive.text("etc/passwd", 0o600, "").unwrap();
        archive.link("bin", "usr/bin").unwrap();
        archive.device("dev/console", 5, 1).unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 512, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches("070701").count(), 7, "two folders, two files, a link, a device, the end");
        assert!(text.starts_with("07070100000001000041ED"), "a folder of mode 755: {text:?}");
        let hosts = text.find("000081A4").unwrap();
        assert_eq!(&text[hosts + 40..hosts + 48], "00000005", "the size");
        assert!(text.contains("etc/hosts\0hello\0\0\0"), "padded to four bytes");
        assert_eq!(text.matches("\0etc\0").count() + text.matches("etc\0").count(), 1);
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let mut archive = Archive::new(Vec::new());
        assert!(archive.file("a", 0o644, 5, &b"abc"[..]).is_err());
    }
}
