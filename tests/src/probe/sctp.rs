//! SCTP by raw sockets (raw(7)), on kernels without SCTP: the packets of an association, with their checksums checked where
//! they arrive. Pods need nothing for it: a raw socket keeps the kernel from answering that it lacks the protocol.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::socket::{SockaddrStorage, recvfrom};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::netns::Netns;
use crate::packet::{Packet, chunk, crc32c};

/// IP protocol number of SCTP.
const SCTP: i32 = 132;
/// Tags of client and server.
const TAGS: (u32, u32) = (0x0c11_e470, 0x05e2_7e20);

/// A host that sends and receives SCTP packets.
#[derive(Debug)]
pub struct End {
    socket: Socket,
    address: IpAddr,
}

/// A packet as its receiver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Received {
    from: SocketAddr,
    to_port: u16,
    chunk: u8,
    tag: u32,
}

impl End {
    /// In a namespace, at one of its addresses.
    pub fn open(ns: &Netns, address: IpAddr) -> Result<Self> {
        ns.run(|| {
            let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(SCTP)))?;
            socket.bind(&SockAddr::from(SocketAddr::new(address, 0)))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            Ok(Self { socket, address })
        })
        .with_context(|| format!("open a raw socket at {address}"))
    }

    fn send(
        &self,
        port: u16,
        to: SocketAddr,
        packet: impl FnOnce(SocketAddr, SocketAddr) -> Packet,
    ) -> Result<()> {
        let ip = packet(SocketAddr::new(self.address, port), to).build_ip();
        let header = if to.is_ipv6() { 40 } else { 20 };
        self.socket.send_to(&ip[header..], &SockAddr::from(SocketAddr::new(to.ip(), 0)))?;
        Ok(())
    }

    /// The next packet to this port, or None if there is none in time. An error if its checksum is wrong.
    fn receive(&self, port: u16, patience: Duration) -> Result<Option<Received>> {
        let end = Instant::now() + patience;
        let mut buffer = vec![0; 1 << 16];
        while Instant::now() < end {
            let (len, from) = match read(&self.socket, &mut buffer) {
                Ok(read) => read,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error).context("receive"),
            };
            // IPv4 raw sockets receive the IP header too.
            let header = if self.address.is_ipv6() { 0 } else { usize::from(buffer[0] & 15) * 4 };
            let packet = buffer.get(header..len).context("cut")?;
            ensure!(packet.len() >= 16, "an SCTP packet of {} bytes", packet.len());
            let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
            if half(2) != port {
                continue;
            }
            let sum = crc32c(&[&packet[..8], &[0; 4], &packet[12..]].concat()).to_le_bytes();
            ensure!(sum == packet[8..12], "checksum {:02x?} instead of {sum:02x?}", &packet[8..12]);
            return Ok(Some(Received {
                from: SocketAddr::new(from, half(0)),
                to_port: half(2),
                chunk: packet[12],
                tag: u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]),
            }));
        }
        Ok(None)
    }
}

fn read(socket: &Socket, buffer: &mut [u8]) -> io::Result<(usize, IpAddr)> {
    let (len, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer)?;
    let from = from.ok_or(ErrorKind::InvalidData)?;
    let v4 = from.as_sockaddr_in().map(|from| IpAddr::from(from.ip()));
    let v6 = from.as_sockaddr_in6().map(|from| IpAddr::from(from.ip()));
    Ok((len, v4.or(v6).ok_or(ErrorKind::InvalidData)?))
}

/// An association that is open.
#[derive(Debug)]
pub struct Association<'a> {
    client: (&'a End, u16, SocketAddr),
    /// The server, its port, and the client as the server sees it.
    server: (&'a End, u16, SocketAddr),
}

impl<'a> Association<'a> {
    /// Opens one from a port of the client to `to`, which leads to this port of one of the servers.
    pub fn open(client: &'a End, port: u16, to: SocketAddr, servers: &'a [End], at: u16) -> Result<Self> {
        client.send(port, to, |from, to| Packet::sctp(from, to, chunk::INIT).tags(TAGS.0, 0))?;
        let (server, init) = first(servers, at)?.context("no server gets the INIT")?;
        ensure!((init.chunk, init.tag) == (chunk::INIT, 0), "the server gets {init:?}");
        let this = Self { client: (client, port, to), server: (server, at, init.from) };
        server
            .send(at, init.from, |from, to| Packet::sctp(from, to, chunk::INIT_ACK).tags(TAGS.1, TAGS.0))?;
        this.client_gets(chunk::INIT_ACK)?;
        this.exchange(chunk::COOKIE_ECHO, b"cookie")?;
        Ok(this)
    }

    /// The client as the server sees it.
    pub fn client_seen(&self) -> SocketAddr {
        self.server.2
    }

    /// The address of the server.
    pub fn server(&self) -> IpAddr {
        self.server.0.address
    }

    /// A packet with data from the client, and one back.
    pub fn echo(&self, len: usize) -> Result<()> {
        self.exchange(chunk::DATA, &vec![7; len])
    }

    fn exchange(&self, kind: u8, data: &[u8]) -> Result<()> {
        let (client, port, to) = self.client;
        client.send(port, to, |from, to| Packet::sctp(from, to, kind).tags(0, TAGS.1).payload(data))?;
        let (server, at, seen) = self.server;
        let got = server.receive(at, patience())?.context("the server gets nothing")?;
        let wanted = Received { from: seen, to_port: at, chunk: kind, tag: TAGS.1 };
        ensure!(got == wanted, "the server gets {got:?} instead of {wanted:?}");
        server
            .send(at, seen, |from, to| Packet::sctp(from, to, chunk::DATA).tags(0, TAGS.0).payload(data))?;
        self.client_gets(chunk::DATA)
    }

    fn client_gets(&self, kind: u8) -> Result<()> {
        let (client, port, from) = self.client;
        let got = client.receive(port, patience())?.context("the client gets nothing")?;
        let wanted = Received { from, to_port: port, chunk: kind, tag: TAGS.0 };
        ensure!(got == wanted, "the client gets {got:?} instead of {wanted:?}");
        Ok(())
    }
}

fn patience() -> Duration {
    crate::patience::millis(2_000)
}

/// The first packet that one of the servers gets.
fn first(servers: &[End], port: u16) -> Result<Option<(&End, Received)>> {
    let end = Instant::now() + patience();
    while Instant::now() < end {
        for server in servers {
            if let Some(got) = server.receive(port, Duration::from_millis(1))? {
                return Ok(Some((server, got)));
            }
        }
    }
    Ok(None)
}

/// An INIT of this client arrives at none of the servers.
pub fn reaches_none(client: &End, port: u16, to: SocketAddr, servers: &[End], at: u16) -> Result<()> {
    client.send(port, to, |from, to| Packet::sctp(from, to, chunk::INIT).tags(TAGS.0, 0))?;
    std::thread::sleep(Duration::from_millis(100));
    for server in servers {
        if let Some(got) = server.receive(at, Duration::from_millis(1))? {
            bail!("a server gets {got:?}");
        }
    }
    Ok(())
}
