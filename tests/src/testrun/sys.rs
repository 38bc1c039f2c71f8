//! Three commands of `bpf(2)`: one with a flag that aya does not pass on, one that aya does not have, and one for a
//! program that is no object.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya::Pod;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// The packet claims that its device summed it up (`CHECKSUM_COMPLETE`), and the kernel checks afterwards that
/// the sum still is right: `EBADMSG` if not (`BPF_F_TEST_SKB_CHECKSUM_COMPLETE`).
pub(super) const CHECKSUM_COMPLETE: u32 = 1 << 2;

/// `struct` of `BPF_PROG_TEST_RUN` in `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// `struct` of `BPF_PROG_LOAD` in `union bpf_attr`, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// `struct` of `BPF_MAP_*_BATCH` in `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Runs a program on a packet with a context. The packet as the program left it goes into `out`, cut to its
/// length; gives what the program returned, and how many nanoseconds a run took.
pub(super) fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    ctx: &[u8],
    flags: u32,
    repeat: u32,
    out: &mut Vec<u8>,
) -> io::Result<(i32, u32)> {
    // More than any packet that a test makes grows to.
    out.resize(packet.len() + 1024, 0);
    let mut attr = TestRun {
        prog_fd: fd(program),
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        data_size_out: out.len() as u32,
        data_out: out.as_mut_ptr() as u64,
        ctx_size_in: ctx.len() as u32,
        ctx_in: ctx.as_ptr() as u64,
        repeat,
        flags,
        ..TestRun::default()
    };
    // SAFETY: the kernel reads `packet` and `ctx` and writes `out`, each within the length given beside it;
    // all of them live across the call.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr) }?;
    out.truncate(attr.data_size_out as usize);
    Ok((attr.retval.cast_signed(), attr.duration))
}

/// Reads values of a per-CPU array in one call, from index `first` on: `values` holds `cpus` for each.
pub(super) fn lookup_many<V: Pod>(
    map: BorrowedFd<'_>,
    first: u32,
    cpus: usize,
    values: &mut [V],
) -> io::Result<()> {
    // The kernel pads each CPU's value to eight bytes.
    assert_eq!(size_of::<V>() % 8, 0, "not laid out as the kernel does");
    let count = values.len() / cpus;
    let (mut keys, mut next) = (vec![0u32; count], 0u32);
    // The batch begins behind the key given, or at the start without one.
    let previous = first.checked_sub(1);
    let mut attr = Batch {
        in_batch: previous.as_ref().map_or(0, |key| std::ptr::from_ref(key) as u64),
        out_batch: (&raw mut next) as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: count as u32,
        map_fd: fd(map),
        ..Batch::default()
    };
    // SAFETY: the kernel reads `previous`, writes `next`, at most `count` keys of four bytes, and for each of
    // them `cpus` values of the map's value size, which callers promise by the type; all live across the call.
    unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) }.map(drop)
}

/// Loads a program that lets every packet pass: `TC_ACT_UNSPEC`, or `XDP_PASS`.
pub(super) fn load_empty(is_xdp: bool) -> io::Result<OwnedFd> {
    const SCHED_CLS: u32 = 3;
    const XDP: u32 = 6;
    let (prog_type, action): (u32, i32) = if is_xdp { (XDP, 2) } else { (SCHED_CLS, -1) };
    // `struct bpf_insn`: r0 = action; exit.
    let mut code: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    code[0][4..].copy_from_slice(&action.to_ne_bytes());
    let mut attr = Load {
        prog_type,
        insn_cnt: 2,
        insns: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
    };
    // SAFETY: the kernel reads two instructions and a text that ends with zero; both live across the call.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &mut attr) }?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it, and it is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn fd(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
/// The pointers in `attr` must be good for what `command` does with them.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` is as large as said; what it points to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
