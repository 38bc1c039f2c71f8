//! `--iptables-localhost-nodeports`: NodePorts at loopback addresses, for processes of the node.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::agent::{Agent, AgentOptions};
use lbr_tests::probe::{Client, Protocol, Server, is_refused};
use lbr_tests::topology::{Bed, Node, Pod, PodNetwork};

use crate::uplinks::{NODE_PORT, web};
use crate::world::PORT;

const OFF: &str = "--iptables-localhost-nodeports=false";
const ON: &str = "--iptables-localhost-nodeports=true";

/// Loopback addresses, and those that stand for them at `connect`.
const LOOPBACK: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
];

struct Stage {
    agent: Agent,
    _server: Server,
    process: Client,
    pod: Pod,
    node: Node,
    _bed: Bed,
}

impl Stage {
    fn start(name: &str, argument: &str) -> Result<Self> {
        let mut bed = Bed::new(name)?;
        let node = bed.add_node("here")?;
        let backend = bed.add_pod(&node, "backend", PodNetwork::Routed.into())?;
        let pod = bed.add_pod(&node, "client", PodNetwork::Routed.into())?;
        let server = Server::start(&backend.ns, "backend", &backend.addresses(), PORT)?;
        let options =
            AgentOptions { sockets: true, arguments: vec![argument.to_owned()], ..AgentOptions::default() };
        let files = [("web.yaml", web(backend.addresses()))];
        let agent = Agent::start_with(&mut bed, &node, &options, &files)?;
        let process = Client::new(&node.ns).cgroup(&bed.cgroup()?);
        Ok(Self { agent, _server: server, process, pod, node, _bed: bed })
    }

    /// How `bind` fails, for TCP and UDP.
    fn bind(&self, ip: IpAddr) -> Result<[Option<ErrorKind>; 2]> {
        let at = SocketAddr::new(ip, NODE_PORT);
        self.process.inside(|| {
            Ok([TcpListener::bind(at).err().map(|e| e.kind()), UdpSocket::bind(at).err().map(|e| e.kind())])
        })
    }

    /// At the node's other addresses the port is the Service's.
    fn serves_others(&self) -> Result<()> {
        for ip in self.node.addresses() {
            let to = SocketAddr::new(ip, NODE_PORT);
            for client in [&self.process, &Client::new(&self.pod.ns)] {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    ensure!(client.ask(protocol, to)?.name == "backend", "{to}");
                }
            }
            ensure!(self.bind(ip)? == IN_USE, "{ip}: bound");
        }
        for ip in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
            ensure!(self.bind(ip)? == IN_USE, "{ip}: bound, although the node's address is the Service's");
        }
        Ok(())
    }
}

const IN_USE: [Option<ErrorKind>; 2] = [Some(ErrorKind::AddrInUse); 2];

#[test]
fn node_ports_are_at_loopback_addresses_unless_switched_off() {
    let mut stage = Stage::start("loopback", OFF).unwrap();
    for ip in LOOPBACK {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let answer = stage.process.ask(protocol, SocketAddr::new(ip, NODE_PORT));
            let error = answer.map(|who| who.to_string()).unwrap_err();
            assert!(is_refused(&error), "{ip} {protocol:?}: {error:#}");
        }
    }
    stage.serves_others().unwrap();
    // The port at loopback is the node's own.
    let locals: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for ip in locals {
        assert_eq!(stage.bind(ip).unwrap(), [None, None], "{ip}");
    }
    let own = stage.process.inside(|| Server::start(&stage.node.ns, "own", &locals, NODE_PORT)).unwrap();
    for ip in LOOPBACK {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let who = stage.process.ask(protocol, SocketAddr::new(ip, NODE_PORT)).unwrap();
            assert_eq!(who.name, "own", "{ip} {protocol:?}");
        }
    }
    drop(own);

    stage.agent.kill();
    stage.agent.replace_argument(OFF, ON);
    stage.agent.run().unwrap();
    for ip in LOOPBACK {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let who = stage.process.ask(protocol, SocketAddr::new(ip, NODE_PORT)).unwrap();
            assert_eq!(who.name, "backend", "{ip} {protocol:?}");
        }
        assert_eq!(stage.bind(ip).unwrap(), IN_USE, "{ip}");
    }
    stage.serves_others().unwrap();

    stage.agent.kill();
    stage.agent.replace_argument(ON, OFF);
    stage.agent.run().unwrap();
    for family in Family::ALL {
        let to = SocketAddr::new(LOOPBACK[family.index()], NODE_PORT);
        assert!(is_refused(&stage.process.tcp(to).unwrap_err()), "{to}: switched off again");
    }
}
