//! ClusterIPs on three nodes.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_common::verdict::{Hook, Verdict};
use lbr_tests::manifests::Service;
use lbr_tests::probe::ask_on;

use crate::world::{Check, From, PORT, World};

pub(crate) const CHECKS: &[Check] = &[
    ("Services should serve a basic endpoint from pods", basic),
    ("Services should serve endpoints on Services with a ClusterIP of a different CIDR", other_cidr),
    ("Services should preserve source pod IP for traffic thru service cluster IP", source_is_kept),
    ("a Service and its endpoint's own address from one source port", one_source_port),
    ("Services should allow pods to hairpin back to themselves through services", hairpin),
    ("Services should be rejected when no endpoints exist", no_endpoints),
    ("a port that a ClusterIP does not have is refused", no_such_port),
    ("an address that no Service has is dropped", unallocated),
    ("Services should respect internalTrafficPolicy=Local Pod to Pod", internal_local),
    (
        "Services should respect internalTrafficPolicy=Local Pod and Node, to Pod (hostNetwork: true)",
        internal_host,
    ),
];

fn basic(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.internal().yaml(), web.on(world, &["a1", "b1", "c1", "host-b"])])?;
    for family in Family::ALL {
        for from in [From::Pod("a2"), From::Pod("b2"), From::Node("a"), From::Node("c")] {
            world.reaches(from, web.cluster_ip(family), &["a1", "b1", "c1", "host-b"])?;
        }
    }
    Ok(())
}

/// ServiceCIDRs may be added and removed while Services keep their addresses.
fn other_cidr(world: &World) -> Result<()> {
    let web = world.web();
    let addresses: [IpAddr; 2] = ["10.200.0.1".parse()?, "fd00:10:200::1".parse()?];
    let service =
        Service::new(&web.name(), &addresses).port("tcp", "TCP", 80, PORT).port("udp", "UDP", 80, PORT);
    world.apply(&[service.yaml(), web.on(world, &["a1", "b1"])])?;
    for address in addresses {
        for from in [From::Pod("a2"), From::Pod("c1"), From::Node("c")] {
            world.reaches(from, SocketAddr::new(address, 80), &["a1", "b1"])?;
        }
    }
    Ok(())
}

fn source_is_kept(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.internal().yaml(), web.on(world, &["a1", "c1"])])?;
    for family in Family::ALL {
        for from in [From::Pod("a2"), From::Pod("b1")] {
            world.reaches_as(from, web.cluster_ip(family), &["a1", "c1"], world.address(from, family))?;
        }
    }
    Ok(())
}

/// In either order, with the endpoint on the client's node and on another one: both conversations go on.
fn one_source_port(world: &World) -> Result<()> {
    for (number, name) in (0..).zip(["a1", "b1"]) {
        let web = world.web();
        world.apply(&[web.internal().yaml(), web.on(world, &[name])])?;
        for family in Family::ALL {
            let service = web.cluster_ip(family);
            let endpoint = SocketAddr::new(world.address(From::Pod(name), family), PORT);
            for (order, [first, second]) in (0..).zip([[service, endpoint], [endpoint, service]]) {
                let client = world.client(From::Pod("a2")).from_port(20_000 + 2 * number + order);
                let streams = [client.tcp_stream(first)?, client.tcp_stream(second)?];
                for _ in 0..3 {
                    let [one, two] = [ask_on(&streams[0])?, ask_on(&streams[1])?];
                    ensure!((&one.name, &two.name) == (&name.to_owned(), &name.to_owned()), "{one} {two}");
                    ensure!(one.peer != two.peer, "{name} sees {} twice", one.peer);
                }
                drop(streams);
                let socket = client.udp_socket(family)?;
                for to in [first, second, first, second] {
                    socket.send_to(b"who", to)?;
                    let (_, from) =
                        socket.recv_from(&mut [0; 256]).with_context(|| format!("answer of {to}"))?;
                    ensure!(from == to, "{to} answered as {from}");
                }
            }
        }
    }
    Ok(())
}

fn hairpin(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.internal().yaml(), web.on(world, &["b1"])])?;
    for family in Family::ALL {
        world.reaches(From::Pod("b1"), web.cluster_ip(family), &["b1"])?;
    }
    Ok(())
}

fn no_endpoints(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.internal().yaml(), web.on(world, &[])])?;
    for family in Family::ALL {
        for from in [From::Pod("a1"), From::Node("a")] {
            world.is_refused(from, web.cluster_ip(family))?;
        }
    }
    Ok(())
}

fn no_such_port(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.internal().yaml(), web.on(world, &["a1"])])?;
    for family in Family::ALL {
        let to = SocketAddr::new(web.cluster_ip(family).ip(), 81);
        for from in [From::Pod("a2"), From::Pod("b1"), From::Node("a")] {
            world.is_refused(from, to)?;
        }
    }
    Ok(())
}

/// Otherwise the packet would travel between the node and its gateway.
fn unallocated(world: &World) -> Result<()> {
    let nobody = world.web();
    world.apply(&[])?;
    for (from, hook) in [(From::Pod("a1"), Hook::FromPod), (From::Node("a"), Hook::ToNetdev)] {
        for family in Family::ALL {
            let before = world.count("a", hook, Verdict::UnallocatedAddress)?;
            world.fails(from, nobody.cluster_ip(family))?;
            let after = world.count("a", hook, Verdict::UnallocatedAddress)?;
            ensure!(after > before, "{from:?} to {}: not counted", nobody.cluster_ip(family));
        }
    }
    Ok(())
}

fn internal_local(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.internal().spec("internalTrafficPolicy: Local").yaml();
    world.apply(&[service, web.on(world, &["a1", "b1"])])?;
    for family in Family::ALL {
        let to = web.cluster_ip(family);
        for from in [From::Pod("a2"), From::Node("a")] {
            world.reaches(from, to, &["a1"])?;
        }
        world.reaches(From::Pod("b2"), to, &["b1"])?;
        world.is_lost(From::Pod("c1"), to)?;
        world.fails(From::Node("c"), to)?;
    }
    Ok(())
}

fn internal_host(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.internal().spec("internalTrafficPolicy: Local").yaml();
    world.apply(&[service, web.on(world, &["host-a"])])?;
    for family in Family::ALL {
        let to = web.cluster_ip(family);
        for from in [From::Pod("a2"), From::Node("a")] {
            world.reaches(from, to, &["host-a"])?;
        }
        for from in [From::Pod("b1"), From::Node("b")] {
            world.fails(from, to)?;
        }
    }
    Ok(())
}
