//! Clients: one request, one answer, from a given place and port.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail, ensure};
use lbr_common::addr::Family;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::{Identity, WHO, digest, pattern};
use crate::netns::Netns;
use crate::topology::Cgroup;

/// Transport protocol of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One connection per request.
    Tcp,
    /// One connected socket per request.
    Udp,
}

/// Sends requests from a namespace.
#[derive(Clone, Debug)]
pub struct Client {
    ns: Netns,
    cgroup: Option<Cgroup>,
    bind: Option<SocketAddr>,
    timeout: Duration,
}

impl Client {
    /// A client with a timeout of two seconds and ports that no earlier socket of a client had (UDP), or that the kernel
    /// chooses (TCP).
    pub fn new(ns: &Netns) -> Self {
        Self { ns: ns.clone(), cgroup: None, bind: None, timeout: Duration::from_secs(2) }
    }

    /// Waits this long for each step.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends from this port.
    pub fn from_port(self, port: u16) -> Self {
        self.bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
    }

    /// Sends from this address and port. The unspecified address stands for both families.
    pub fn bind(self, from: SocketAddr) -> Self {
        Self { bind: Some(from), ..self }
    }

    /// Opens its sockets in a cgroup.
    pub fn cgroup(self, cgroup: &Cgroup) -> Self {
        Self { cgroup: Some(cgroup.clone()), ..self }
    }

    /// Connects, asks for the server's identity, and closes.
    pub fn tcp(&self, to: SocketAddr) -> Result<Identity> {
        self.inside(|| self.ask_tcp(to))
    }

    /// A connection.
    pub fn tcp_stream(&self, to: SocketAddr) -> Result<TcpStream> {
        self.inside(|| self.connect(to))
    }

    /// Asks from a connected UDP socket.
    pub fn udp(&self, to: SocketAddr) -> Result<Identity> {
        self.inside(|| self.ask_udp(to))
    }

    /// Asks once by either protocol: [`Self::tcp`] or [`Self::udp`].
    pub fn ask(&self, protocol: Protocol, to: SocketAddr) -> Result<Identity> {
        self.inside(|| self.ask_by(protocol, to))
    }

    /// Asks from an unconnected UDP socket. Also returns the source address of the answer.
    pub fn udp_unconnected(&self, to: SocketAddr) -> Result<(Identity, SocketAddr)> {
        let socket = self.udp_socket(Family::of(to.ip()))?;
        socket.send_to(WHO.as_bytes(), to).with_context(|| format!("send to {to}"))?;
        let mut buffer = [0; 512];
        let (len, from) = socket.recv_from(&mut buffer).with_context(|| format!("answer from {to}/UDP"))?;
        Ok((std::str::from_utf8(&buffer[..len])?.parse()?, from))
    }

    /// An unconnected UDP socket of one family.
    pub fn udp_socket(&self, family: Family) -> Result<UdpSocket> {
        self.inside(|| self.bound_udp(family))
    }

    /// Sends a datagram of `len` bytes, and compares the echo.
    pub fn udp_echo(&self, to: SocketAddr, len: usize) -> Result<()> {
        let (socket, sent) = (self.udp_socket(Family::of(to.ip()))?, pattern(len));
        socket.connect(to)?;
        socket.send(&sent).with_context(|| format!("send {len} bytes to {to}"))?;
        let mut back = vec![0; 65_536];
        let got = socket.recv(&mut back).with_context(|| format!("echo of {len} bytes from {to}"))?;
        ensure!(back[..got] == sent, "{len} bytes sent to {to}, and {got} came back that differ");
        Ok(())
    }

    /// Sends `count` datagrams of `len` bytes in one call, so that they travel as one packet as far as possible, and
    /// compares the echoes.
    pub fn udp_segments(&self, to: SocketAddr, count: usize, len: usize) -> Result<()> {
        let (socket, sent) = (self.udp_socket(Family::of(to.ip()))?, pattern(count * len));
        socket.connect(to)?;
        setsockopt(&socket, sockopt::UdpGsoSegment, &i32::try_from(len)?)?;
        socket.send(&sent).with_context(|| format!("send {count} datagrams to {to}"))?;
        let mut missing: Vec<&[u8]> = sent.chunks(len).collect();
        let mut back = vec![0; 65_536];
        while !missing.is_empty() {
            let got =
                socket.recv(&mut back).with_context(|| format!("{} of {count} echoes", missing.len()))?;
            let place = missing.iter().position(|part| *part == &back[..got]);
            missing.remove(place.with_context(|| format!("an echo of {got} bytes that was not sent"))?);
        }
        Ok(())
    }

    /// Sends `len` bytes over a TCP connection and compares their digest with the server's.
    pub fn tcp_bulk(&self, to: SocketAddr, len: usize) -> Result<()> {
        let mut stream = self.tcp_stream(to)?;
        let sent = pattern(len);
        writeln!(stream, "bulk {len}")?;
        stream.write_all(&sent).with_context(|| format!("send {len} bytes to {to}"))?;
        let theirs: u64 = read_line(&stream)?.trim_end().parse()?;
        ensure!(theirs == digest(0, &sent), "{len} bytes sent to {to} arrived damaged");
        Ok(())
    }

