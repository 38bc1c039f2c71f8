//! Writes many entries of a map with one system call, which takes most of the time of a single write
//! (`BPF_MAP_UPDATE_BATCH`, Linux 5.6).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::Pod;
use aya_obj::generated::bpf_attr__bindgen_ty_3 as Batch;
use aya_obj::generated::bpf_cmd::BPF_MAP_UPDATE_BATCH;

/// Entries of one call: bounds the memory for their copies.
const CHUNK: usize = 1_024;

/// Adds or replaces entries in their order, until one fails. Returns how many it wrote. The map has keys of the type `K` and
/// values of the type `V`.
pub(super) fn insert<K: Pod, V: Pod>(map: BorrowedFd<'_>, entries: &[(K, V)]) -> usize {
    let mut written = 0;
    for chunk in entries.chunks(CHUNK) {
        let done = insert_chunk(map, chunk);
        written += done;
        if done < chunk.len() {
            break;
        }
    }
    written
}

fn insert_chunk<K: Pod, V: Pod>(map: BorrowedFd<'_>, entries: &[(K, V)]) -> usize {
    let (keys, values): (Vec<K>, Vec<V>) = entries.iter().copied().unzip();
    let (Ok(count), Ok(map_fd)) = (u32::try_from(entries.len()), u32::try_from(map.as_raw_fd())) else {
        return 0;
    };
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        count,
        map_fd,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads `count` keys and values from two arrays of that many, which live until the call returns and
    // whose types are those of the map, and writes to `batch.count` only.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH as libc::c_long, &raw mut batch, size_of::<Batch>())
    };
    if result == 0 {
        return entries.len();
    }
    let error = io::Error::last_os_error();
    tracing::debug!("{error} after {} of {count} entries at once", batch.count);
    // The kernel counts what it wrote before an error. It leaves the count as it was if it wrote nothing at all.
    if batch.count < count { batch.count as usize } else { 0 }
}
