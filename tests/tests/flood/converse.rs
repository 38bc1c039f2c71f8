//! Connections on which each byte is echoed.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lbr_tests::netns::Netns;

use crate::rig::{PORT, Rig};

/// Time between two bytes of a connection.
const INTERVAL: Duration = Duration::from_millis(100);
/// Time between two checks of all connections.
const LOOK: Duration = Duration::from_millis(5);
/// Time for segments on their way, and for TCP's retransmissions, after the flood.
const DRAIN: Duration = Duration::from_secs(20);

/// A connection, and how many bytes were sent and echoed.
struct Conversation {
    stream: TcpStream,
    to: SocketAddr,
    sent: u64,
    echoed: u64,
}

/// All connections, established.
pub(crate) struct Conversations {
    all: Vec<Conversation>,
    server: Vec<TcpStream>,
    listener: TcpListener,
}

/// The same, with threads for both ends.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    is_over: Arc<AtomicBool>,
    client: JoinHandle<Result<Vec<Conversation>>>,
    server: JoinHandle<Result<()>>,
    /// Kept, so that the flood meets a listening server.
    _listener: TcpListener,
}

impl Conversations {
    /// So many of each kind: from a pod and from outside, to the server itself and to its Service.
    pub(crate) fn open(rig: &Rig, each: usize) -> Result<Self> {
        let listener =
            rig.server.ns.run(|| Ok(TcpListener::bind(SocketAddr::new(rig.server.v4.into(), PORT))?))?;
        let [direct, node_port, cluster_ip] = rig.addresses();
        let kinds: [(&Netns, SocketAddr); 4] = [
            (&rig.client.ns, direct),
            (&rig.client.ns, cluster_ip),
            (&rig.outside.ns, direct),
            (&rig.outside.ns, node_port),
        ];
        let (mut all, mut server) = (Vec::new(), Vec::new());
        for (ns, to) in kinds {
            for _ in 0..each {
                let connect = || Ok(TcpStream::connect_timeout(&to, Duration::from_secs(5))?);
                let stream = ns.run(connect).with_context(|| to.to_string())?;
                let (accepted, _) = listener.accept()?;
                for stream in [&stream, &accepted] {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                }
                all.push(Conversation { stream, to, sent: 0, echoed: 0 });
                server.push(accepted);
            }
        }
        Ok(Self { all, server, listener })
    }

    pub(crate) fn begin(self) -> Running {
        let (stop, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (told, over) = (stop.clone(), is_over.clone());
        let Self { all, server, listener } = self;
        let client = std::thread::spawn(move || ask(all, &told));
        let server = std::thread::spawn(move || echo(&server, &over));
        Running { stop, is_over, client, server, _listener: listener }
    }
}

impl Running {
    /// Waits for the last echoes. Returns how many bytes were sent and echoed.
    pub(crate) fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let exchanged = self.client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
        self.is_over.store(true, Ordering::Relaxed);
        let served = self.server.join().map_err(|_| anyhow::anyhow!("the server panicked"))?;
        // Closed only after the server has ended.
        let all = exchanged?;
        served.context("server")?;
        Ok(all.iter().map(|one| one.echoed).sum())
    }
}

fn ask(mut all: Vec<Conversation>, stop: &AtomicBool) -> Result<Vec<Conversation>> {
    let mut next = Instant::now();
    let mut end = None;
    loop {
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(Instant::now() + DRAIN);
        }
        let is_time = end.is_none() && Instant::now() >= next;
        if is_time {
            next += INTERVAL;
        }
        for one in &mut all {
            let (to, from) = (one.to, one.stream.local_addr()?);
            let what = || format!("connection from {from} to {to}");
            if is_time {
                one.stream.write_all(&[one.sent as u8]).with_context(what)?;
                one.sent += 1;
            }
            let mut buffer = [0; 64];
            let count = read(&one.stream, &mut buffer).with_context(what)?;
            for byte in &buffer[..count] {
                ensure!(*byte == one.echoed as u8, "{}: byte {} is {byte}", what(), one.echoed);
                one.echoed += 1;
            }
        }
        let missing = all.iter().find(|one| one.echoed < one.sent);
        match (end, missing) {
            (Some(_), None) => return Ok(all),
            (Some(end), Some(one)) if Instant::now() > end => {
                anyhow::bail!("to {}: {} of {} bytes came back", one.to, one.echoed, one.sent)
            }
            _ => std::thread::sleep(LOOK),
        }
    }
}

fn echo(all: &[TcpStream], is_over: &AtomicBool) -> Result<()> {
    while !is_over.load(Ordering::Relaxed) {
        for mut stream in all {
            let mut buffer = [0; 64];
            let count = read(stream, &mut buffer)?;
            stream.write_all(&buffer[..count])?;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// The bytes that have arrived; 0 if there are none yet.
fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
    match stream.read(buffer) {
        Ok(0) => anyhow::bail!("the other side has closed"),
        Ok(count) => Ok(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        Err(error) => Err(error.into()),
    }
}
