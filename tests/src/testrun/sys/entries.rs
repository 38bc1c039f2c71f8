//! Commands of `bpf(2)` on entries of maps of any type, one by one and many at once.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use super::{BPF_MAP_LOOKUP_BATCH, Batch, Element, bpf, fd};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_long = 25;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// The sizes of a map's entries, as the kernel copies them.
#[derive(Clone, Copy, Debug)]
pub(in crate::testrun) struct Shape {
    /// Bytes of a key.
    pub(in crate::testrun) key: usize,
    /// Bytes of a value, or of all CPUs' values, each padded to eight.
    pub(in crate::testrun) value: usize,
}

/// The key after this one, or the first one.
pub(in crate::testrun) fn next_key(
    map: BorrowedFd<'_>,
    shape: Shape,
    key: Option<&[u8]>,
) -> io::Result<Option<Vec<u8>>> {
    assert!(key.is_none_or(|key| key.len() == shape.key), "a key of another map");
    let mut next = vec![0u8; shape.key];
    let mut attr = Element {
        map_fd: fd(map),
        key: key.map_or(0, |key| key.as_ptr() as u64),
        value: next.as_mut_ptr() as u64,
        ..Element::default()
    };
    // SAFETY: the kernel reads one key and writes one; both are as long as the map's keys and live across the call.
    match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) } {
        Ok(_) => Ok(Some(next)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The value, or the values of all CPUs, of a key.
pub(in crate::testrun) fn lookup(map: BorrowedFd<'_>, shape: Shape, key: &[u8]) -> io::Result<Vec<u8>> {
    assert_eq!(key.len(), shape.key, "a key of another map");
    let mut value = vec![0u8; shape.value];
    let mut attr = Element {
        map_fd: fd(map),
        key: key.as_ptr() as u64,
        value: value.as_mut_ptr() as u64,
        ..Element::default()
    };
    // SAFETY: the kernel reads a key and writes a value, which are as long as the map's and live across the call.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }?;
    Ok(value)
}

/// Removes an entry.
pub(in crate::testrun) fn delete(map: BorrowedFd<'_>, shape: Shape, key: &[u8]) -> io::Result<()> {
    assert_eq!(key.len(), shape.key, "a key of another map");
    let mut attr = Element { map_fd: fd(map), key: key.as_ptr() as u64, ..Element::default() };
    // SAFETY: the kernel reads a key, which is as long as the map's and lives across the call.
    unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) }.map(drop)
}

/// Removes all entries of a hash map of any kind.
pub(in crate::testrun) fn clear_hash(map: BorrowedFd<'_>, shape: Shape) -> io::Result<()> {
    // More than any bucket holds, which the kernel removes as a whole.
    let count = (262_144 / (shape.key + shape.value)).clamp(64, 4_096);
    let (mut keys, mut values) = (vec![0u8; count * shape.key], vec![0u8; count * shape.value]);
    // The number of the next bucket.
    let (mut begin, mut next) = (None, 0u32);
    loop {
        let mut attr = Batch {
            in_batch: begin.as_ref().map_or(0, |bucket| std::ptr::from_ref::<u32>(bucket) as u64),
            out_batch: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: count as u32,
            map_fd: fd(map),
            ..Batch::default()
        };
        // SAFETY: the kernel reads `begin` and writes `next`, both the number of a bucket, and writes at most `count`
        // keys and values of the map's; all of them live across the call.
        match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_BATCH, &mut attr) } {
            Ok(_) => begin = Some(next),
            // There are no more.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// All values of an array, or those of all CPUs, one after the other.
pub(in crate::testrun) fn array(map: BorrowedFd<'_>, shape: Shape, count: u32) -> io::Result<Vec<u8>> {
    assert_eq!(shape.key, size_of::<u32>(), "no array");
    let (mut keys, mut next) = (vec![0u32; count as usize], 0u32);
    let mut values = vec![0u8; count as usize * shape.value];
    let mut attr = Batch {
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count,
        map_fd: fd(map),
        ..Batch::default()
    };
    // SAFETY: the kernel writes `next`, and at most `count` indexes and values; all of them live across the call.
    unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) }?;
    Ok(values)
}

/// Writes the values that [`array()`] has read.
pub(in crate::testrun) fn set_array(map: BorrowedFd<'_>, shape: Shape, values: &[u8]) -> io::Result<()> {
    assert_eq!(shape.key, size_of::<u32>(), "no array");
    let count = (values.len() / shape.value) as u32;
    let keys: Vec<u32> = (0..count).collect();
    let mut attr = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map_fd: fd(map),
        ..Batch::default()
    };
    // SAFETY: the kernel reads `count` indexes and values; all of them live across the call.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attr) }.map(drop)
}

/// Whether a ring buffer has unread data.
pub(in crate::testrun) fn is_readable(ring: BorrowedFd<'_>) -> io::Result<bool> {
    let mut asked = libc::pollfd { fd: ring.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one structure, which lives across the call.
    let found = unsafe { libc::poll(&raw mut asked, 1, 0) };
    if found < 0 { Err(io::Error::last_os_error()) } else { Ok(asked.revents & libc::POLLIN != 0) }
}
