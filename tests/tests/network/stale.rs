//! Connected UDP sockets of the node's processes whose endpoint goes: they fail, and connect again. All others go on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::probe::{Client, Identity, ask_on};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};

use crate::catalog::{CYCLE, ONE, simple};
use crate::sockets::process;
use crate::world::{PORT, World, at, ends, soon, until};

/// Makes this backend the only endpoint of the Service, and waits for it.
fn lead_to(world: &World, backend: usize) -> Result<()> {
    let pods = [&world.backends[backend]];
    world.write("cycle.yaml", &simple("cycle", CYCLE, &pods, PORT))?;
    world.wait_for("cycle", &ends(&pods, PORT)).map(drop)
}

fn ask(socket: &UdpSocket) -> Result<String> {
    socket.send(b"who")?;
    let mut buffer = [0; 256];
    let len = socket.recv(&mut buffer)?;
    Ok(std::str::from_utf8(&buffer[..len])?.parse::<Identity>()?.name)
}

fn connected(client: &Client, family: Family, to: SocketAddr) -> Result<UdpSocket> {
    let socket = client.udp_socket(family)?;
    socket.connect(to).with_context(|| format!("connect to {to}"))?;
    Ok(socket)
}

/// Two sockets with the same addresses and ports at both ends.
fn same_ends(client: &Client, to: SocketAddr) -> Result<[UdpSocket; 2]> {
    let family = if to.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let one = |from: SocketAddr| {
        client.inside(|| {
            let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&fd, sockopt::ReusePort, &true)?;
            bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
            let socket = UdpSocket::from(fd);
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok(socket)
        })
    };
    let any: IpAddr = if to.is_ipv6() { "::" } else { "0.0.0.0" }.parse()?;
    let first = one(SocketAddr::new(any, 0))?;
    let second = one(SocketAddr::new(any, first.local_addr()?.port()))?;
    first.connect(to)?;
    second.connect(to)?;
    ensure!(first.local_addr()? == second.local_addr()?, "the test itself: other ends");
    Ok([first, second])
}

/// It fails, also for a program that only waits, and reaches the new endpoint once it has connected again.
fn is_aborted(socket: &UdpSocket, to: SocketAddr, new: &str) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    until(soon(), || {
        let failure = socket.recv(&mut [0; 256]).err().map(|error| error.kind());
        ensure!(failure == Some(ErrorKind::ConnectionAborted), "recv: {failure:?}");
        Ok(())
    })?;
    let failure = socket.peer_addr().err().map(|error| error.kind());
    ensure!(failure == Some(ErrorKind::NotConnected), "getpeername: {failure:?}");
    ensure!(socket.send(b"who").is_err(), "send without an end");
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(to)?;
    let name = ask(socket)?;
    ensure!(name == new, "answered by {name}, not by {new}");
    Ok(())
}

fn aborted_so_far(world: &World) -> Result<u64> {
    let mut text = String::new();
    world.node.ns.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:10249")?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
        stream.read_to_string(&mut text)?;
        Ok(())
    })?;
    let value = text.lines().find_map(|line| line.strip_prefix("lbr_aborted_sockets_total "));
    Ok(value.with_context(|| format!("no such metric in {text}"))?.parse()?)
}

/// Of two Services with the same pod, one loses it.
pub(crate) fn endpoint_goes(world: &mut World) -> Result<()> {
    let client = process(world)?;
    let (old, new) = (world.backends[0].clone(), world.backends[1].clone());
    for family in Family::ALL {
        lead_to(world, 0)?;
        let before = aborted_so_far(world)?;
        let to = at(CYCLE, 80)[family.index()];
        let mut stale = vec![(connected(&client, family, to)?, to)];
        stale.extend(same_ends(&client, to)?.map(|socket| (socket, to)));
        if let IpAddr::V4(ip) = to.ip() {
            let to = SocketAddr::new(ip.to_ipv6_mapped().into(), to.port());
            stale.push((connected(&client, Family::V6, to)?, to));
        }
        let other = at(ONE, 80)[family.index()];
        let pod = SocketAddr::new(old.address(family), PORT);
        let untouched = [other, pod].map(|to| Ok((connected(&client, family, to)?, to)));
        let untouched = untouched.into_iter().collect::<Result<Vec<_>>>()?;
        // It left the Service for the pod itself.
        let left = connected(&client, family, to)?;
        left.connect(pod)?;
        ensure!(left.peer_addr()? == pod, "getpeername: {} for {pod}", left.peer_addr()?);
        let stream = client.tcp_stream(to)?;
        // One of several with the same ends gets all answers.
        for (socket, to) in stale.iter().take(1).chain(stale.iter().skip(3)).chain(&untouched) {
            ensure!(ask(socket).with_context(|| format!("{to}"))? == old.name, "the test itself: {to}");
        }

        lead_to(world, 1)?;
        for (number, (socket, to)) in stale.iter().enumerate() {
            is_aborted(socket, *to, &new.name).with_context(|| format!("{to}, socket {number}"))?;
        }
        let aborted = aborted_so_far(world)? - before;
        ensure!(aborted == stale.len() as u64, "{aborted} sockets counted, not {}", stale.len());
        for (socket, to) in &untouched {
            ensure!(socket.peer_addr()? == *to, "{to}: not connected any more");
            ensure!(ask(socket).with_context(|| format!("{to}"))? == old.name, "{to}");
        }
        ensure!(ask(&left)? == old.name, "connected to the pod after a Service");
        ensure!(ask_on(&stream)?.name == old.name, "connections go on");
    }
    Ok(())
}

/// The next agent finds the sockets.
pub(crate) fn while_no_agent_runs(world: &mut World) -> Result<()> {
    let client = process(world)?;
    let new = world.backends[1].name.clone();
    lead_to(world, 0)?;
    let sockets = at(CYCLE, 80).map(|to| Ok((connected(&client, Family::of(to.ip()), to)?, to)));
    let sockets = sockets.into_iter().collect::<Result<Vec<_>>>()?;
    world.agents[0].kill();
    world.write("cycle.yaml", &simple("cycle", CYCLE, &[&world.backends[1]], PORT))?;
    world.agents[0].run()?;
    sockets.iter().try_for_each(|(socket, to)| is_aborted(socket, *to, &new))
}
