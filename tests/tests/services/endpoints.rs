//! The endpoints that a Service port leads to: all of its slices together, port by port.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::manifests::{Endpoint, EndpointSlice, Service, join};
use lbr_tests::probe::Protocol;

use crate::expect::PROTOCOLS;
use crate::objects::Web;
use crate::world::{Check, From, NODES, OTHER_PORT, PORT, World};

pub(crate) const CHECKS: &[Check] = &[
    ("Services should serve multiport endpoints from pods", multiport),
    ("Services should serve endpoints on same port and different protocols", same_port),
    (
        "EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices",
        ports_in_slices,
    ),
    (
        "EndpointSlice should support a Service with multiple endpoint IPs specified in multiple EndpointSlices",
        endpoints_in_slices,
    ),
    ("Services should be able to use named ports that resolve differently at each endpoint", named_ports),
    ("Services should serve ports that are added, and no longer those that are removed", added_and_removed),
    ("Services should work after the service has been recreated", recreated),
    ("Services should be rejected for evicted pods (no endpoints exist)", evicted),
    (
        "Granular Checks: Services should function for multiple endpoint-Services with same selector",
        same_selector,
    ),
    ("Granular Checks: Services should update endpoints: http and udp", updated),
];

/// The places of clients.
const ASKERS: [From; 4] = [From::Pod("a2"), From::Pod("c1"), From::Node("b"), From::Outside];

/// Another port of the Service.
const SECOND: u16 = 81;

/// A slice with ports (their names in the Service, protocol, number) and ready endpoints.
fn slice(world: &World, web: Web, name: &str, ports: &[(&str, &str, u16)], backends: &[&str]) -> String {
    join(Family::ALL.map(|family| {
        let name = format!("{}-{name}-{}", web.name(), if family.is_v6() { "v6" } else { "v4" });
        let slice = EndpointSlice::new(&name, &web.name(), family);
        let slice =
            ports.iter().fold(slice, |slice, (name, protocol, port)| slice.port(name, protocol, *port));
        let endpoints = backends.iter().map(|backend| {
            let (addresses, node) = world.place(backend);
            Endpoint::new(addresses[family.index()]).node(&node.name)
        });
        endpoints.fold(slice, EndpointSlice::endpoint).yaml()
    }))
}

/// Asserts that this endpoint answers, at this port of its own.
fn answers(
    world: &World,
    from: From,
    protocol: Protocol,
    to: SocketAddr,
    who: &str,
    port: u16,
) -> Result<()> {
    for _ in 0..3 {
        let answer =
            world.client(from).ask(protocol, to).with_context(|| format!("{from:?} to {to} {protocol:?}"))?;
        let is_right = answer.name == who && answer.local.port() == port;
        ensure!(is_right, "{from:?} to {to} {protocol:?}: answered by {answer}, not by {who} at {port}");
    }
    Ok(())
}

fn multiport(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.internal().port("second", "TCP", SECOND, OTHER_PORT).port(
        "second-udp",
        "UDP",
        SECOND,
        OTHER_PORT,
    );
    let own = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)];
    let second = [("second", "TCP", OTHER_PORT), ("second-udp", "UDP", OTHER_PORT)];
    // Each of two pods has one of the ports, as in the test of Kubernetes.
    world.apply(&[
        service.yaml(),
        slice(world, web, "first", &own, &["a1"]),
        slice(world, web, "second", &second, &["b1"]),
    ])?;
    for family in Family::ALL {
        let first = web.cluster_ip(family);
        for (from, protocol) in pairs(&ASKERS[..3]) {
            answers(world, from, protocol, first, "a1", PORT)?;
            answers(world, from, protocol, SocketAddr::new(first.ip(), SECOND), "b1", OTHER_PORT)?;
        }
    }
    Ok(())
}

fn same_port(world: &World) -> Result<()> {
    let web = world.web();
    let ports = [("tcp", "TCP", PORT), ("udp", "UDP", OTHER_PORT)];
    world.apply(&[web.at_nodes().yaml(), slice(world, web, "all", &ports, &["a1"])])?;
    for family in Family::ALL {
        for from in ASKERS {
            let to = world.node_port("a", web, family);
            answers(world, from, Protocol::Tcp, to, "a1", PORT)?;
            answers(world, from, Protocol::Udp, to, "a1", OTHER_PORT)?;
        }
    }
    Ok(())
}

fn ports_in_slices(world: &World) -> Result<()> {
    let web = world.web();
    let slices = [
        slice(world, web, "tcp", &[("tcp", "TCP", PORT)], &["a1"]),
        slice(world, web, "udp", &[("udp", "UDP", OTHER_PORT)], &["b1"]),
    ];
    world.apply(&[web.at_nodes().yaml(), join(slices)])?;
    for family in Family::ALL {
        for from in ASKERS {
            let to = world.node_port("c", web, family);
            answers(world, from, Protocol::Tcp, to, "a1", PORT)?;
            answers(world, from, Protocol::Udp, to, "b1", OTHER_PORT)?;
        }
    }
    Ok(())
}

fn endpoints_in_slices(world: &World) -> Result<()> {
    let web = world.web();
    let ports = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)];
    let slices = ["a1", "b1", "c1"].map(|name| slice(world, web, name, &ports, &[name]));
    world.apply(&[web.at_nodes().yaml(), join(slices)])?;
    for family in Family::ALL {
        for from in ASKERS {
            world.reaches(from, world.node_port("a", web, family), &["a1", "b1", "c1"])?;
        }
    }
    Ok(())
}

