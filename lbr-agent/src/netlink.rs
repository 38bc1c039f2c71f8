//! Single requests over netlink, one after the other, for look-ups and for the cleanup commands. The agent's watch of
//! interfaces is in [`crate::source::links`].

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::TimeVal;

/// Header of a message: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// Larger than any part of a dump.
const PART: usize = 1 << 18;
/// How often a dump is repeated because something changed meanwhile.
const ATTEMPTS: usize = 10;

/// A netlink family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Interfaces, queueing disciplines and filters.
    Route,
    /// nf_tables.
    Netfilter,
    /// Sockets (sock_diag(7)).
    SocketDiagnostics,
}

/// An answer of the kernel: type and body.
pub(crate) type Message = (u16, Vec<u8>);

/// A socket in the network namespace of the thread that opened it.
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket.
    pub(crate) fn open(family: Family) -> io::Result<Self> {
        let protocol = match family {
            Family::Route => SockProtocol::NetlinkRoute,
            Family::Netfilter => SockProtocol::NetlinkNetFilter,
            Family::SocketDiagnostics => SockProtocol::NetlinkSockDiag,
        };
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        // The kernel answers at once or never.
        setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(30, 0))?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends a request and returns its answers.
    pub(crate) fn ask(&mut self, kind: u16, flags: i32, body: &[u8]) -> io::Result<Vec<Message>> {
        for _ in 0..ATTEMPTS {
            self.sequence += 1;
            let flags = flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK;
            let mut buffer = Vec::new();
            put_message(&mut buffer, kind, flags, self.sequence, body);
            self.send(&buffer)?;
            if let Some(answers) = self.answers()? {
                return Ok(answers);
            }
        }
        Err(io::Error::other("the kernel's tables keep changing while they are read"))
    }

    /// All objects of a kind.
    pub(crate) fn dump(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        self.ask(kind, libc::NLM_F_DUMP, body)
    }

    /// Sends messages that the kernel applies together, or not at all.
    pub(crate) fn batch(&mut self, messages: &[Message], begin: &[u8], end: &[u8]) -> io::Result<()> {
        let Some(last) = messages.len().checked_sub(1) else { return Ok(()) };
        let mut buffer = Vec::new();
        let mut put = |kind: u16, flags: i32, body: &[u8]| {
            self.sequence += 1;
            put_message(&mut buffer, kind, flags | libc::NLM_F_REQUEST, self.sequence, body);
        };
        put(libc::NFNL_MSG_BATCH_BEGIN as u16, 0, begin);
        for (i, (kind, body)) in messages.iter().enumerate() {
            // An acknowledgment of the last one covers all of them; errors come anyway.
            put(*kind, if i == last { libc::NLM_F_ACK } else { 0 }, body);
        }
        put(libc::NFNL_MSG_BATCH_END as u16, 0, end);
        // The kernel takes the batch in one piece only.
        setsockopt(&self.fd, sockopt::SndBufForce, &(2 * buffer.len() + PART))?;
        self.send(&buffer)?;
        self.answers().map(drop)
    }

    fn send(&self, buffer: &[u8]) -> io::Result<()> {
        match send(self.fd.as_raw_fd(), buffer, MsgFlags::empty())? {
            sent if sent == buffer.len() => Ok(()),
            _ => Err(io::Error::other("the kernel took only a part of a message")),
        }
    }

    /// Reads until the kernel's last answer. `None`: something changed meanwhile.
    fn answers(&self) -> io::Result<Option<Vec<Message>>> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        let mut buffer = vec![0; PART];
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
            let mut rest = buffer.get(..length).ok_or_else(|| io::Error::other("an answer is too long"))?;
            while let Some((header, body, after)) = split_message(rest) {
                rest = after;
                interrupted |= header.flags & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(header.kind) {
                    libc::NLMSG_ERROR => match ne_i32(body) {
                        Some(0) => return Ok((!interrupted).then_some(answers)),
                        error => return Err(io::Error::from_raw_os_error(-error.unwrap_or(-libc::EBADMSG))),
                    },
                    libc::NLMSG_DONE => match ne_i32(body) {
                        Some(error) if error < 0 => return Err(io::Error::from_raw_os_error(-error)),
                        _ => return Ok((!interrupted).then_some(answers)),
                    },
                    libc::NLMSG_NOOP => {}
                    _ => answers.push((header.kind, body.to_vec())),
                }
            }
        }
    }
}

struct Header {
    kind: u16,
    flags: i32,
}

fn put_message(buffer: &mut Vec<u8>, kind: u16, flags: i32, sequence: u32, body: &[u8]) {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    buffer.extend(length.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    // Flags have 16 bits.
    buffer.extend((flags as u16).to_ne_bytes());
    buffer.extend(sequence.to_ne_bytes());
    buffer.extend(0u32.to_ne_bytes());
    buffer.extend(body);
    pad(buffer);
}

fn split_message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = usize::try_from(ne_u32(bytes)?).ok()?;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let flags = u16::from_ne_bytes([*bytes.get(6)?, *bytes.get(7)?]).into();
    let body = bytes.get(HEADER..length)?;
    Some((Header { kind, flags }, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Attributes and messages start at a multiple of four.
fn pad(buffer: &mut Vec<u8>) {
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// Adds an attribute.
pub(crate) fn put_attribute(buffer: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    buffer.extend(length.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(value);
    pad(buffer);
}

/// Adds a text, terminated by a zero byte.
pub(crate) fn put_text(buffer: &mut Vec<u8>, kind: u16, text: &str) {
    put_attribute(buffer, kind, &[text.as_bytes(), &[0]].concat());
}

/// The attributes in a body, up to the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    /// Flags for "nested" and "network byte order".
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
        let kind = u16::from_ne_bytes([*bytes.get(2)?, *bytes.get(3)?]) & !FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// One attribute.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A text without its zero byte.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A number in host byte order at the start.
pub(crate) fn ne_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn ne_i32(bytes: &[u8]) -> Option<i32> {
    bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_read_back() {
        let mut buffer = Vec::new();
        put_text(&mut buffer, 1, "nat");
        put_attribute(&mut buffer, 0x8002, &[7]);
        put_text(&mut buffer, 3, "x");
        assert_eq!(buffer.len() % 4, 0);
        let found: Vec<_> = attributes(&buffer).map(|(kind, value)| (kind, text(value))).collect();
        assert_eq!(found, [(1, "nat".into()), (2, "\u{7}".into()), (3, "x".into())]);
    }

    #[test]
    fn broken_lengths_end_the_reading() {
        for bytes in [&[][..], &[1, 0], &[3, 0, 1, 0], &[200, 0, 1, 0, 0], &[0, 0, 1, 0, 0, 0, 0, 0]] {
            assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
        }
        for length in [0u32, 15, 17, u32::MAX] {
            let mut message = vec![0; 16];
            message[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(split_message(&message).is_none(), "{length}");
        }
    }
}
