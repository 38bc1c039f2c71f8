//! The two ends of a measurement, each a process of its own: one thread, blocking calls.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::Metric;

/// Port of the load generators at the server.
pub const SERVER_PORT: u16 = 8080;

/// Port of iperf3.
pub const STREAM_PORT: u16 = 5201;

/// Time before the measurement, which warms routes, neighbours and caches.
const WARM_UP: Duration = Duration::from_millis(100);

/// Serves TCP and UDP until killed. Prints `ready` once it listens.
#[expect(clippy::print_stdout, reason = "the parent process waits for this line")]
pub fn serve(address: IpAddr) -> Result<()> {
    let at = SocketAddr::new(address, SERVER_PORT);
    let (listener, udp) = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
    println!("ready");
    std::thread::spawn(move || {
        let mut byte = [0; 16];
        loop {
            // A client that has closed is no error here.
            if let Ok((len, from)) = udp.recv_from(&mut byte) {
                let _ = udp.send_to(&byte[..len], from);
            }
        }
    });
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0; 1];
        while let Ok(1) = stream.read(&mut byte) {
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    }
}

/// Measures one metric and returns transactions per second.
pub fn ask(metric: Metric, target: SocketAddr, time: Duration) -> Result<f64> {
    match metric {
        Metric::TcpCrr => rate(time, || {
            let mut stream = TcpStream::connect(target).context("connect")?;
            exchange(&mut stream)
        }),
        Metric::TcpRr => {
            let mut stream = TcpStream::connect(target).context("connect")?;
            stream.set_nodelay(true)?;
            rate(time, || exchange(&mut stream))
        }
        Metric::UdpRr => {
            let any: IpAddr = if target.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(target)?;
            rate(time, || {
                socket.send(b"x")?;
                socket.recv(&mut [0; 16]).context("a datagram was lost")?;
                Ok(())
            })
        }
        Metric::TcpStream | Metric::UdpPps | Metric::UdpNew => bail!("another generator measures {metric}"),
    }
}

fn exchange(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0; 1]).context("no answer")
}

/// Repeats a transaction for this time, and returns the rate per second.
fn rate(time: Duration, mut transaction: impl FnMut() -> Result<()>) -> Result<f64> {
    let warm = Instant::now();
    while warm.elapsed() < WARM_UP {
        transaction()?;
    }
    let (begin, mut count) = (Instant::now(), 0_u32);
    while begin.elapsed() < time {
        transaction()?;
        count += 1;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

/// The CPUs of the two ends.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// Of the client.
    pub client: usize,
    /// Of the server.
    pub server: usize,
}

/// The first two CPUs that this process may use; with one CPU both ends share it.
pub fn cpus() -> Result<Cpus> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("read the CPU affinity")?;
    let mut usable = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let client = usable.next().context("no CPU to run on")?;
    Ok(Cpus { client, server: usable.next().unwrap_or(client) })
}

/// Pins this thread, and its children, to one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    ensure!(cpu < CpuSet::count(), "there is no CPU {cpu}");
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("run on CPU {cpu}"))
}
