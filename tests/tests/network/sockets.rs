//! Processes of the node: their sockets are connected to backends, and show the Service's address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::agent::AgentOptions;
use lbr_tests::probe::{Client, ask_on};
use lbr_tests::topology::{PodNetwork, PodOptions, Underlay};

use crate::catalog::{self, CYCLE, EMPTY, ONE, TWIN, WEB, simple};
use crate::checks;
use crate::stale;
use crate::world::{Check, PORT, Place, Plan, World, at, ends, patience, refused_at_once, run, soon, until};

const CHECKS: &[Check] = &[
    ("stream", stream),
    ("connected datagrams", connected),
    ("unconnected datagrams", unconnected),
    ("mapped addresses", mapped),
    ("refused", refused),
    ("two Services, one source port", one_port_two_services),
    ("datagrams move", datagrams_move),
    ("connected datagrams whose endpoint is gone", stale::endpoint_goes),
    ("the endpoint goes while no agent runs", stale::while_no_agent_runs),
    ("other namespaces", other_namespace),
    ("pods", checks::addresses),
    ("after the agent is gone", without_agent),
];

fn sockets(name: &str, network: PodNetwork, place: Place) {
    // No program handles interfaces with such a name.
    let arguments = ["--link-exclude", "*-alien"].map(str::to_owned).to_vec();
    let agent = AgentOptions { sockets: true, arguments, ..AgentOptions::default() };
    let plan = Plan { agent, ..Plan::new(network, place) };
    let mut world = World::start(name, plan, catalog::all).unwrap();
    run(&mut world, CHECKS);
}

#[test]
fn routed_same_node() {
    sockets("ss", PodNetwork::Routed, Place::SameNode);
}

#[test]
fn bridge_same_node() {
    sockets("sb", PodNetwork::Bridge, Place::SameNode);
}

#[test]
fn routed_other_node() {
    sockets("so", PodNetwork::Routed, Place::OtherNode(Underlay::Routed));
}

/// A client within the node's cgroup.
pub(crate) fn process(world: &mut World) -> Result<Client> {
    let cgroup = world.bed.cgroup()?;
    Ok(Client::new(&world.node.ns).cgroup(&cgroup))
}

fn stream(world: &mut World) -> Result<()> {
    let client = process(world)?;
    for to in at(WEB, 80) {
        let stream = client.tcp_stream(to)?;
        ensure!(stream.peer_addr()? == to, "getpeername: {} for {to}", stream.peer_addr()?);
        let who = ask_on(&stream)?;
        ensure!(world.names().contains(&who.name) && who.peer == stream.local_addr()?, "{who}");
        client.tcp_bulk(to, 1 << 20)?;
    }
    Ok(())
}

fn connected(world: &mut World) -> Result<()> {
    let client = process(world)?;
    for to in at(WEB, 80) {
        client.udp(to)?;
        client.udp_echo(to, 20_000)?;
        let socket = client.udp_socket(Family::of(to.ip()))?;
        socket.connect(to)?;
        ensure!(socket.peer_addr()? == to, "getpeername: {} for {to}", socket.peer_addr()?);
        socket.send(b"hello")?;
        let (len, from) = socket.recv_from(&mut [0; 64])?;
        ensure!((len, from) == (5, to), "{len} bytes from {from}");
        // A connected socket may still send elsewhere, and connect anew.
        let other = at(TWIN, 80)[Family::of(to.ip()).index()];
        socket.send_to(b"again", to)?;
        ensure!(socket.recv_from(&mut [0; 64])?.1 == to, "after sendto");
        socket.connect(other)?;
        ensure!(socket.peer_addr()? == other, "after a second connect: {}", socket.peer_addr()?);
        socket.send(b"hello")?;
        ensure!(socket.recv_from(&mut [0; 64])?.1 == other, "after a second connect");
    }
    Ok(())
}

fn unconnected(world: &mut World) -> Result<()> {
    let client = process(world)?;
    for to in at(WEB, 80) {
        let socket = client.udp_socket(Family::of(to.ip()))?;
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..5 {
            socket.send_to(b"who", to)?;
            let mut buffer = [0; 256];
            let (len, from) = socket.recv_from(&mut buffer)?;
            ensure!(from == to, "the answer of {to} came from {from}");
            names.insert(std::str::from_utf8(&buffer[..len])?.parse::<lbr_tests::probe::Identity>()?.name);
        }
        ensure!(names.len() == 1, "one socket, one conversation, but {names:?}");
    }
    Ok(())
}

/// IPv4 Services on IPv6 sockets.
fn mapped(world: &mut World) -> Result<()> {
    let client = process(world)?;
    let mapped = |n: u8| {
        let [IpAddr::V4(ip), _] = crate::world::vip(n) else { unreachable!("the first one is IPv4") };
        SocketAddr::new(ip.to_ipv6_mapped().into(), 80)
    };
    let to = mapped(WEB);
    let stream = client.tcp_stream(to)?;
    ensure!(stream.peer_addr()? == to, "getpeername: {} for {to}", stream.peer_addr()?);
    ask_on(&stream)?;
    client.udp(to)?;
    let (_, from) = client.udp_unconnected(to)?;
    ensure!(from == to, "the answer of {to} came from {from}");
    let socket = client.udp_socket(Family::V6)?;
    socket.connect(to)?;
    ensure!(socket.peer_addr()? == to, "getpeername: {} for {to}", socket.peer_addr()?);
    refused_at_once("mapped TCP", || client.tcp(mapped(EMPTY)))?;
    refused_at_once("mapped UDP", || client.udp(mapped(EMPTY)))?;
    refused_at_once("mapped sendto", || Ok(client.udp_socket(Family::V6)?.send_to(b"x", mapped(EMPTY))?))
}

