//! NodePorts for all clients, leading to every endpoint (`externalTrafficPolicy: Cluster`).

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::manifests::Service;

use crate::world::{Check, From, NODES, PORT, World, patience, until};

pub(crate) const CHECKS: &[Check] = &[
    ("Services should be able to create a functioning NodePort service", functioning),
    ("an endpoint on the node sees the client, one elsewhere sees the node", sources),
    ("the client sees the node it asked", client_sees_the_node_it_asked),
    ("Granular Checks: Services should function for service endpoints using hostNetwork", host_network),
    ("127.0.0.1:nodePort and [::1]:nodePort", loopback),
    ("Granular Checks: Services should be able to handle large requests", large),
    ("a router's ICMP error about an answer reaches the endpoint", router_errors_arrive),
    ("Services should be rejected when no endpoints exist", no_endpoints),
    ("a packet from outside with a local pod's address is dropped", spoofed),
    ("other ports of the node stay its own", other_ports),
    ("a NodePort cannot be bound by other sockets", not_bound),
];

/// Every kind of client.
const ALL: [From; 6] =
    [From::Outside, From::Stranger, From::Pod("a2"), From::Pod("c1"), From::Node("a"), From::Node("b")];

fn functioning(world: &World) -> Result<()> {
    let web = world.web();
    let names = ["a1", "b1", "c1"];
    world.apply(&[web.at_nodes().yaml(), web.on(world, &names)])?;
    for family in Family::ALL {
        for from in ALL {
            for node in NODES {
                world.reaches(from, world.node_port(node, web, family), &names)?;
            }
        }
        world.reaches(From::Pod("b2"), web.cluster_ip(family), &names)?;
    }
    Ok(())
}

fn sources(world: &World) -> Result<()> {
    let (here, there) = (world.web(), world.web());
    let services = [here.at_nodes().yaml(), there.at_nodes().yaml()];
    let slices = [here.on(world, &["a1"]), there.on(world, &["b1"])];
    world.apply(&[services, slices].concat())?;
    for family in Family::ALL {
        let client = world.address(From::Outside, family);
        world.reaches_as(From::Outside, world.node_port("a", here, family), &["a1"], client)?;
        // The answers must come back through the node that was asked.
        let node = world.in_the_name_of("a", family);
        world.reaches_as(From::Outside, world.node_port("a", there, family), &["b1"], node)?;
        world.client(From::Outside).tcp_bulk(world.node_port("a", here, family), 1 << 20)?;
        world.client(From::Outside).tcp_bulk(world.node_port("a", there, family), 1 << 20)?;
    }
    Ok(())
}

/// An unconnected socket shows where answers come from.
fn client_sees_the_node_it_asked(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.on(world, &["a1", "b1"])])?;
    for family in Family::ALL {
        for from in [From::Outside, From::Pod("a2"), From::Pod("c1"), From::Node("a"), From::Node("c")] {
            let to = world.node_port("a", web, family);
            for _ in 0..10 {
                let (_, shown) = world.client(from).udp_unconnected(to)?;
                ensure!(shown == to, "{from:?}: the answer of {to} came from {shown}");
            }
        }
    }
    Ok(())
}

fn host_network(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.on(world, &["host-b"])])?;
    for family in Family::ALL {
        for from in ALL {
            for node in NODES {
                world.reaches(from, world.node_port(node, web, family), &["host-b"])?;
            }
        }
        let client = world.address(From::Outside, family);
        world.reaches_as(From::Outside, world.node_port("b", web, family), &["host-b"], client)?;
        // There is no tunnel between nodes.
        let node = world.address(From::Node("a"), family);
        world.reaches_as(From::Outside, world.node_port("a", web, family), &["host-b"], node)?;
    }
    Ok(())
}

fn loopback(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.on(world, &["a1", "b1"])])?;
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let to = SocketAddr::new(ip, web.node_port());
        for node in ["a", "c"] {
            world.reaches(From::Node(node), to, &["a1", "b1"])?;
        }
        // A pod's loopback is its own.
        world.is_refused(From::Pod("a2"), to)?;
    }
    Ok(())
}

