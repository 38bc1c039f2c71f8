//! A veth that behaves like a wire.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;

// linux/sockios.h, linux/ethtool.h
const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_STXCSUM: u32 = 0x17;

// linux/bpf.h, linux/if_link.h
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// `return XDP_PASS`.
const PASS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    value: u32,
}

/// `struct` of `BPF_PROG_LOAD` in `union bpf_attr`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 3],
}

/// `struct` of `BPF_LINK_CREATE` in `union bpf_attr`.
#[repr(C)]
struct Create {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Packets leave this veth of the thread's namespace with whole checksums. As long as the result lives, the veth
/// accepts frames that its other end sends from XDP, which requires a program on this end as well.
pub(super) fn like_a_wire(link: &str) -> Result<OwnedFd> {
    without_partial_checksums(link).with_context(|| format!("{link}: tx off"))?;
    let instructions = PASS.as_ptr() as u64;
    let license = c"GPL".as_ptr() as u64;
    let mut load =
        Load { kind: BPF_PROG_TYPE_XDP, count: PASS.len() as u32, instructions, license, log: [0; 3] };
    // SAFETY: the kernel reads the instructions and the licence; both are constants of the given size.
    let program = unsafe { bpf(BPF_PROG_LOAD, &mut load) }.context("load a program that passes all")?;
    let mut create = Create {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex: if_nametoindex(link)?,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    // SAFETY: the structure has no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &mut create) }.with_context(|| format!("{link}: XDP"))
}

fn without_partial_checksums(link: &str) -> Result<()> {
    let mut value = Value { command: ETHTOOL_STXCSUM, value: 0 };
    // SAFETY: a structure of numbers and pointers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    anyhow::ensure!(link.len() < request.ifr_name.len(), "too long a name");
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        // Signed or unsigned, depending on the architecture.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: the kernel reads the request and the value that it points to; both live across the call.
    let failed = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if failed < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

/// # Safety
/// The pointers in `attr` must be valid for `command`, which must return a descriptor.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` has the given size; its pointers are the caller's promise.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    match libc::c_int::try_from(fd) {
        // SAFETY: the kernel made it for this call alone.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
