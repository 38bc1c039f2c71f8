//! One packet or connection, and what became of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lbr_common::addr::Family;
use lbr_tests::netns::Netns;
use lbr_tests::packet::crc32c;
use lbr_tests::probe::{Client, is_refused, is_timeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, socket};

use crate::case::{Expect, What};
use crate::world::World;

/// The wait for a packet that should not come. A packet between two namespaces takes less than a millisecond.
pub(crate) fn short() -> Duration {
    lbr_tests::patience::millis(250)
}
/// The wait for a packet that should come, before it counts as lost.
pub(crate) fn long() -> Duration {
    lbr_tests::patience::millis(2_000)
}

/// One cell of a line of probes.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) what: What,
    pub(crate) family: Family,
    pub(crate) by_service: bool,
    pub(crate) expect: Expect,
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Allowed,
    Denied,
    Refused,
    /// The request arrived, the answer did not.
    NoAnswer,
    /// The receiver saw this source address, which is not the sender's.
    WrongSource(IpAddr),
    /// Another answer: an ICMP error, where there must be none.
    Error(String),
}

impl Got {
    pub(crate) fn is(&self, expect: Expect) -> bool {
        matches!(
            (self, expect),
            (Self::Allowed, Expect::Allowed)
                | (Self::Denied, Expect::Denied)
                | (Self::Refused, Expect::Refused)
        )
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.family.name();
        let via = if self.by_service { "cluster-ip" } else { "pod-ip" };
        write!(f, "{} -> {} {} {family} {via}", self.from, self.to, self.what)
    }
}

impl Probe {
    /// Sends the probe, and waits for its result.
    pub(crate) fn send(&self, world: &World, patience: Duration) -> Got {
        let ident = world.next_ident();
        match self.try_send(world, ident, patience) {
            Ok(got) => got,
            Err(error) => Got::Error(format!("{error:#}")),
        }
    }

    fn try_send(&self, world: &World, ident: u16, patience: Duration) -> Result<Got> {
        let from = world.actor(&self.from)?;
        let target = self.target(world)?;
        let client = Client::new(&from.ns).timeout(patience).from_port(ident);
        let arrived = || self.arrival(world, ident);
        let asked = match self.what {
            What::Tcp(_) => client.tcp(target).map(Some),
            What::Udp(_) => client.udp(target).map(Some),
            What::Icmp => from.ns.run(|| ping(target.ip(), ident, patience)).map(|()| None),
            What::Sctp(port) => {
                send_raw(&from.ns, target.ip(), 132, &sctp_init(ident, port))?;
                return Ok(wait(patience, arrived));
            }
            What::Gre => {
                send_raw(&from.ns, target.ip(), 47, &gre(ident))?;
                return Ok(wait(patience, arrived));
            }
        };
        Ok(match asked {
            Ok(Some(who)) if !self.is_known_source(world, who.peer.ip())? => Got::WrongSource(who.peer.ip()),
            Ok(_) => Got::Allowed,
            Err(error) if is_refused(&error) => Got::Refused,
            Err(error) if is_timeout(&error) && arrived() => Got::NoAnswer,
            Err(error) if is_timeout(&error) => Got::Denied,
            Err(error) => Got::Error(format!("{error:#}")),
        })
    }

    fn target(&self, world: &World) -> Result<SocketAddr> {
        let (loopback4, loopback6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
        let port = match self.what {
            What::Tcp(port) | What::Udp(port) | What::Sctp(port) => port,
            What::Icmp | What::Gre => 0,
        };
        if self.to == "localhost" {
            return Ok(SocketAddr::new(if self.family.is_v6() { loopback6 } else { loopback4 }, port));
        }
        let to = world.actor(&self.to)?;
        Ok(match self.by_service {
            true => SocketAddr::new(to.service[self.family.index()], crate::cast::crossed(port)),
            false => SocketAddr::new(to.address(self.family), port),
        })
    }

    /// Whether the request has reached the other side's interface.
    fn arrival(&self, world: &World, ident: u16) -> bool {
        let port = match self.what {
            What::Tcp(port) | What::Udp(port) | What::Sctp(port) => port,
            What::Icmp | What::Gre => 0,
        };
        let recorder = world.recorders.get(&self.to);
        recorder.is_some_and(|r| r.find(self.what.number(self.family), ident, port).is_some())
    }

    /// The client's address is kept, except where a pod connects to itself through its Service. A node has several
    /// addresses.
    fn is_known_source(&self, world: &World, peer: IpAddr) -> Result<bool> {
        let from = world.actor(&self.from)?;
        let is_pods_own = from.pod.is_some() && self.from != self.to && self.to != "localhost";
        Ok(!is_pods_own || from.addresses.contains(&peer))
    }
}

/// Waits until it has arrived, or until patience ends.
fn wait(patience: Duration, arrived: impl Fn() -> bool) -> Got {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        if arrived() {
            return Got::Allowed;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Got::Denied
}

/// An echo request with a chosen identifier, by the kernel's own echo socket (icmp(7)).
pub(crate) fn ping(to: IpAddr, ident: u16, patience: Duration) -> Result<()> {
    let (family, protocol, kind, any) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(any, ident)))?;
    let socket = UdpSocket::from(fd);
    socket.set_read_timeout(Some(patience))?;
    socket.connect(SocketAddr::new(to, 0))?;
    socket.send(&[kind, 0, 0, 0, 0, 0, 0, 1]).context("echo request")?;
    socket.recv(&mut [0; 64]).context("echo reply")?;
    Ok(())
}

/// Sends the bytes behind an IP header that the kernel makes (raw(7)).
pub(crate) fn send_raw(ns: &Netns, to: IpAddr, protocol: u8, bytes: &[u8]) -> Result<()> {
    ns.run(|| {
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol)) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error()).context("open a raw socket");
        }
        // SAFETY: the descriptor was just made and has no other owner.
        let socket = UdpSocket::from(unsafe { OwnedFd::from_raw_fd(fd) });
        socket
            .send_to(bytes, SocketAddr::new(to, 0))
            .with_context(|| format!("protocol {protocol} to {to}"))?;
        Ok(())
    })
}

/// The first packet of an association (RFC 9260): common header and an INIT chunk.
pub(crate) fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend([0; 8]); // verification tag and checksum
    bytes.extend([1, 0, 0, 20]); // INIT, 20 bytes
    bytes.extend([0, 0, 0, 1]); // initiate tag
    bytes.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]); // window, streams, first number
    let sum = crc32c(&bytes).to_le_bytes();
    bytes[8..12].copy_from_slice(&sum);
    bytes
}

/// GRE with a key (RFC 2890) and no payload.
fn gre(key: u16) -> Vec<u8> {
    let mut bytes = vec![0x20, 0, 0x08, 0x00, 0, 0];
    bytes.extend(key.to_be_bytes());
    bytes
}
