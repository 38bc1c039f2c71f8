//! One configuration, ready to be measured: a bed with two pods, both load generators, and what translates.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::load::{Cpus, SERVER_PORT, STREAM_PORT};
use super::nftables::{ServicePort, ruleset};
use super::{Config, Metric};
use crate::agent::{Agent, AgentOptions};
use crate::manifests::{EndpointSlice, Service, join};
use crate::netns::sysctl;
use crate::process::{self, Proc};
use crate::topology::{Bed, Node, Pod, PodOptions};

/// Address of the Service that is used.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Port of the Service that is used; it leads to [`SERVER_PORT`].
const SERVICE_PORT: u16 = 80;

/// Endpoints of each Service that is not used.
const ENDPOINTS: u32 = 5;

/// Time for the agent to write the maps for all Services.
const PROGRAM: Duration = Duration::from_secs(120);

/// Dropped in order: processes first, the bed last.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) config: Config,
    pub(super) services: u32,
    _servers: Vec<Proc>,
    _agent: Option<Agent>,
    client: Pod,
    server: Pod,
    cpus: Option<Cpus>,
    _bed: Bed,
}

impl Rig {
    pub(super) fn new(config: Config, services: u32, cpus: Option<Cpus>) -> Result<Self> {
        let mut bed = Bed::new("bench")?;
        let node = bed.add_node("node")?;
        let client = bed.add_pod(&node, "client", PodOptions::default())?;
        let server = bed.add_pod(&node, "server", PodOptions::default())?;
        client.ns.run(|| {
            // Thousands of connections in a second to one address: all ports, and again after a second.
            sysctl("ipv4/ip_local_port_range", "1024 65535")?;
            sysctl("ipv4/tcp_tw_reuse", "1")
        })?;
        let agent = match config {
            Config::Direct => None,
            Config::Nftables => load_rules(&bed, &node, &server, services).map(|()| None)?,
            Config::Lbr | Config::LbrPod => Some(start_agent(&mut bed, &node, &server, services)?),
        };
        let cpu = cpus.map(|c| c.server);
        let servers = vec![start_server(&server, cpu)?, start_iperf(&server, cpu)?];
        Ok(Self { config, services, _servers: servers, _agent: agent, client, server, cpus, _bed: bed })
    }

    /// One measurement.
    pub(super) fn measure(&self, metric: Metric, time: Duration) -> Result<f64> {
        let through = matches!(self.config, Config::Nftables | Config::Lbr);
        let ip = if through { SERVICE } else { self.server.v4 };
        let port = match (metric, through) {
            (Metric::TcpStream, _) => STREAM_PORT,
            (_, true) => SERVICE_PORT,
            (_, false) => SERVER_PORT,
        };
        let mut command = if metric == Metric::TcpStream {
            let mut command = self.client.ns.command("iperf3")?;
            command.args(["-J", "-O", "0.1", "-t", &time.as_secs_f64().ceil().to_string(), "-c"]);
            command.arg(ip.to_string());
            command
        } else {
            let mut command = self.client.ns.command(std::env::current_exe()?)?;
            let target = SocketAddr::new(ip.into(), port).to_string();
            command.args(["__client", &metric.to_string(), &target, &time.as_secs_f64().to_string()]);
            command
        };
        place(&mut command, self.cpus.map(|c| c.client));
        process::die_with_parent(&mut command);
        let output = process::run(&mut command)?;
        if metric == Metric::TcpStream {
            let report: serde_json::Value =
                serde_json::from_slice(&output.stdout).context("iperf3's JSON")?;
            let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
            return rate.with_context(|| format!("iperf3 reports no rate: {}", report["error"]));
        }
        let text = String::from_utf8(output.stdout)?;
        text.trim().parse().with_context(|| format!("a number was expected: {text}"))
    }
}

/// Lets a command run on one CPU.
fn place(command: &mut Command, cpu: Option<usize>) {
    use std::os::unix::process::CommandExt as _;
    let Some(cpu) = cpu else { return };
    // SAFETY: between fork and exec only the system call sched_setaffinity runs, on a set on the stack.
    unsafe {
        command.pre_exec(move || super::load::pin(cpu).map_err(|_| std::io::ErrorKind::InvalidInput.into()));
    }
}