fn refused(world: &mut World) -> Result<()> {
    let client = process(world)?;
    for to in at(EMPTY, 80).into_iter().chain(at(WEB, 81)) {
        refused_at_once(&format!("{to}/TCP"), || client.tcp(to))?;
        let socket = client.udp_socket(Family::of(to.ip()))?;
        refused_at_once(&format!("connect to {to}/UDP"), || Ok(socket.connect(to)?))?;
        let socket = client.udp_socket(Family::of(to.ip()))?;
        refused_at_once(&format!("sendto {to}/UDP"), || Ok(socket.send_to(b"x", to)?))?;
    }
    Ok(())
}

/// On one unconnected socket, each answer must appear to come from the Service that was asked last.
fn one_port_two_services(world: &mut World) -> Result<()> {
    let client = process(world)?;
    for (this, that) in at(ONE, 80).into_iter().zip(at(TWIN, 80)) {
        let socket = client.udp_socket(Family::of(this.ip()))?;
        for to in [this, that, this, that] {
            socket.send_to(b"hello", to)?;
            let (_, from) = socket.recv_from(&mut [0; 64])?;
            ensure!(from == to, "the answer of {to} came from {from}");
        }
        let (one, two) = (client.tcp_stream(this)?, client.tcp_stream(that)?);
        ensure!((one.peer_addr()?, two.peer_addr()?) == (this, that), "getpeername");
        ask_on(&one)?;
        ask_on(&two)?;
    }
    Ok(())
}

/// An unconnected socket moves to a living backend.
fn datagrams_move(world: &mut World) -> Result<()> {
    let client = process(world)?.timeout(Duration::from_millis(500));
    for to in at(CYCLE, 80) {
        world.write("cycle.yaml", &simple("cycle", CYCLE, &world.first(2), PORT))?;
        world.wait_for("cycle", &ends(&world.first(2), PORT))?;
        let socket = client.udp_socket(Family::of(to.ip()))?;
        let ask = || -> Result<String> {
            socket.send_to(b"who", to)?;
            let mut buffer = [0; 256];
            let (len, from) = socket.recv_from(&mut buffer)?;
            ensure!(from == to, "the answer of {to} came from {from}");
            Ok(std::str::from_utf8(&buffer[..len])?.parse::<lbr_tests::probe::Identity>()?.name)
        };
        let old = ask()?;
        let rest: Vec<_> = world.backends.iter().filter(|pod| pod.name != old).collect();
        world.write("cycle.yaml", &simple("cycle", CYCLE, &rest, PORT))?;
        until(soon(), || {
            ensure!(ask()? != old, "still {old}");
            Ok(())
        })?;
    }
    Ok(())
}

/// In the same cgroup but another network namespace, a socket is neither translated nor counted.
fn other_namespace(world: &mut World) -> Result<()> {
    let options = PodOptions::from(world.plan.network);
    let node = world.node.clone();
    let alien = world.bed.add_pod(&node, "alien", options)?;
    let cgroup = world.bed.cgroup()?;
    let before = socket_count(world)?;
    for to in at(WEB, 80) {
        let client = Client::new(&alien.ns).cgroup(&cgroup).timeout(Duration::from_millis(300));
        ensure!(client.tcp(to).is_err(), "translated");
        ensure!(client.udp(to).is_err(), "translated");
        ensure!(client.udp_unconnected(to).is_err(), "translated");
    }
    ensure!(socket_count(world)? == before, "the programs touched a foreign socket");
    process(world)?.tcp(at(WEB, 80)[0])?;
    ensure!(socket_count(world)? > before, "the test itself: no count of the node's sockets");
    let links = world.agent().show("links")?;
    let names: Vec<_> = links.as_array().into_iter().flatten().map(|l| l["name"].to_string()).collect();
    ensure!(names.iter().all(|name| !name.contains("alien")), "excluded, but attached: {names:?}");
    ensure!(names.iter().any(|name| name.contains("client")), "{names:?}");
    world.bed.remove_pod(&alien)
}

fn socket_count(world: &World) -> Result<u64> {
    crate::world::packets(world, "socket", "socket_connect")
}

/// Attached programs stay in force without the agent.
fn without_agent(world: &mut World) -> Result<()> {
    world.agents[0].kill();
    stream(world)?;
    unconnected(world)?;
    world.agents[0].run().context("start again")?;
    world.agent().wait_for("services", patience(), |s| s.as_array().is_some_and(|s| !s.is_empty()))?;
    stream(world)?;
    unconnected(world)
}
