//! tar files (ustar) that are the same bytes every time: fixed times, owner and modes, in the order given.

use anyhow::{Context as _, Result};

const BLOCK: usize = 512;

/// One file: name without a leading slash, permissions, content.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) mode: u32,
    pub(super) content: &'a [u8],
}

/// A tar file of these entries.
pub(super) fn pack(entries: &[Entry<'_>]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for entry in entries {
        out.extend_from_slice(&header(entry)?);
        out.extend_from_slice(entry.content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end it.
    out.resize(out.len() + 2 * BLOCK, 0);
    Ok(out)
}

fn header(entry: &Entry<'_>) -> Result<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, len: usize, text: &str| -> Result<()> {
        let too_long = || format!("{}: `{text}` does not fit into a tar header", entry.name);
        header[at..at + len].get_mut(..text.len()).with_context(too_long)?.copy_from_slice(text.as_bytes());
        Ok(())
    };
    put(0, 100, entry.name)?;
    put(100, 7, &format!("{:07o}", entry.mode))?;
    put(108, 7, "0000000")?; // user: root
    put(116, 7, "0000000")?; // group: root
    put(124, 11, &format!("{:011o}", entry.content.len()))?;
    put(136, 11, "00000000000")?; // changed in 1970
    put(148, 8, "        ")?; // the checksum counts as spaces
    put(156, 1, "0")?; // a file
    put(257, 8, "ustar\x0000")?;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}
