//! Consistent hashing (`lbr.dev/algorithm: maglev`): the same endpoint at every node and address, while endpoints
//! come and go.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::manifests::Service;
use lbr_tests::probe::Protocol;

use crate::expect::PROTOCOLS;
use crate::world::{Check, From, NODES, World};

pub(crate) const CHECKS: &[Check] = &[
    ("all nodes choose the same endpoint for a client", same_on_all_nodes),
    ("clients of other endpoints stay when one goes", endpoint_goes),
    ("the algorithm can be switched at run time", switch),
    ("session affinity goes before the table", sticky),
];

const PODS: [&str; 3] = ["a1", "b1", "c1"];

/// Below the kernel's ephemeral ports, so that no other client has them.
const PORTS: Range<u16> = 20_000..20_030;

fn by_table(service: Service) -> String {
    service.annotation("lbr.dev/algorithm: maglev").yaml()
}

/// Names of the endpoints that answer a client outside, by its source port.
fn answers(world: &World, protocol: Protocol, to: SocketAddr, ports: Range<u16>) -> Result<Vec<String>> {
    let ask = |port| {
        let client = world.client(From::Outside).from_port(port);
        let answer =
            client.ask(protocol, to).with_context(|| format!("from port {port} to {to} {protocol:?}"))?;
        Ok(answer.name)
    };
    ports.map(ask).collect()
}

fn same_on_all_nodes(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[by_table(web.balanced()), web.on(world, &PODS)])?;
    for (protocol, family) in
        PROTOCOLS.into_iter().flat_map(|protocol| Family::ALL.map(|family| (protocol, family)))
    {
        world.bed.route_vip(web.external(family).ip(), world.node("a"))?;
        let first = answers(world, protocol, web.external(family), PORTS)?;
        ensure!(PODS.iter().all(|pod| first.iter().any(|name| name == pod)), "not all are used: {first:?}");
        for to in NODES.map(|node| world.node_port(node, web, family)) {
            let other = answers(world, protocol, to, PORTS)?;
            ensure!(first == other, "{protocol:?}: {first:?}, and at {to} {other:?}");
        }
    }
    Ok(())
}

/// Each time another node is asked, which has no flows of the connections before.
fn endpoint_goes(world: &World) -> Result<()> {
    for family in Family::ALL {
        let web = world.web();
        let ask = |node| answers(world, Protocol::Udp, world.node_port(node, web, family), PORTS);
        world.apply(&[by_table(web.at_nodes()), web.on(world, &PODS)])?;
        let before = ask("a")?;
        world.apply(&[by_table(web.at_nodes()), web.on(world, &["a1", "b1"])])?;
        let during = ask("b")?;
        ensure!(!during.iter().any(|name| name == "c1"), "c1 is gone: {during:?}");
        let moved = before.iter().zip(&during).filter(|(old, new)| *old != "c1" && old != new).count();
        ensure!(moved <= 1, "{moved} clients of others moved: {before:?}, then {during:?}");
        world.apply(&[by_table(web.at_nodes()), web.on(world, &PODS)])?;
        let after = ask("c")?;
        ensure!(before == after, "the same endpoints again: {before:?}, then {after:?}");
    }
    Ok(())
}

fn switch(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &PODS);
    let ask = |node, ports| answers(world, Protocol::Tcp, world.node_port(node, web, Family::V4), ports);
    for (round, with_table) in (0u16..).zip([false, true, false, true]) {
        let service = web.at_nodes();
        let service = if with_table { by_table(service) } else { service.yaml() };
        world.apply(&[service, slices.clone()])?;
        // Known connections stay with their endpoints.
        let ports = 21_000 + 100 * round..21_040 + 100 * round;
        let (a, b) = (ask("a", ports.clone())?, ask("b", ports)?);
        // Two nodes choose the same endpoints 40 times in a row by chance once in 3 to the 40th times.
        ensure!((a == b) == with_table, "table {with_table}: {a:?} at node a, {b:?} at node b");
    }
    Ok(())
}

fn sticky(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.at_nodes().spec("sessionAffinity: ClientIP");
    world.apply(&[by_table(service), web.on(world, &PODS)])?;
    for family in Family::ALL {
        for from in [From::Outside, From::Pod("a2"), From::Node("a")] {
            world.sticks(from, world.node_port("a", web, family))?;
        }
    }
    // Without affinity, all endpoints are reached from anywhere: by processes of the node at random.
    world.apply(&[by_table(web.at_nodes()), web.on(world, &PODS)])?;
    for from in [From::Outside, From::Pod("b2"), From::Node("c")] {
        world.reaches(from, world.node_port("b", web, Family::V4), &PODS)?;
    }
    Ok(())
}
