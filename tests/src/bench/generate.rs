//! Frames of 64 bytes, each a datagram or a SYN of a numbered flow, sent onto a wire past the sender's stack.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::ifaddrs::getifaddrs;

use crate::packet::{Packet, flags};

/// Four of the 64 bytes are the check sequence, which the device adds.
const FRAME: usize = 60;
/// Frames in a system call.
const BATCH: usize = 64;
/// The first sender's address: RFC 2544 reserves these for benchmarks.
const SENDERS: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// Ports of each sender: those above the well-known ones.
const PORTS: u32 = 60_000;
const FIRST_PORT: u32 = 1_024;

/// Offsets in a frame: IPv4 without options.
mod at {
    pub(super) const IP_SUM: usize = 24;
    pub(super) const SRC: usize = 26;
    pub(super) const PORT: usize = 34;
    pub(super) const UDP_SUM: usize = 40;
    pub(super) const TCP_SUM: usize = 50;
}

/// The source of a flow.
pub fn sender(flow: u32) -> (Ipv4Addr, u16) {
    let port = u16::try_from(FIRST_PORT + flow % PORTS).unwrap_or(u16::MAX);
    (Ipv4Addr::from(SENDERS + flow / PORTS), port)
}

/// A frame that can become the frame of any flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: [u8; FRAME],
    /// The offset of the checksum over ports and addresses.
    sum: usize,
}

impl Frame {
    /// The frame of flow 0, between these link addresses, to this destination.
    pub fn new(from: [u8; 6], via: [u8; 6], to: SocketAddrV4) -> Result<Self> {
        let bytes =
            Packet::udp(sender(0).into(), to.into()).macs(from, via).payload(&[0; FRAME - 42]).build();
        Self::of(bytes, at::UDP_SUM)
    }

    /// The same as a SYN.
    pub fn syn(from: [u8; 6], via: [u8; 6], to: SocketAddrV4) -> Result<Self> {
        let syn = Packet::tcp(sender(0).into(), to.into(), flags::SYN).tcp_options(&[2, 4, 5, 180]);
        let mut bytes = syn.macs(from, via).build();
        // Padded like a short frame by a device.
        bytes.resize(FRAME, 0);
        Self::of(bytes, at::TCP_SUM)
    }

    fn of(bytes: Vec<u8>, sum: usize) -> Result<Self> {
        Ok(Self { bytes: bytes.try_into().ok().context("a frame of another length")?, sum })
    }

    /// The frame of another flow.
    #[must_use]
    pub fn of_flow(mut self, flow: u32) -> Self {
        self.set_flow(flow);
        self
    }

    /// Makes it the frame of another flow: source address and port, and their checksums.
    fn set_flow(&mut self, flow: u32) {
        let (address, port) = sender(flow);
        let [a, b, c, d] = address.octets();
        let port = port.to_be_bytes();
        for (offset, word) in [(at::SRC, [a, b]), (at::SRC + 2, [c, d]), (at::PORT, port)] {
            let old = self.word(offset);
            self.bytes[offset..offset + 2].copy_from_slice(&word);
            let new = u16::from_be_bytes(word);
            if offset != at::PORT {
                self.fix_sum(at::IP_SUM, old, new);
            }
            self.fix_sum(self.sum, old, new);
        }
    }

    /// RFC 1624, equation 3.
    fn fix_sum(&mut self, offset: usize, old: u16, new: u16) {
        let mut sum = u32::from(!self.word(offset)) + u32::from(!old) + u32::from(new);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        // Folded twice, so it fits.
        let fixed = !(sum as u16);
        self.bytes[offset..offset + 2].copy_from_slice(&fixed.to_be_bytes());
    }

    fn word(&self, offset: usize) -> u16 {
        u16::from_be_bytes([self.bytes[offset], self.bytes[offset + 1]])
    }
}

/// The result of sending.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Frames, including those that the wire did not accept.
    pub frames: u64,
    /// Frames that the wire did not accept.
    pub lost: u64,
    /// The time that it took.
    pub time: Duration,
}