    /// Sends an ICMP echo request and waits for its answer.
    pub fn ping(&self, to: IpAddr) -> Result<()> {
        self.inside(|| {
            let (family, protocol, kind) = match to {
                IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
                IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
            };
            let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
            // An echo socket of the kernel (icmp(7)), which is a datagram socket to the library.
            let socket = UdpSocket::from(socket);
            socket.set_read_timeout(Some(self.timeout))?;
            socket.connect(SocketAddr::new(to, 0))?;
            socket.send(&[kind, 0, 0, 0, 0, 0, 0, 1]).with_context(|| format!("echo request to {to}"))?;
            socket.recv(&mut [0; 64]).with_context(|| format!("echo reply from {to}"))?;
            Ok(())
        })
    }

    /// Asks `count` times, and counts the answers of each server. Every request must be answered.
    pub fn spread(
        &self,
        protocol: Protocol,
        to: SocketAddr,
        count: usize,
    ) -> Result<BTreeMap<String, usize>> {
        self.inside(|| {
            let mut names = BTreeMap::new();
            for number in 0..count {
                let answer = self.ask_by(protocol, to);
                let answer = answer.with_context(|| format!("request {} of {count}", number + 1))?;
                *names.entry(answer.name).or_default() += 1;
            }
            Ok(names)
        })
    }

    /// Runs a closure in the place where this client's sockets are opened.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.ns.run(|| {
            if let Some(cgroup) = &self.cgroup {
                cgroup.enter_thread()?;
            }
            f()
        })
    }

    fn ask_by(&self, protocol: Protocol, to: SocketAddr) -> Result<Identity> {
        match protocol {
            Protocol::Tcp => self.ask_tcp(to),
            Protocol::Udp => self.ask_udp(to),
        }
    }

    fn ask_tcp(&self, to: SocketAddr) -> Result<Identity> {
        ask_on(&self.connect(to)?).with_context(|| format!("ask {to}/TCP"))
    }

    fn ask_udp(&self, to: SocketAddr) -> Result<Identity> {
        let socket = self.bound_udp(Family::of(to.ip()))?;
        socket.connect(to).with_context(|| format!("connect to {to}/UDP"))?;
        socket.send(WHO.as_bytes()).with_context(|| format!("send to {to}/UDP"))?;
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).with_context(|| format!("answer from {to}/UDP"))?;
        std::str::from_utf8(&buffer[..len])?.parse()
    }

    /// The address that a socket of this family binds to.
    fn source(&self, family: Family) -> Option<SocketAddr> {
        let from = self.bind?;
        let any = unspecified(family);
        Some(if from.ip().is_unspecified() { SocketAddr::new(any, from.port()) } else { from })
    }

    fn bound_udp(&self, family: Family) -> Result<UdpSocket> {
        let socket = match self.source(family) {
            Some(from) => UdpSocket::bind(from).with_context(|| format!("bind {from}/UDP"))?,
            None => fresh_udp(unspecified(family)).context("bind a fresh port/UDP")?,
        };
        socket.set_read_timeout(Some(self.timeout))?;
        Ok(socket)
    }

    fn connect(&self, to: SocketAddr) -> Result<TcpStream> {
        let what = || format!("connect to {to}/TCP");
        let family = if to.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // Linux applies the send timeout to connect as well (socket(7)).
        let millis = i64::try_from(self.timeout.as_millis())?;
        setsockopt(&fd, sockopt::SendTimeout, &TimeVal::milliseconds(millis))?;
        if let Some(from) = self.source(Family::of(to.ip())) {
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            bind(fd.as_raw_fd(), &SockaddrStorage::from(from)).with_context(|| format!("bind {from}"))?;
        }
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) => {}
            Err(nix::errno::Errno::EINPROGRESS) => {
                return Err(Error::new(io::Error::from(io::ErrorKind::TimedOut)).context(what()));
            }
            Err(errno) => return Err(Error::new(io::Error::from(errno)).context(what())),
        }
        let stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A socket with a port that no socket of this process had before.
///
/// The flow of a UDP socket outlives it, and stays at its endpoint while that endpoint is terminating and serving. The
/// kernel chooses ports at random: one request of some hundreds would find the flow of an earlier one.
fn fresh_udp(ip: IpAddr) -> io::Result<UdpSocket> {
    /// `ip_local_port_range` of Linux, which ends above all NodePorts.
    const PORTS: std::ops::RangeInclusive<u16> = 32_768..=60_999;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    for _ in PORTS {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len();
        let Some(port) = PORTS.clone().nth(nth) else { continue };
        match UdpSocket::bind((ip, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Asks a [`super::Server`] on an open connection.
pub fn ask_on(mut stream: &TcpStream) -> Result<Identity> {
    writeln!(stream, "{WHO}").context("request on an open connection")?;
    read_line(stream).context("answer on an open connection")?.parse()
}

/// Reads one line; it is an error if the connection ends before it.
pub(super) fn read_line(stream: &TcpStream) -> Result<String> {
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line)? == 0 {
        bail!("the connection was closed without an answer");
    }
    Ok(line)
}

/// The kind of the I/O error inside.
pub fn error_kind(error: &Error) -> Option<io::ErrorKind> {
    error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind)
}

/// Whether the connection was refused.
pub fn is_refused(error: &Error) -> bool {
    error_kind(error) == Some(io::ErrorKind::ConnectionRefused)
}

/// Whether no answer came in time.
pub fn is_timeout(error: &Error) -> bool {
    matches!(error_kind(error), Some(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
}
