//! Both ends of a measurement as processes: the servers at a backend, and the generator at a client.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::Metric;
use super::load::{self, STREAM_PORT};
use crate::netns::{Netns, sysctl};
use crate::process::{self, Proc};

/// Prepares a client for thousands of connections a second to one address: all ports, and each again after a second.
pub(super) fn prepare_client(ns: &Netns) -> Result<()> {
    ns.run(|| {
        sysctl("ipv4/ip_local_port_range", "1024 65535")?;
        sysctl("ipv4/tcp_tw_reuse", "1")
    })
}

/// Starts the servers on this CPU.
pub(super) fn start(ns: &Netns, address: IpAddr, cpu: Option<usize>) -> Result<Vec<Proc>> {
    Ok(vec![start_server(ns, address, cpu)?, start_iperf(ns, address, cpu)?])
}

/// One measurement from this CPU: transactions or bits per second.
pub(super) fn ask(
    ns: &Netns,
    metric: Metric,
    target: SocketAddr,
    time: Duration,
    cpu: Option<usize>,
) -> Result<f64> {
    let mut command = if metric == Metric::TcpStream {
        let mut command = ns.command("iperf3")?;
        let (seconds, port) = (time.as_secs_f64().ceil().to_string(), target.port().to_string());
        command.args(["-J", "-O", "0.1", "-t", &seconds, "-p", &port, "-c", &target.ip().to_string()]);
        command
    } else {
        let mut command = ns.command(std::env::current_exe()?)?;
        let seconds = time.as_secs_f64().to_string();
        command.args(["__client", &metric.to_string(), &target.to_string(), &seconds]);
        command
    };
    place(&mut command, cpu);
    process::die_with_parent(&mut command);
    let output = process::run(&mut command)?;
    if metric == Metric::TcpStream {
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("iperf3's JSON")?;
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        return rate.with_context(|| format!("iperf3 reports no rate: {}", report["error"]));
    }
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().with_context(|| format!("a number was expected: {text}"))
}

fn start_server(ns: &Netns, address: IpAddr, cpu: Option<usize>) -> Result<Proc> {
    let mut command = ns.command(std::env::current_exe()?)?;
    command.args(["__server", &address.to_string()]).stdout(Stdio::piped());
    place(&mut command, cpu);
    let mut process = Proc::spawn(&mut command)?;
    let pipe = process.child().stdout.take().context("no pipe from the server")?;
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line)?;
    ensure!(line == "ready\n", "the server of the benchmark did not start");
    Ok(process)
}

fn start_iperf(ns: &Netns, address: IpAddr, cpu: Option<usize>) -> Result<Proc> {
    let mut command = ns.command("iperf3")?;
    command.args(["-s", "-B", &address.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    place(&mut command, cpu);
    let process = Proc::spawn(&mut command).context("iperf3 is needed for tcp_stream")?;
    let at = SocketAddr::new(address, STREAM_PORT);
    for _ in 0..200 {
        if ns.run(|| Ok(std::net::TcpStream::connect(at).is_ok()))? {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("iperf3 does not listen on {at}")
}

/// Lets a command run on one CPU.
fn place(command: &mut Command, cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    // SAFETY: between fork and exec only the system call sched_setaffinity runs, on a set on the stack.
    unsafe {
        command.pre_exec(move || load::pin(cpu).map_err(|_| std::io::ErrorKind::InvalidInput.into()));
    }
}
