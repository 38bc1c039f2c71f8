//! The two Services, one for each place of a backend, for either proxy.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::Result;
use lbr_common::addr::Family;

use super::Place;
use crate::agent::{Agent, AgentOptions};
use crate::bench::load::{SERVER_PORT, STREAM_PORT};
use crate::bench::nftables::{self, ServicePort};
use crate::manifests::{self, Endpoint, EndpointSlice, Service, join};
use crate::topology::{Bed, Node, Pod};

/// A port that no server reads: arrivals are counted in the stack.
pub(super) const SINK_PORT: u16 = 9000;
/// The longest time until an agent has written its maps.
const PROGRAM: Duration = Duration::from_secs(30);

/// The NodePort that leads to a port of the backend.
pub(super) fn node_port(place: Place, port: u16) -> u16 {
    let first = match place {
        Place::Here => 30_000,
        Place::There => 31_000,
    };
    first + port % 1_000
}

/// Protocol and number of the ports at a backend.
const PORTS: [(&str, u16); 4] =
    [("TCP", SERVER_PORT), ("UDP", SERVER_PORT), ("TCP", STREAM_PORT), ("UDP", SINK_PORT)];

/// The ClusterIP of a Service, which is not used here.
fn cluster_ip(place: Place) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, 10 + place as u8)
}

/// Loads the rules of kube-proxy.
pub(super) fn load_rules(bed: &Bed, node: &Node, backends: &[Pod; 2]) -> Result<()> {
    let both = Place::ALL.into_iter().zip(backends);
    let services: Vec<ServicePort> = both.flat_map(|(place, pod)| service_ports(place, pod)).collect();
    nftables::load(bed, node, &services, &[node.v4])
}

fn service_ports(place: Place, pod: &Pod) -> impl Iterator<Item = ServicePort> {
    PORTS.into_iter().map(move |(protocol, port)| ServicePort {
        name: format!("default/{}", place.name()),
        address: cluster_ip(place),
        protocol: if protocol == "TCP" { "tcp" } else { "udp" },
        port,
        endpoints: vec![(pod.v4, port)],
        node_port: Some(node_port(place, port)),
    })
}

/// Starts lbr, with this value of its flag `--xdp`. It knows the nodes and the pods, as in a cluster.
pub(super) fn start_agent(
    bed: &mut Bed,
    node: &Node,
    backends: &[Pod; 2],
    xdp: Option<&str>,
) -> Result<Agent> {
    let mut documents: Vec<String> = bed.nodes().values().map(|node| manifests::node(node, None)).collect();
    for (place, pod) in Place::ALL.into_iter().zip(backends) {
        documents.push(manifests::pod(pod));
        let name = place.name();
        let mut service = Service::new(name, &[cluster_ip(place).into()]).spec("type: NodePort");
        let mut slice = EndpointSlice::new(&format!("{name}-1"), name, Family::V4);
        for (number, (protocol, port)) in PORTS.into_iter().enumerate() {
            let (port_name, at_nodes) = (format!("p{number}"), node_port(place, port));
            service = service.port(&port_name, protocol, port, port).node_port(at_nodes);
            slice = slice.port(&port_name, protocol, port);
        }
        let endpoint = Endpoint::new(IpAddr::V4(pod.v4)).node(&pod.node);
        documents.extend([service.yaml(), slice.endpoint(endpoint).yaml()]);
    }
    let arguments = xdp.map(|mode| format!("--xdp={mode}")).into_iter().collect();
    let options = AgentOptions { arguments, ..AgentOptions::default() };
    let agent = Agent::start_with(bed, node, &options, &[("cluster.yaml", join(documents))])?;
    let ports = PORTS.len() * backends.len();
    agent.wait_for("services", PROGRAM, |shown| shown.as_array().is_some_and(|all| all.len() >= ports))?;
    Ok(agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_one_at_nodes_of_its_own() {
        let mut all: Vec<(&str, u16)> = Place::ALL
            .iter()
            .flat_map(|place| PORTS.map(|(protocol, port)| (protocol, node_port(*place, port))))
            .collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 2 * PORTS.len());
        assert!(all.iter().all(|(_, port)| (30_000..32_768).contains(port)), "{all:?}");
    }
}