/// Fragmented datagrams. Through a tunnel the path MTU may be unknown at first, which costs a datagram.
fn large(world: &World) -> Result<()> {
    let (here, there) = (world.web(), world.web());
    let services = [here.at_nodes().yaml(), there.at_nodes().yaml()];
    let slices = [here.on(world, &["a1"]), there.on(world, &["b1"])];
    world.apply(&[services, slices].concat())?;
    for family in Family::ALL {
        for web in [here, there] {
            for from in [From::Outside, From::Pod("a2"), From::Pod("c1"), From::Node("a")] {
                let to = world.node_port("a", web, family);
                for len in [2_000, 20_000] {
                    let echo = || world.client(from).udp_echo(to, len);
                    until(patience(), echo).with_context(|| format!("{from:?}"))?;
                }
            }
        }
    }
    Ok(())
}

fn router_errors_arrive(world: &World) -> Result<()> {
    let (here, there) = (world.web(), world.web());
    world.apply(&[
        here.at_nodes().yaml(),
        here.on(world, &["a1"]),
        there.at_nodes().yaml(),
        there.on(world, &["b1"]),
    ])?;
    for (family, web) in Family::ALL.into_iter().flat_map(|family| [(family, here), (family, there)]) {
        world.answers_over_a_narrow_path(world.node_port("a", web, family))?;
    }
    Ok(())
}

fn no_endpoints(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.on(world, &[])])?;
    for family in Family::ALL {
        for from in ALL {
            for node in NODES {
                world.is_refused(from, world.node_port(node, web, family))?;
            }
        }
    }
    Ok(())
}

/// Servers of the node itself are reached as before, and the kernel refuses ports without a listener.
fn other_ports(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.on(world, &["a1"])])?;
    for family in Family::ALL {
        for from in [From::Outside, From::Pod("a2"), From::Pod("c1"), From::Node("c")] {
            let node = world.address(From::Node("a"), family);
            world.reaches(from, SocketAddr::new(node, PORT), &["host-a"])?;
            world.is_refused(from, SocketAddr::new(node, web.other_node_port()))?;
        }
    }
    Ok(())
}

/// A socket bound to a NodePort would receive nothing. The unspecified IPv6 address covers both families.
fn not_bound(world: &World) -> Result<()> {
    let web = world.web();
    let bind = |from, at: SocketAddr| {
        world.client(from).inside(|| {
            Ok([TcpListener::bind(at).err().map(|e| e.kind()), UdpSocket::bind(at).err().map(|e| e.kind())])
        })
    };
    let free = [None, None];
    let in_use = [Some(ErrorKind::AddrInUse); 2];
    let at = |ip: IpAddr| SocketAddr::new(ip, web.node_port());
    let any = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
    world.apply(&[web.at_nodes().yaml(), web.on(world, &["a1"])])?;
    for family in Family::ALL {
        let own = world.address(From::Node("b"), family);
        for ip in [own, any[family.index()]] {
            let before = world.count("b", Hook::Socket, Verdict::PortTaken)?;
            let found = bind(From::Node("b"), at(ip))?;
            ensure!(found == in_use, "{ip}: {found:?}");
            ensure!(world.count("b", Hook::Socket, Verdict::PortTaken)? == before + 2, "{ip}: not counted");
        }
        let other = SocketAddr::new(own, web.other_node_port());
        ensure!(bind(From::Node("b"), other)? == free, "{other} is free");
        ensure!(bind(From::Pod("b1"), at(any[family.index()]))? == free, "the ports of pods are their own");
    }
    let single = Service::new(&web.name(), &[web.cluster_ip(Family::V4).ip()]).spec("type: NodePort");
    let single = single.port("tcp", "TCP", 80, PORT).node_port(web.node_port());
    let single = single.port("udp", "UDP", 80, PORT).node_port(web.node_port());
    world.apply(&[single.yaml()])?;
    ensure!(bind(From::Node("b"), at(any[1]))? == in_use, "bound, although IPv4 would not reach it");
    world.apply(&[])?;
    ensure!(bind(From::Node("b"), at(any[1]))? == free, "the Service is gone");
    Ok(())
}

fn spoofed(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.on(world, &["a1", "b1"])])?;
    for family in Family::ALL {
        let (pod, to) = (world.address(From::Pod("a2"), family), world.node_port("a", web, family));
        let dropped = || world.count("a", Hook::FromNetdev, Verdict::SpoofedSource);
        let before = dropped()?;
        world.pretend("add", pod)?;
        let client = world.client(From::Outside).bind(SocketAddr::new(pod, 0));
        let answer = client.timeout(Duration::from_millis(300)).tcp(to);
        world.pretend("del", pod)?;
        ensure!(answer.is_err(), "{pod}, from outside, was answered");
        ensure!(dropped()? > before, "{pod}, from outside, to {to}: not dropped as spoofed");
    }
    Ok(())
}