fn start_server(pod: &Pod, cpu: Option<usize>) -> Result<Proc> {
    let mut command = pod.ns.command(std::env::current_exe()?)?;
    command.args(["__server", &pod.v4.to_string()]).stdout(Stdio::piped());
    place(&mut command, cpu);
    let mut process = Proc::spawn(&mut command)?;
    let pipe = process.child().stdout.take().context("no pipe from the server")?;
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line)?;
    ensure!(line == "ready\n", "the server of the benchmark did not start");
    Ok(process)
}

fn start_iperf(pod: &Pod, cpu: Option<usize>) -> Result<Proc> {
    let mut command = pod.ns.command("iperf3")?;
    command.args(["-s", "-B", &pod.v4.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    place(&mut command, cpu);
    let process = Proc::spawn(&mut command).context("iperf3 is needed for tcp_stream")?;
    let at = SocketAddr::new(pod.v4.into(), STREAM_PORT);
    for _ in 0..200 {
        if pod.ns.run(|| Ok(std::net::TcpStream::connect(at).is_ok()))? {
            return Ok(process);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("iperf3 does not listen on {at}")
}

/// The Service that is used, with its one endpoint: the same server that `direct` talks to.
fn used(server: &Pod) -> [ServicePort; 3] {
    let ports = [
        ("tcp", SERVICE_PORT, SERVER_PORT),
        ("udp", SERVICE_PORT, SERVER_PORT),
        ("tcp", STREAM_PORT, STREAM_PORT),
    ];
    ports.map(|(protocol, port, target)| ServicePort {
        name: "default/used".to_owned(),
        address: SERVICE,
        protocol,
        port,
        endpoints: vec![(server.v4, target)],
    })
}

/// A Service that nobody talks to.
fn unused(number: u32) -> ServicePort {
    // 10.97.0.0 on, and endpoints in 10.200.0.0/13, outside of the pods' network.
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 97, 0, 0)) + number);
    let first = u32::from(Ipv4Addr::new(10, 200, 0, 0)) + number * ENDPOINTS;
    ServicePort {
        name: format!("default/unused-{number}"),
        address,
        protocol: "tcp",
        port: 80,
        endpoints: (0..ENDPOINTS).map(|n| (Ipv4Addr::from(first + n), 8080)).collect(),
    }
}

fn load_rules(bed: &Bed, node: &Node, server: &Pod, services: u32) -> Result<()> {
    let all: Vec<ServicePort> = used(server).into_iter().chain((1..services).map(unused)).collect();
    let path = bed.folder().join("rules.nft");
    std::fs::write(&path, ruleset(&all))?;
    process::run(node.ns.command("nft")?.arg("-f").arg(&path)).context("load the nftables rules").map(drop)
}

fn start_agent(bed: &mut Bed, node: &Node, server: &Pod, services: u32) -> Result<Agent> {
    let used_service = Service::new("used", &[SERVICE.into()])
        .port("tcp", "TCP", SERVICE_PORT, SERVER_PORT)
        .port("udp", "UDP", SERVICE_PORT, SERVER_PORT)
        .port("stream", "TCP", STREAM_PORT, STREAM_PORT);
    let slice = EndpointSlice::new("used-1", "used", false)
        .port("tcp", "TCP", SERVER_PORT)
        .port("udp", "UDP", SERVER_PORT)
        .port("stream", "TCP", STREAM_PORT)
        .addresses([IpAddr::V4(server.v4)]);
    let mut files = vec![("used.yaml".to_owned(), join([used_service.yaml(), slice.yaml()]))];
    let numbers: Vec<u32> = (1..services).collect();
    for (file, chunk) in numbers.chunks(500).enumerate() {
        let documents = chunk.iter().flat_map(|number| {
            let service = unused(*number);
            let name = format!("unused-{number}");
            let ips = service.endpoints.iter().map(|(ip, _)| IpAddr::V4(*ip));
            [
                Service::new(&name, &[service.address.into()]).port("", "TCP", service.port, 8080).yaml(),
                EndpointSlice::new(&format!("{name}-1"), &name, false)
                    .port("", "TCP", 8080)
                    .addresses(ips)
                    .yaml(),
            ]
        });
        files.push((format!("unused-{file}.yaml"), join(documents)));
    }
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let agent = Agent::start_with(bed, node, &AgentOptions::default(), &files)?;
    let client = crate::probe::Client::new(&node.ns);
    let _ = client;
    let ports = usize::try_from(services)? + 2;
    agent.wait_for("services", PROGRAM, |shown| shown.as_array().is_some_and(|all| all.len() >= ports))?;
    Ok(agent)
}
