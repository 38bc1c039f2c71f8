//! Datagrams of a client with a fixed port: they must move when their endpoint goes.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::manifests::Service;

use crate::datagrams::Datagrams;
use crate::objects::State::Ready;
use crate::objects::{Web, at};
use crate::world::{Check, From, OTHER_PORT, PORT, World};

pub(crate) const CHECKS: &[Check] = &[
    (
        "Conntrack should be able to preserve UDP traffic when server pod cycles for a NodePort service",
        node_port,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when server pod cycles for a ClusterIP service",
        cluster_ip,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when server pod cycles for a ClusterIP service and client is \
         hostNetwork",
        host_client,
    ),
    (
        "Conntrack should be able to cleanup conntrack entries when UDP service target port changes for a NodePort \
         service",
        target_port,
    ),
    (
        "Conntrack should be able to preserve UDP traffic when initial unready endpoints get ready",
        initially_unready,
    ),
    ("a node's process asks another node's NodePort, then the ClusterIP, from one port", both_ways),
    ("LoadBalancers should be able to preserve UDP traffic when server pod cycles", load_balancer),
    ("Conntrack: internalTrafficPolicy=Local", internal_local),
    ("Conntrack: externalTrafficPolicy=Local", external_local),
];

/// One source port for all clients, as long as it is no Service's.
const FROM_PORT: u16 = 12_345;

/// Moves the Service from one endpoint to the next, and back.
fn cycle(
    world: &World,
    web: Web,
    service: &Service,
    pods: [&'static str; 2],
    ways: &[(From, SocketAddr)],
) -> Result<()> {
    let [first, second] = pods;
    world.apply(&[service.yaml(), web.on(world, &[first])])?;
    let streams = ways.iter().map(|(from, to)| Datagrams::from(world, *from, FROM_PORT, *to));
    let streams = streams.collect::<Result<Vec<_>>>()?;
    for pod in [first, second, first] {
        world.apply(&[service.yaml(), web.on(world, &[pod])])?;
        for (stream, (from, _)) in streams.iter().zip(ways) {
            stream.until(|who| who.name == pod).with_context(|| format!("{from:?} to {pod}"))?;
        }
    }
    Ok(())
}

fn node_port(world: &World) -> Result<()> {
    let clients = [From::Outside, From::Pod("b2"), From::Pod("a2"), From::Node("c")];
    for pods in [["a1", "b1"], ["b1", "c1"]] {
        let web = world.web();
        let ways = Family::ALL.map(|family| clients.map(|from| (from, world.node_port("a", web, family))));
        for ways in ways {
            cycle(world, web, &web.at_nodes(), pods, &ways)?;
        }
    }
    Ok(())
}

fn cluster_ip(world: &World) -> Result<()> {
    let web = world.web();
    for family in Family::ALL {
        let ways = [From::Pod("a2"), From::Pod("c1")].map(|from| (from, web.cluster_ip(family)));
        cycle(world, web, &web.internal(), ["a1", "b1"], &ways)?;
    }
    Ok(())
}

fn host_client(world: &World) -> Result<()> {
    let web = world.web();
    for family in Family::ALL {
        let ways = [From::Node("a"), From::Node("c")].map(|from| (from, web.cluster_ip(family)));
        cycle(world, web, &web.internal(), ["a1", "b1"], &ways)?;
    }
    Ok(())
}

/// The same pod on another port is another endpoint.
fn target_port(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.at_nodes().yaml();
    for family in Family::ALL {
        let on = |port| web.on_port(world, &[at("b1", Ready)], port);
        world.apply(&[service.clone(), on(PORT)])?;
        for from in [From::Outside, From::Pod("a2"), From::Node("c")] {
            let stream = Datagrams::from(world, from, FROM_PORT, world.node_port("a", web, family))?;
            for port in [PORT, OTHER_PORT, PORT] {
                world.apply(&[service.clone(), on(port)])?;
                stream
                    .until(|who| who.local.port() == port)
                    .with_context(|| format!("{from:?} to {port}"))?;
            }
        }
    }
    Ok(())
}

/// Datagrams sent without an endpoint leave no flow that keeps later ones from the endpoint.
fn initially_unready(world: &World) -> Result<()> {
    for family in Family::ALL {
        let web = world.web();
        let service = web.balanced().yaml();
        world.bed.route_vip(web.external(family).ip(), world.node("b"))?;
        world.apply(&[service.clone(), web.on(world, &[])])?;
        let ways = [
            (From::Outside, world.node_port("a", web, family)),
            (From::Stranger, web.external(family)),
            (From::Pod("a2"), web.cluster_ip(family)),
            (From::Node("c"), web.cluster_ip(family)),
        ];
        let streams = ways.map(|(from, to)| Datagrams::from(world, from, FROM_PORT, to));
        let streams = streams.into_iter().collect::<Result<Vec<_>>>()?;
        for stream in streams.iter().chain(&streams) {
            ensure!(stream.once()?.is_none(), "answered without an endpoint");
        }
        world.apply(&[service, web.on(world, &["b1"])])?;
        for (stream, (from, to)) in streams.iter().zip(ways) {
            stream.until(|who| who.name == "b1").with_context(|| format!("{from:?} to {to}"))?;
        }
    }
    Ok(())
}

/// Both lead to the same backend; by the ClusterIP the node reaches it without a translation.
fn both_ways(world: &World) -> Result<()> {
    for backend in ["a1", "host-a"] {
        let web = world.web();
        world.apply(&[web.at_nodes().yaml(), web.on(world, &[backend])])?;
        for family in Family::ALL {
            for to in
                [world.node_port("a", web, family), web.cluster_ip(family), world.node_port("a", web, family)]
            {
                let stream = Datagrams::from(world, From::Node("c"), FROM_PORT, to)?;
                stream.until(|who| who.name == backend).with_context(|| format!("{backend} by {to}"))?;
            }
        }
    }
    Ok(())
}

/// On the same node, and from node to node.
fn load_balancer(world: &World) -> Result<()> {
    for pods in [["a1", "a2"], ["a1", "c1"]] {
        let web = world.web();
        for family in Family::ALL {
            world.bed.route_vip(web.external(family).ip(), world.node("a"))?;
            let ways = [From::Outside, From::Pod("b1")].map(|from| (from, web.external(family)));
            cycle(world, web, &web.balanced(), pods, &ways)?;
        }
    }
    Ok(())
}

fn internal_local(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.internal().spec("internalTrafficPolicy: Local");
    for family in Family::ALL {
        let ways = [From::Pod("c1"), From::Node("b")].map(|from| (from, web.cluster_ip(family)));
        cycle(world, web, &service, ["b1", "b2"], &ways[1..])?;
        cycle(world, web, &service, ["c2", "c1"], &ways[..1])?;
    }
    Ok(())
}

fn external_local(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.at_nodes().spec("externalTrafficPolicy: Local");
    for family in Family::ALL {
        let ways = [(From::Outside, world.node_port("b", web, family))];
        cycle(world, web, &service, ["b1", "b2"], &ways)?;
    }
    Ok(())
}
