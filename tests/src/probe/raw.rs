//! Raw frames: sent and captured through `AF_PACKET` (packet(7)).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::netns::Netns;

/// A captured frame.
#[derive(Clone, Debug)]
pub struct Frame {
    /// From the link header on; without a VLAN tag that the kernel has removed.
    pub bytes: Vec<u8>,
    /// Sent through the link, not received.
    pub outgoing: bool,
    /// If true, the transport checksum is left to a device (offload) and must not be checked.
    pub checksum_pending: bool,
    /// VLAN tag that the kernel has removed from the frame.
    pub vlan: Option<u16>,
}

/// Sends frames (from the link header on) out of a link.
pub fn send_frames<F: AsRef<[u8]>>(ns: &Netns, link: &str, frames: &[F]) -> Result<()> {
    let socket = open(ns, link)?;
    for frame in frames {
        let bytes = frame.as_ref();
        // SAFETY: the pointer and length are of a live slice.
        let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error())
                .with_context(|| format!("send a frame of {} bytes through {link}", bytes.len()));
        }
    }
    Ok(())
}

/// Listens on a link from its creation on.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    link: String,
}

impl Capture {
    /// Begins to listen.
    pub fn start(ns: &Netns, link: &str) -> Result<Self> {
        let socket = open(ns, link)?;
        let on: libc::c_int = 1;
        let wanted_room: libc::c_int = 16 << 20;
        for (level, option, value) in [
            (libc::SOL_PACKET, libc::PACKET_AUXDATA, on),
            // Forced, as a burst of large frames exceeds the usual limit.
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted_room),
        ] {
            let len = libc::socklen_t::try_from(size_of::<libc::c_int>())?;
            // SAFETY: the pointer and length are of a live integer.
            let done = unsafe {
                libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), len)
            };
            if done != 0 {
                return Err(io::Error::last_os_error()).context("set up the capture");
            }
        }
        Ok(Self { socket, link: link.to_owned() })
    }

    /// The first frame that matches, from the start of the capture or the last call on.
    pub fn wait(&self, timeout: Duration, mut matches: impl FnMut(&Frame) -> bool) -> Result<Frame> {
        let (end, mut seen) = (Instant::now() + timeout, 0);
        while let Some(frame) = self.next(end)? {
            if matches(&frame) {
                return Ok(frame);
            }
            seen += 1;
        }
        bail!("none of the {seen} frames on {} within {timeout:?} is the one waited for", self.link)
    }

    /// All frames until the link has been silent for this long.
    pub fn drain(&self, silence: Duration) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next(Instant::now() + silence)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// The next frame, if one arrives before `end`.
    fn next(&self, end: Instant) -> Result<Option<Frame>> {
        let left = end.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is of one live pollfd.
        let ready = unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left.as_millis())?) };
        match ready {
            0 => Ok(None),
            1.. => receive(&self.socket).map(Some).context("receive a frame"),
            _ => Err(io::Error::last_os_error()).context("wait for a frame"),
        }
    }
}

/// A packet socket that is bound to the link.
fn open(ns: &Netns, link: &str) -> Result<OwnedFd> {
    ns.run(|| {
        let protocol = i32::from(u16::try_from(libc::ETH_P_ALL)?.to_be());
        let index = nix::net::if_::if_nametoindex(link).with_context(|| format!("no interface {link}"))?;
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("open a packet socket (needs root)");
        }
        // SAFETY: the descriptor was just made and has no other owner.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: all zeros is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET)?;
        address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
        address.sll_ifindex = i32::try_from(index)?;
        let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
        // SAFETY: the pointer and length are of a live sockaddr_ll.
        let done = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        if done != 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("listen on {link}"));
        }
        Ok(socket)
    })
}

fn receive(socket: &OwnedFd) -> Result<Frame> {
    let mut bytes = vec![0_u8; 1 << 17];
    let mut control = [0_u64; 16];
    // SAFETY: all zeros is a valid value of both structures.
    let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { std::mem::zeroed() };
    let mut parts = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>())?;
    message.msg_iov = &raw mut parts;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the message is of a live buffer with the length beside it.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    bytes.truncate(usize::try_from(len).map_err(|_| io::Error::last_os_error())?);
    let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
    let mut frame = Frame { bytes, outgoing, checksum_pending: false, vlan: None };
    // SAFETY: recvmsg has filled in the message, whose buffers still live.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: not null, and inside of `control`.
        let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
        if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA {
            // SAFETY: a message of this type holds a tpacket_auxdata, at any alignment.
            let aux: libc::tpacket_auxdata =
                unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned() };
            frame.checksum_pending = aux.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
            frame.vlan = (aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0).then_some(aux.tp_vlan_tci);
        }
        // SAFETY: both pointers are of the message that recvmsg has filled in.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    Ok(frame)
}
