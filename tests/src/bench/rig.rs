//! One configuration, ready for measurements: a bed with two pods, both load generators, and the proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use lbr_common::addr::Family;

use super::load::{Cpus, SERVER_PORT, STREAM_PORT};
use super::nftables::{self, ServicePort};
use super::{Config, Metric, ends};
use crate::agent::{Agent, AgentOptions};
use crate::manifests::{EndpointSlice, Service, join};
use crate::process::Proc;
use crate::topology::{Bed, Node, Pod, PodOptions};

/// Address of the measured Service.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Port of the measured Service; it leads to [`SERVER_PORT`].
const SERVICE_PORT: u16 = 80;

/// Endpoints of each unused Service.
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
        ends::prepare_client(&client.ns)?;
        let agent = match config {
            Config::Direct => None,
            Config::Nftables => load_rules(&bed, &node, &server, services).map(|()| None)?,
            Config::Lbr | Config::LbrPod => Some(start_agent(&mut bed, &node, &server, services)?),
        };
        let cpu = cpus.map(|c| c.server);
        let servers = ends::start(&server.ns, server.v4.into(), cpu)?;
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
        let cpu = self.cpus.map(|c| c.client);
        ends::ask(&self.client.ns, metric, SocketAddr::new(ip.into(), port), time, cpu)
    }
}

/// The measured Service, with its one endpoint: the same server that `direct` uses.
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
        node_port: None,
    })
}

/// A Service without clients.
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
        node_port: None,
    }
}

fn load_rules(bed: &Bed, node: &Node, server: &Pod, services: u32) -> Result<()> {
    let all: Vec<ServicePort> = used(server).into_iter().chain((1..services).map(unused)).collect();
    nftables::load(bed, node, &all, &[])
}

fn start_agent(bed: &mut Bed, node: &Node, server: &Pod, services: u32) -> Result<Agent> {
    let used_service = Service::new("used", &[SERVICE.into()])
        .port("tcp", "TCP", SERVICE_PORT, SERVER_PORT)
        .port("udp", "UDP", SERVICE_PORT, SERVER_PORT)
        .port("stream", "TCP", STREAM_PORT, STREAM_PORT);
    let slice = EndpointSlice::new("used-1", "used", Family::V4)
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
                EndpointSlice::new(&format!("{name}-1"), &name, Family::V4)
                    .port("", "TCP", 8080)
                    .addresses(ips)
                    .yaml(),
            ]
        });
        files.push((format!("unused-{file}.yaml"), join(documents)));
    }
    let files: Vec<(&str, String)> = files.iter().map(|(name, text)| (name.as_str(), text.clone())).collect();
    let agent = Agent::start_with(bed, node, &AgentOptions::default(), &files)?;
    let ports = usize::try_from(services)? + 2;
    agent.wait_for("services", PROGRAM, |shown| shown.as_array().is_some_and(|all| all.len() >= ports))?;
    Ok(agent)
}
