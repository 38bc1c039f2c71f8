//! Servers in a pod, on threads of this process.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};

use super::{Identity, WHO, digest};
use crate::netns::Netns;
use crate::topology::Pod;

/// A server for TCP and UDP until it is dropped.
///
/// TCP, line by line: `who` → its [`Identity`]; `bulk N` and N bytes → their digest. UDP: `who` → its identity; any
/// other datagram is echoed.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listening: Vec<OwnedFd>,
    threads: Vec<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    stop: AtomicBool,
    served: AtomicUsize,
    streams: Mutex<BTreeMap<usize, TcpStream>>,
}

impl Server {
    /// Starts in a pod, on both its addresses, with the pod's name.
    pub fn pod(pod: &Pod, port: u16) -> Result<Self> {
        Self::start(&pod.ns, &pod.name, &pod.addresses(), port)
    }

    /// Starts in a namespace, on each of the addresses. It listens when this returns.
    pub fn start(ns: &Netns, name: &str, addresses: &[IpAddr], port: u16) -> Result<Self> {
        let sockets = ns.run(|| {
            let bind = |ip: &IpAddr| {
                let at = SocketAddr::new(*ip, port);
                let tcp = TcpListener::bind(at).with_context(|| format!("listen on {at}/TCP"))?;
                let udp = UdpSocket::bind(at).with_context(|| format!("bind {at}/UDP"))?;
                Ok((tcp, udp))
            };
            addresses.iter().map(bind).collect::<Result<Vec<_>>>()
        })?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            served: AtomicUsize::new(0),
            streams: Mutex::default(),
        });
        let mut server = Self { shared, listening: Vec::new(), threads: Vec::new() };
        for (tcp, udp) in sockets {
            server.listening.push(tcp.try_clone()?.into());
            server.listening.push(udp.try_clone()?.into());
            let (for_tcp, for_udp) = (server.shared.clone(), server.shared.clone());
            server.threads.push(std::thread::spawn(move || accept(&for_tcp, &tcp)));
            server.threads.push(std::thread::spawn(move || datagrams(&for_udp, &udp)));
        }
        Ok(server)
    }

    /// Connections accepted and datagrams answered so far.
    pub fn served(&self) -> usize {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// Ends every TCP connection; new ones are still served.
    pub fn hang_up(&self) {
        for stream in self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for socket in &self.listening {
            // Wakes the thread that waits in accept or recv. On UDP the call fails with ENOTCONN, but wakes the
            // thread all the same.
            let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
        self.hang_up();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((stream, peer)) = listener.accept() else { continue };
        let number = shared.served.fetch_add(1, Ordering::Relaxed);
        let streams = || shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams().insert(number, stream.try_clone()?);
        let shared = shared.clone();
        std::thread::spawn(move || {
            // The client decides when a connection ends, and how.
            let _ = serve(&shared, &stream, peer);
            shared.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        });
    }
    Ok(())
}

fn serve(shared: &Shared, mut stream: &TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let identity = Identity { name: shared.name.clone(), peer, local };
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        match line.trim_end().strip_prefix("bulk ") {
            Some(count) => {
                let sum = absorb(&mut reader, count.parse()?)?;
                writeln!(stream, "{sum}")?;
            }
            None => writeln!(stream, "{identity}")?,
        }
        line.clear();
    }
    Ok(())
}

/// Reads exactly `count` bytes.
fn absorb(reader: &mut impl io::Read, count: u64) -> Result<u64> {
    let (mut left, mut sum, mut buffer) = (reader.take(count), 0, vec![0; 65_536]);
    loop {
        match left.read(&mut buffer)? {
            0 => return Ok(sum),
            n => sum = digest(sum, &buffer[..n]),
        }
    }
}

fn datagrams(shared: &Shared, socket: &UdpSocket) -> Result<()> {
    let local = socket.local_addr()?;
    let mut buffer = vec![0; 65_536];
    while !shared.stop.load(Ordering::Relaxed) {
        // An ICMP error about an earlier answer is reported here too.
        let Ok((len, peer)) = socket.recv_from(&mut buffer) else { continue };
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        shared.served.fetch_add(1, Ordering::Relaxed);
        let identity = Identity { name: shared.name.clone(), peer, local }.to_string();
        let answer = if buffer[..len] == *WHO.as_bytes() { identity.as_bytes() } else { &buffer[..len] };
        let _ = socket.send_to(answer, peer);
    }
    Ok(())
}
