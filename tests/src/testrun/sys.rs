//! Commands of `bpf(2)` that aya lacks in this form: a test run with flags, many look-ups in one call, and loads with
//! the verifier's statistics.

pub(super) mod entries;

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya::Pod;
use aya_obj::generated::bpf_insn;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_MAP_FREEZE: libc::c_long = 22;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// The packet claims a checksum by its device (`CHECKSUM_COMPLETE`), and the kernel checks afterwards that it is
/// still right: `EBADMSG` if not (`BPF_F_TEST_SKB_CHECKSUM_COMPLETE`).
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
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    _pad: u32,
}

/// `struct` of `BPF_MAP_*_ELEM`, `BPF_MAP_GET_NEXT_KEY` (with the next key in place of a value) and `BPF_MAP_FREEZE` in
/// `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    _pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `struct` of `BPF_BTF_LOAD` in `union bpf_attr`, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct LoadBtf {
    btf: u64,
    btf_log_buf: u64,
    btf_size: u32,
    btf_log_size: u32,
    btf_log_level: u32,
    _pad: u32,
}

/// A program as the kernel loads it, and room for the verifier's log.
pub(crate) struct Program<'a> {
    /// `enum bpf_prog_type`.
    pub(crate) kind: u32,
    /// `enum bpf_attach_type`.
    pub(crate) attach: u32,
    /// `BPF_F_...`.
    pub(crate) flags: u32,
    /// Cut to 15 bytes.
    pub(crate) name: &'a str,
    /// Its code, maps and calls resolved.
    pub(crate) instructions: &'a [bpf_insn],
    /// The object's BTF.
    pub(crate) btf: Option<BorrowedFd<'a>>,
    /// `struct bpf_func_info` side by side, and the size of one.
    pub(crate) funcs: (&'a [u8], usize),
    /// `struct bpf_line_info` side by side, and the size of one.
    pub(crate) lines: (&'a [u8], usize),
    /// The verifier's statistics, or its reason for a refusal: a text that ends with zero.
    pub(crate) log: &'a mut [u8],
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

/// Runs a program on a packet with a context. The resulting packet goes into `out`, cut to its length; returns the
/// program's return value, and the nanoseconds of a run.
pub(super) fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    ctx: &[u8],
    flags: u32,
    repeat: u32,
    out: &mut Vec<u8>,
) -> io::Result<(i32, u32)> {
    // More than any test's packet grows to.
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
    // The batch begins after the given key, or at the start without one.
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
        ..Load::default()
    };
    // SAFETY: the kernel reads two instructions and a text that ends with zero; both live across the call.
    unsafe { opened(BPF_PROG_LOAD, &mut attr) }
}

/// Loads a program with a log of the verifier's statistics (`BPF_LOG_STATS`).
pub(crate) fn load(program: &mut Program<'_>) -> io::Result<OwnedFd> {
    const BPF_LOG_STATS: u32 = 4;
    let mut prog_name = [0; 16];
    for (to, from) in prog_name.iter_mut().take(15).zip(program.name.bytes()) {
        *to = from;
    }
    let has_btf = program.btf.is_some();
    let count = |(bytes, size): (&[u8], usize)| {
        if has_btf { bytes.len().checked_div(size).unwrap_or(0) as u32 } else { 0 }
    };
    let mut attr = Load {
        prog_type: program.kind,
        insn_cnt: program.instructions.len() as u32,
        insns: program.instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: BPF_LOG_STATS,
        log_size: program.log.len() as u32,
        log_buf: program.log.as_mut_ptr() as u64,
        prog_flags: program.flags,
        prog_name,
        expected_attach_type: program.attach,
        prog_btf_fd: program.btf.map_or(0, fd),
        func_info_rec_size: program.funcs.1 as u32,
        func_info: program.funcs.0.as_ptr() as u64,
        func_info_cnt: count(program.funcs),
        line_info_rec_size: program.lines.1 as u32,
        line_info: program.lines.0.as_ptr() as u64,
        line_info_cnt: count(program.lines),
        ..Load::default()
    };
    // SAFETY: the kernel reads instructions, licence, functions and lines and writes the log, each within the length
    // given beside it; all of them live across the call.
    unsafe { opened(BPF_PROG_LOAD, &mut attr) }
}

/// Writes the one value of a map of variables, and freezes the map.
pub(crate) fn fill_and_freeze(map: BorrowedFd<'_>, value: &[u8]) -> io::Result<()> {
    let key = 0u32;
    let mut attr = Element {
        map_fd: fd(map),
        key: (&raw const key) as u64,
        value: value.as_ptr() as u64,
        ..Element::default()
    };
    // SAFETY: the kernel reads a key of four bytes and `value`, which is as long as the map's value; both live across
    // the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }?;
    let mut attr = Element { map_fd: fd(map), ..Element::default() };
    // SAFETY: no pointers.
    unsafe { bpf(BPF_MAP_FREEZE, &mut attr) }.map(drop)
}

/// Loads BTF.
pub(crate) fn load_btf(btf: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = LoadBtf { btf: btf.as_ptr() as u64, btf_size: btf.len() as u32, ..LoadBtf::default() };
    // SAFETY: the kernel reads `btf`, which lives across the call.
    unsafe { opened(BPF_BTF_LOAD, &mut attr) }
}

/// A command that opens a descriptor.
///
/// # Safety
/// As for [`bpf`].
unsafe fn opened<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr) }?;
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn fd(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
/// The pointers in `attr` must be valid for `command`.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: `attr` has the given size; its pointers are the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
