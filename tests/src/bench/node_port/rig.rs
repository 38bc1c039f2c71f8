//! One configuration, ready for measurements: a client, two nodes with a backend each, and the way from a port of the
//! first node to both.

use std::net::{SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::services::{SINK_PORT, load_rules, node_port, start_agent};
use super::{Config, Place};
use crate::agent::Agent;
use crate::bench::Metric;
use crate::bench::ends;
use crate::bench::generate::{Frame, Sent, Wire, link_address};
use crate::bench::load::{self, Cpus, SERVER_PORT, STREAM_PORT};
use crate::bench::report::Measured;
use crate::interrupt;
use crate::netns::{Netns, sysctl};
use crate::process::Proc;
use crate::topology::{Bed, BedOptions, Host, Node, Pod, PodOptions};

/// Flows of [`Metric::UdpPps`].
const FLOWS: u32 = 256;
/// New clients of [`Metric::UdpNew`] in a second: as many as at a busy DNS server.
const NEW_CLIENTS: u32 = 10_000;
/// Time between two groups of them.
const PACE: Duration = Duration::from_millis(1);
/// Time after which every packet has arrived or is lost.
const DRAIN: Duration = Duration::from_millis(10);

/// Dropped in order: processes first, the bed last.
pub(super) struct Rig {
    config: Config,
    _servers: Vec<Proc>,
    _sinks: Vec<UdpSocket>,
    _agents: Vec<Agent>,
    /// Number of the next client of [`Metric::UdpNew`].
    next_client: AtomicU32,
    client: Host,
    nodes: [Node; 2],
    backends: [Pod; 2],
    cpus: Option<Cpus>,
    bed: Bed,
}

impl Rig {
    pub(super) fn new(config: &Config, cpus: Option<Cpus>) -> Result<Self> {
        // Only a wire accepts frames from XDP.
        let wires = matches!(config, Config::Lbr(Some(mode)) if mode != "off");
        let mut bed = Bed::with("node-port", BedOptions { wires, ..BedOptions::default() })?;
        let nodes = [bed.add_node("a")?, bed.add_node("b")?];
        let mut backends = Vec::new();
        for (node, place) in nodes.iter().zip(Place::ALL) {
            backends.push(bed.add_pod(node, place.name(), PodOptions::default())?);
        }
        let backends: [Pod; 2] = backends.try_into().ok().context("a backend on each node")?;
        let client = bed.add_client("client")?;
        ends::prepare_client(&client.ns)?;
        lead_both_ways(&bed, &nodes, &client)?;
        let mut agents = Vec::new();
        for node in &nodes {
            match config {
                Config::Direct => {}
                Config::Nftables => load_rules(&bed, node, &backends)?,
                Config::Lbr(xdp) => agents.push(start_agent(&mut bed, node, &backends, xdp.as_deref())?),
            }
        }
        let (mut servers, mut sinks) = (Vec::new(), Vec::new());
        for pod in &backends {
            servers.extend(ends::start(&pod.ns, pod.v4.into(), cpus.map(|c| c.server))?);
            sinks.push(pod.ns.run(|| Ok(UdpSocket::bind((pod.v4, SINK_PORT))?))?);
        }
        let (config, _servers, _sinks, _agents) = (config.clone(), servers, sinks, agents);
        Ok(Self {
            config,
            _servers,
            _sinks,
            _agents,
            next_client: AtomicU32::new(0),
            client,
            nodes,
            backends,
            cpus,
            bed,
        })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// One measurement.
    pub(super) fn measure(&self, place: Place, metric: Metric, time: Duration) -> Result<Measured> {
        match metric {
            Metric::UdpPps | Metric::UdpNew => self.count(place, metric, time),
            _ => {
                let port = if metric == Metric::TcpStream { STREAM_PORT } else { SERVER_PORT };
                let cpu = self.cpus.map(|c| c.client);
                let value = ends::ask(&self.client.ns, metric, self.target(place, port).into(), time, cpu)?;
                Ok(Measured { value, lost: None })
            }
        }
    }

    /// The address where the client reaches a port of the backend.
    fn target(&self, place: Place, port: u16) -> SocketAddrV4 {
        match self.config {
            Config::Direct => SocketAddrV4::new(self.backend(place).v4, port),
            _ => SocketAddrV4::new(self.nodes[0].v4, node_port(place, port)),
        }
    }

    fn backend(&self, place: Place) -> &Pod {
        &self.backends[place as usize]
    }

    /// Sends frames into the first node's uplink, and counts those that reach the backend.
    fn count(&self, place: Place, metric: Metric, time: Duration) -> Result<Measured> {
        let node = &self.nodes[0];
        let to = self.target(place, SINK_PORT);
        let via = node.ns.run(|| link_address("eth0"))?;
        let (sent, arrived) = self.bed.fabric().run(|| {
            if let Some(cpus) = self.cpus {
                load::pin(cpus.client)?;
            }
            let link = node.wire();
            let frame = Frame::new(link_address(&link)?, via, to)?;
            let wire = Wire::open(nix::net::if_::if_nametoindex(link.as_str())?)?;
            match metric {
                Metric::UdpNew => self.begin_flows(&wire, &frame, place, time),
                _ => self.stream(&wire, &frame, place, time),
            }
        })?;
        ensure!(arrived > 0, "of {} frames none arrived", sent.frames);
        // Other arrivals meanwhile are a packet or two.
        let arrived = arrived.min(sent.frames) as f64;
        let lost = 1.0 - arrived / sent.frames as f64;
        Ok(Measured { value: arrived / sent.time.as_secs_f64(), lost: Some(lost) })
    }

    /// Packets of known flows.
    fn stream(&self, wire: &Wire, frame: &Frame, place: Place, time: Duration) -> Result<(Sent, u64)> {
        let pod = &self.backend(place).ns;
        wire.send(frame, 0..FLOWS, |_| false)?;
        std::thread::sleep(DRAIN);
        let before = delivered(pod)?;
        let sent = wire.send(frame, (0..FLOWS).cycle(), |spent| spent >= time)?;
        std::thread::sleep(DRAIN);
        Ok((sent, delivered(pod)?.saturating_sub(before)))
    }

    /// Packets of new clients at [`NEW_CLIENTS`], for this time. No client repeats, and no flow is removed for it:
    /// earlier flows keep their entries.
    fn begin_flows(&self, wire: &Wire, frame: &Frame, place: Place, time: Duration) -> Result<(Sent, u64)> {
        let pod = &self.backend(place).ns;
        let (begin, before, mut all) = (Instant::now(), delivered(pod)?, Sent::default());
        while begin.elapsed() < time {
            interrupt::check()?;
            let due = (begin.elapsed().as_secs_f64() * f64::from(NEW_CLIENTS)) as u64;
            let missing = u32::try_from(due.saturating_sub(all.frames)).unwrap_or(u32::MAX);
            if missing > 0 {
                let first = self.next_client.fetch_add(missing, Ordering::Relaxed);
                all.frames += wire.send(frame, first..first.saturating_add(missing), |_| false)?.frames;
            }
            std::thread::sleep(PACE);
        }
        all.time = begin.elapsed();
        std::thread::sleep(DRAIN);
        Ok((all, delivered(pod)?.saturating_sub(before)))
    }
}

/// Routes the pods' own addresses, and their packets to clients, by the first node.
fn lead_both_ways(bed: &Bed, nodes: &[Node; 2], client: &Host) -> Result<()> {
    let [asked, other] = nodes;
    let routes = nodes.iter().map(|node| format!("route add {} via {}", node.pod_cidrs()[0], asked.v4));
    bed.fabric().ip(routes)?;
    other.ns.ip([format!("route add {} via {}", client.v4, asked.v4)])?;
    // It sends packets out where they came in: the senders should get no redirects.
    asked.ns.run(|| {
        sysctl("ipv4/conf/all/send_redirects", "0")?;
        sysctl("ipv4/conf/eth0/send_redirects", "0")
    })
}

/// IPv4 packets that were delivered to a protocol in this namespace: `Ip: InDelivers` (RFC 4293).
fn delivered(ns: &Netns) -> Result<u64> {
    let text = ns.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    in_delivers(&text).context("no InDelivers in /proc/net/snmp")
}

fn in_delivers(snmp: &str) -> Option<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|name| name == "InDelivers")?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delivered_packets_are_read_by_the_name_of_the_column() {
        let text = "Ip: Forwarding InReceives InDelivers OutRequests\nIp: 1 70 69 8\nIcmp: InMsgs\nIcmp: 0\n";
        assert_eq!(in_delivers(text), Some(69));
        assert_eq!(in_delivers("Ip: Forwarding\nIp: 1\n"), None);
    }
}
