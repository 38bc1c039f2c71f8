//! Reproducible tar files (ustar): fixed times, owner and modes, in the given order.

use ::tar::{Builder, EntryType, Header};
use anyhow::{Context as _, Result};

/// One file: name without a leading slash, permissions, content.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) mode: u32,
    pub(super) content: &'a [u8],
}

/// A tar file of these entries.
pub(super) fn pack(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut tarball = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_ustar();
        header.set_path(entry.name).with_context(|| entry.name.to_owned())?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(entry.content.len() as u64);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        tarball.append(&header, entry.content)?;
    }
    Ok(tarball.into_inner()?)
}