/// A socket that puts frames onto an interface, without a queue.
pub struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens it in the network namespace of this thread.
    pub fn open(interface: u32) -> Result<Self> {
        // SAFETY: no pointers. Protocol 0: nothing is received.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error()).context("open a packet socket");
        }
        // SAFETY: just opened, without another owner.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let bypass: libc::c_int = 1;
        // SAFETY: the kernel reads an int, of which the length is given.
        let failed = unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_PACKET,
                libc::PACKET_QDISC_BYPASS,
                (&raw const bypass).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        check(failed).context("send past the queue")?;
        // SAFETY: all fields are integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = interface.cast_signed();
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the kernel reads `len` bytes, the size of `address`.
        let failed = unsafe { libc::bind(fd, (&raw const address).cast(), len) };
        check(failed).context("bind a packet socket to an interface")?;
        Ok(Self { socket })
    }

    /// Sends a frame of each of these flows, until there are no more or `until` returns true between two batches.
    pub fn send(
        &self,
        frame: &Frame,
        mut flows: impl Iterator<Item = u32>,
        until: impl Fn(Duration) -> bool,
    ) -> Result<Sent> {
        let mut frames = [*frame; BATCH];
        let begin = Instant::now();
        let mut sent = Sent::default();
        loop {
            let mut filled = 0;
            for (frame, flow) in frames.iter_mut().zip(flows.by_ref()) {
                frame.set_flow(flow);
                filled += 1;
            }
            sent.lost += self.send_all(&mut frames[..filled])?;
            sent.frames += filled as u64;
            sent.time = begin.elapsed();
            if filled < BATCH || until(sent.time) {
                return Ok(sent);
            }
        }
    }

    /// Sends these frames again and again, until `until` returns true between two batches.
    pub fn repeat(&self, frames: &mut [Frame], until: impl Fn(Duration) -> bool) -> Result<Sent> {
        let begin = Instant::now();
        let mut sent = Sent::default();
        loop {
            for batch in frames.chunks_mut(BATCH) {
                sent.lost += self.send_all(batch)?;
                sent.frames += batch.len() as u64;
                sent.time = begin.elapsed();
                if until(sent.time) {
                    return Ok(sent);
                }
            }
        }
    }

    /// Returns the number of frames that the wire did not accept.
    fn send_all(&self, frames: &mut [Frame]) -> Result<u64> {
        // SAFETY: both are made of integers and pointers, for which zero is a value.
        let (mut parts, mut messages): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        for ((frame, part), message) in frames.iter_mut().zip(&mut parts).zip(&mut messages) {
            *part = libc::iovec { iov_base: frame.bytes.as_mut_ptr().cast(), iov_len: FRAME };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let (mut next, mut lost) = (0, 0);
        while next < frames.len() {
            let left = &mut messages[next..frames.len()];
            // SAFETY: the kernel reads this many headers, each with one frame that lives across the call.
            let count = unsafe {
                libc::sendmmsg(self.socket.as_raw_fd(), left.as_mut_ptr(), left.len() as libc::c_uint, 0)
            };
            match usize::try_from(count) {
                Ok(count) => next += count,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.raw_os_error() {
                        // The other end of the wire has no room: this frame is lost there.
                        Some(libc::ENOBUFS | libc::EAGAIN) => (next, lost) = (next + 1, lost + 1),
                        Some(libc::EINTR) => {}
                        _ => return Err(error).context("send frames"),
                    }
                }
            }
        }
        Ok(lost)
    }
}

/// The link address of an interface in this thread's namespace.
pub fn link_address(name: &str) -> Result<[u8; 6]> {
    let mut all = getifaddrs()?.filter(|found| found.interface_name == name);
    let address = all.find_map(|found| found.address?.as_link_addr()?.addr());
    address.with_context(|| format!("{name} has no link address"))
}

fn check(failed: libc::c_int) -> io::Result<()> {
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Parsed;

    #[test]
    fn a_frame_of_any_flow_is_as_if_made_for_it() {
        let to: SocketAddrV4 = "172.18.0.1:30900".parse().unwrap();
        let (from, via) = ([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]);
        let mut frame = Frame::new(from, via, to).unwrap();
        for flow in [0, 1, 59_999, 60_000, 5_000_000, 17] {
            frame.set_flow(flow);
            let made = Packet::udp(sender(flow).into(), to.into()).macs(from, via).payload(&[0; 18]).build();
            assert_eq!(frame.bytes[..], made[..], "flow {flow}");
            assert!(Parsed::frame(&frame.bytes).unwrap().checksums_ok());
        }
    }

    #[test]
    fn a_syn_of_any_flow_is_whole() {
        let mut frame =
            Frame::syn([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8], "10.244.1.2:80".parse().unwrap()).unwrap();
        for flow in [0, 59_999, 60_000, 5_000_000, u32::MAX, 17] {
            frame.set_flow(flow);
            let parsed = Parsed::frame(&frame.bytes).unwrap();
            assert!(parsed.checksums_ok() && parsed.src == sender(flow).into(), "flow {flow}: {parsed:?}");
        }
    }

    #[test]
    fn flows_have_sources_of_their_own() {
        assert_eq!(sender(0), (Ipv4Addr::new(198, 18, 0, 1), 1_024));
        assert_eq!(sender(59_999), (Ipv4Addr::new(198, 18, 0, 1), 61_023));
        assert_eq!(sender(60_000), (Ipv4Addr::new(198, 18, 0, 2), 1_024));
    }
}