/// Each slice resolves the name to its own number; the target port in the Service is not used.
fn named_ports(world: &World) -> Result<()> {
    let web = world.web();
    let at = |port| [("tcp", "TCP", port), ("udp", "UDP", port)];
    let slices =
        [slice(world, web, "old", &at(PORT), &["a1"]), slice(world, web, "new", &at(OTHER_PORT), &["b1"])];
    world.apply(&[web.internal().yaml(), join(slices)])?;
    for family in Family::ALL {
        for from in &ASKERS[..3] {
            for answer in world.reaches(*from, web.cluster_ip(family), &["a1", "b1"])? {
                let port = if answer.name == "a1" { PORT } else { OTHER_PORT };
                ensure!(answer.local.port() == port, "{from:?}: answered by {answer}");
            }
        }
    }
    Ok(())
}

fn added_and_removed(world: &World) -> Result<()> {
    let web = world.web();
    let own = [
        ("tcp", "TCP", PORT),
        ("udp", "UDP", PORT),
        ("second", "TCP", OTHER_PORT),
        ("second-udp", "UDP", OTHER_PORT),
    ];
    let slices = slice(world, web, "all", &own, &["b1"]);
    let second = |service: Service| {
        service.port("second", "TCP", SECOND, OTHER_PORT).port("second-udp", "UDP", SECOND, OTHER_PORT)
    };
    for (service, has_first, has_second) in [
        (web.internal(), true, false),
        (second(web.internal()), true, true),
        (second(web.internal().without_ports()), false, true),
    ] {
        world.apply(&[service.yaml(), slices.clone()])?;
        for family in Family::ALL {
            let ip = web.cluster_ip(family).ip();
            for (port, is_there) in [(80, has_first), (SECOND, has_second)] {
                for from in [From::Pod("a2"), From::Node("c")] {
                    match is_there {
                        true => drop(world.reaches(from, SocketAddr::new(ip, port), &["b1"])?),
                        false => world.is_refused(from, SocketAddr::new(ip, port))?,
                    }
                }
            }
        }
    }
    Ok(())
}

/// A Service that is removed and recreated with the same name and other addresses, while its slices stay.
fn recreated(world: &World) -> Result<()> {
    let (web, address) = (world.web(), world.web());
    let slices = web.on(world, &["a1"]);
    world.apply(&[web.at_nodes().yaml(), slices.clone()])?;
    world.reaches(From::Outside, world.node_port("b", web, Family::V4), &["a1"])?;
    world.apply(std::slice::from_ref(&slices))?;
    for family in Family::ALL {
        world.is_refused(From::Outside, world.node_port("b", web, family))?;
    }
    world.apply(&[
        web.at_nodes().with_addresses(&Family::ALL.map(|family| address.cluster_ip(family).ip())).yaml(),
        slices,
    ])?;
    for family in Family::ALL {
        for from in &ASKERS[..3] {
            world.reaches(*from, address.cluster_ip(family), &["a1"])?;
            world.fails(*from, web.cluster_ip(family))?;
        }
        world.reaches(From::Outside, world.node_port("b", web, family), &["a1"])?;
    }
    Ok(())
}

/// Evicted pods are in no slice, even with `publishNotReadyAddresses`.
fn evicted(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.at_nodes().spec("publishNotReadyAddresses: true");
    world.apply(&[service.yaml(), web.on(world, &[])])?;
    for family in Family::ALL {
        for from in &ASKERS[..3] {
            world.is_refused(*from, web.cluster_ip(family))?;
        }
        for (from, node) in ASKERS.iter().flat_map(|from| NODES.map(|node| (*from, node))) {
            world.is_refused(from, world.node_port(node, web, family))?;
        }
    }
    Ok(())
}

fn same_selector(world: &World) -> Result<()> {
    let (one, two) = (world.web(), world.web());
    let names = ["a1", "b1"];
    let services = [one.at_nodes().yaml(), two.at_nodes().yaml()];
    world.apply(&[services, [one.on(world, &names), two.on(world, &names)]].concat())?;
    for family in Family::ALL {
        for (from, web) in ASKERS.iter().flat_map(|from| [(*from, one), (*from, two)]) {
            world.reaches(from, world.node_port("a", web, family), &names)?;
        }
    }
    // One Service is removed; the other stays.
    world.apply(&[two.at_nodes().yaml(), two.on(world, &names)])?;
    for (from, family) in ASKERS.iter().flat_map(|from| Family::ALL.map(|family| (*from, family))) {
        world.reaches(from, world.node_port("a", two, family), &names)?;
        world.is_refused(from, world.node_port("a", one, family))?;
    }
    Ok(())
}

fn updated(world: &World) -> Result<()> {
    let web = world.web();
    for names in [&["a1", "b1", "c1"][..], &["b1", "c1"], &["c1"], &["a1", "c1"]] {
        world.apply(&[web.at_nodes().yaml(), web.on(world, names)])?;
        for (from, family) in ASKERS.iter().flat_map(|from| Family::ALL.map(|family| (*from, family))) {
            world.reaches(from, world.node_port("b", web, family), names)?;
        }
    }
    Ok(())
}

fn pairs(from: &[From]) -> impl Iterator<Item = (From, Protocol)> {
    from.iter().flat_map(|from| PROTOCOLS.map(|protocol| (*from, protocol)))
}
