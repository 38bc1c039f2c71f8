//! Clients that return to the same endpoint (`sessionAffinity: ClientIP`).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lbr_common::addr::Family;
use lbr_tests::manifests::Service;

use crate::world::{Check, From, World};

pub(crate) const CHECKS: &[Check] = &[
    ("Services should have session affinity work for service with type clusterIP", cluster_ip),
    ("Services should have session affinity work for NodePort service", node_port),
    ("LoadBalancers should have session affinity work with ESIPP on and off", load_balancer),
    ("Services should be able to switch session affinity for service with type clusterIP", switch_cluster_ip),
    ("Services should be able to switch session affinity for NodePort service", switch_node_port),
    ("Services should have session affinity timeout work", timeout),
    ("clients of a removed endpoint move to another one", endpoint_goes),
    ("all addresses of a Service port lead a client to the same endpoint", all_addresses),
];

const PODS: [&str; 3] = ["a1", "b1", "c1"];

fn sticky(service: Service) -> String {
    service.spec("sessionAffinity: ClientIP").yaml()
}

fn cluster_ip(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[sticky(web.internal()), web.on(world, &PODS)])?;
    for family in Family::ALL {
        for from in [From::Pod("a2"), From::Pod("b2"), From::Node("a")] {
            world.sticks(from, web.cluster_ip(family))?;
        }
    }
    Ok(())
}

fn node_port(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[sticky(web.at_nodes()), web.on(world, &PODS)])?;
    for family in Family::ALL {
        for from in [From::Outside, From::Stranger, From::Pod("a2"), From::Node("a"), From::Node("b")] {
            world.sticks(from, world.node_port("a", web, family))?;
        }
    }
    Ok(())
}

fn load_balancer(world: &World) -> Result<()> {
    for (policy, pods) in [("Cluster", PODS), ("Local", ["a1", "a2", "c1"])] {
        let web = world.web();
        let service = web.balanced().spec(&format!("externalTrafficPolicy: {policy}"));
        world.apply(&[sticky(service.clone()), web.on(world, &pods)])?;
        for family in Family::ALL {
            world.bed.route_vip(web.external(family).ip(), world.node("a"))?;
            for from in [From::Outside, From::Stranger, From::Pod("b2")] {
                world.sticks(from, web.external(family))?;
            }
        }
        world.apply(&[service.yaml(), web.on(world, &pods)])?;
        let reached: &[&str] = if policy == "Local" { &["a1", "a2"] } else { &pods };
        for family in Family::ALL {
            world.reaches(From::Outside, web.external(family), reached)?;
        }
    }
    Ok(())
}

/// Off and on twice; an old choice does not come back.
fn switch(world: &World, service: &Service, slices: &str, ways: &[(From, SocketAddr)]) -> Result<()> {
    for _ in 0..2 {
        world.apply(&[service.yaml(), slices.to_owned()])?;
        for (from, to) in ways {
            world.reaches(*from, *to, &PODS)?;
        }
        world.apply(&[sticky(service.clone()), slices.to_owned()])?;
        for (from, to) in ways {
            world.sticks(*from, *to)?;
        }
    }
    Ok(())
}

fn switch_cluster_ip(world: &World) -> Result<()> {
    let web = world.web();
    let ways = Family::ALL.map(|family| (From::Pod("a2"), web.cluster_ip(family)));
    switch(world, &web.internal(), &web.on(world, &PODS), &ways)?;
    let ways = Family::ALL.map(|family| (From::Node("b"), web.cluster_ip(family)));
    switch(world, &web.internal(), &web.on(world, &PODS), &ways)
}

fn switch_node_port(world: &World) -> Result<()> {
    let web = world.web();
    let ways = Family::ALL.map(|family| (From::Outside, world.node_port("b", web, family)));
    switch(world, &web.at_nodes(), &web.on(world, &PODS), &ways)
}

/// After two seconds of silence the next connection chooses anew; one in three gets the same endpoint by chance.
fn timeout(world: &World) -> Result<()> {
    const SECONDS: u64 = 2;
    let web = world.web();
    let service =
        web.at_nodes().spec(&format!("sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {SECONDS}}}}}"));
    world.apply(&[sticky(service), web.on(world, &PODS)])?;
    for (from, to) in [
        (From::Pod("a2"), web.cluster_ip(Family::V4)),
        (From::Outside, world.node_port("a", web, Family::V6)),
    ] {
        let first = world.sticks(from, to)?;
        // New connections renew the affinity: together they take longer than the timeout.
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(500));
            let name = world.sticks(from, to)?;
            ensure!(name == first, "{from:?} to {to}: {first}, then {name}, within the timeout");
        }
        moves_after(world, from, to, Duration::from_millis(SECONDS * 1_000 + 200))?;
    }
    Ok(())
}

fn moves_after(world: &World, from: From, to: SocketAddr, silence: Duration) -> Result<()> {
    // The same endpoint eight times in a row by chance: once in 2,000 times.
    const TRIES: usize = 8;
    let first = world.client(from).tcp(to)?.name;
    for _ in 1..TRIES {
        std::thread::sleep(silence);
        if world.client(from).tcp(to)?.name != first {
            return Ok(());
        }
    }
    bail!("{from:?} to {to}: still {first} after {TRIES} times {silence:?} of silence")
}

/// The client moves to another endpoint, and stays there.
fn endpoint_goes(world: &World) -> Result<()> {
    let web = world.web();
    for family in Family::ALL {
        for (from, to) in [
            (From::Pod("a2"), web.cluster_ip(family)),
            (From::Node("a"), web.cluster_ip(family)),
            (From::Outside, world.node_port("a", web, family)),
        ] {
            world.apply(&[sticky(web.at_nodes()), web.on(world, &PODS)])?;
            let first = world.sticks(from, to)?;
            let rest: Vec<&'static str> = PODS.into_iter().filter(|name| *name != first).collect();
            world.apply(&[sticky(web.at_nodes()), web.on(world, &rest)])?;
            let second = world.sticks(from, to)?;
            ensure!(second != first, "{from:?} to {to}: {first} is removed, but still answers");
            world.apply(&[sticky(web.at_nodes()), web.on(world, &PODS)])?;
            let third = world.sticks(from, to)?;
            ensure!(third == second, "{from:?} to {to}: {second}, then {third} without need");
        }
    }
    Ok(())
}

/// As long as the client asks one node.
fn all_addresses(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[sticky(web.balanced()), web.on(world, &PODS)])?;
    for family in Family::ALL {
        world.bed.route_vip(web.external(family).ip(), world.node("a"))?;
        let at_node = world.node_port("a", web, family);
        for (from, addresses) in [
            (From::Outside, vec![at_node, web.external(family)]),
            (From::Pod("a2"), vec![web.cluster_ip(family), at_node, web.external(family)]),
            (From::Node("a"), vec![web.cluster_ip(family), at_node, web.external(family)]),
        ] {
            let names = addresses.iter().map(|to| world.sticks(from, *to)).collect::<Result<Vec<_>>>()?;
            ensure!(names.iter().all(|name| *name == names[0]), "{from:?}: {addresses:?} led to {names:?}");
        }
    }
    Ok(())
}
