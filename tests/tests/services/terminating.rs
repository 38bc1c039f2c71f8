//! Terminating and unready endpoints: which ones are used when none is ready.

use anyhow::Result;
use lbr_common::addr::Family;

use crate::objects::State::{Ended, Ready, Terminating, Unready};
use crate::objects::at;
use crate::world::{Check, From, NODES, World};

pub(crate) const CHECKS: &[Check] = &[
    (
        "Services should fallback to terminating endpoints when there are no ready endpoints with \
         internalTrafficPolicy=Cluster",
        internal_cluster,
    ),
    (
        "Services should fallback to local terminating endpoints when there are no ready endpoints with \
         internalTrafficPolicy=Local",
        internal_local,
    ),
    (
        "Services should fallback to terminating endpoints when there are no ready endpoints with \
         externalTrafficPolicy=Cluster",
        external_cluster,
    ),
    (
        "Services should fallback to local terminating endpoints when there are no ready endpoints with \
         externalTrafficPolicy=Local",
        external_local,
    ),
    ("Services should create endpoints for unready pods", unready),
    (
        "Services should be able to connect to terminating and unready endpoints if PublishNotReadyAddresses",
        published,
    ),
    ("Services should not be able to connect to terminating and unready endpoints", not_published),
];

fn internal_cluster(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.internal().yaml();
    let going = [at("a1", Terminating), at("b1", Terminating), at("b2", Ended)];
    world.apply(&[service.clone(), web.with(world, &going)])?;
    let clients = [From::Pod("a2"), From::Pod("c1"), From::Node("a"), From::Node("c")];
    for (family, from) in Family::ALL.into_iter().flat_map(|family| clients.map(|from| (family, from))) {
        world.reaches(from, web.cluster_ip(family), &["a1", "b1"])?;
    }
    world.apply(&[service, web.with(world, &[&going[..], &[at("c2", Ready)]].concat())])?;
    for (family, from) in Family::ALL.into_iter().flat_map(|family| clients.map(|from| (family, from))) {
        world.reaches(from, web.cluster_ip(family), &["c2"])?;
    }
    Ok(())
}

/// Ready endpoints elsewhere do not count.
fn internal_local(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.internal().spec("internalTrafficPolicy: Local").yaml();
    world.apply(&[service.clone(), web.with(world, &[at("a1", Terminating), at("b1", Ready)])])?;
    for family in Family::ALL {
        let to = web.cluster_ip(family);
        for (pod, node, name) in [("a2", "a", "a1"), ("b2", "b", "b1")] {
            world.reaches(From::Pod(pod), to, &[name])?;
            world.reaches(From::Node(node), to, &[name])?;
        }
        world.is_lost(From::Pod("c1"), to)?;
        world.fails(From::Node("c"), to)?;
    }
    world.apply(&[service, web.with(world, &[at("a1", Terminating), at("a2", Ready)])])?;
    for family in Family::ALL {
        for from in [From::Pod("a2"), From::Node("a")] {
            world.reaches(from, web.cluster_ip(family), &["a2"])?;
        }
        world.fails(From::Pod("b2"), web.cluster_ip(family))?;
    }
    Ok(())
}

fn external_cluster(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.at_nodes().yaml();
    let going = [at("a1", Terminating), at("b1", Terminating), at("b2", Ended)];
    world.apply(&[service.clone(), web.with(world, &going)])?;
    let ways = || Family::ALL.into_iter().flat_map(|family| NODES.map(|node| (family, node)));
    for (family, node) in ways() {
        for from in [From::Outside, From::Pod("c1"), From::Node("c")] {
            world.reaches(from, world.node_port(node, web, family), &["a1", "b1"])?;
        }
    }
    world.apply(&[service, web.with(world, &[&going[..], &[at("c2", Ready)]].concat())])?;
    for (family, node) in ways() {
        for from in [From::Outside, From::Pod("c1"), From::Node("c")] {
            world.reaches(from, world.node_port(node, web, family), &["c2"])?;
        }
    }
    Ok(())
}

fn external_local(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.at_nodes().spec("externalTrafficPolicy: Local").yaml();
    world.apply(&[service.clone(), web.with(world, &[at("a1", Terminating), at("b1", Ready)])])?;
    for family in Family::ALL {
        let client = world.address(From::Outside, family);
        world.reaches_as(From::Outside, world.node_port("a", web, family), &["a1"], client)?;
        world.reaches_as(From::Outside, world.node_port("b", web, family), &["b1"], client)?;
        world.is_lost(From::Outside, world.node_port("c", web, family))?;
        world.reaches(From::Pod("c1"), world.node_port("a", web, family), &["a1"])?;
        world.is_lost(From::Pod("a2"), world.node_port("c", web, family))?;
        // Within the node every endpoint counts, and one is ready.
        world.reaches(From::Node("c"), world.node_port("c", web, family), &["b1"])?;
    }
    world.apply(&[service, web.with(world, &[at("a1", Terminating), at("a2", Ready)])])?;
    for family in Family::ALL {
        world.reaches(From::Outside, world.node_port("a", web, family), &["a2"])?;
        world.is_lost(From::Outside, world.node_port("b", web, family))?;
    }
    Ok(())
}

fn unready(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.with(world, &[at("a1", Unready), at("b1", Ready)])])?;
    for family in Family::ALL {
        for from in [From::Outside, From::Pod("c1"), From::Node("a")] {
            world.reaches(from, world.node_port("a", web, family), &["b1"])?;
        }
        world.reaches(From::Pod("a2"), web.cluster_ip(family), &["b1"])?;
    }
    Ok(())
}

/// The EndpointSlice then has `ready: true`, whatever the state of the pod.
fn published(world: &World) -> Result<()> {
    let web = world.web();
    let service = web.at_nodes().spec("publishNotReadyAddresses: true").yaml();
    world.apply(&[service, web.on(world, &["a1"])])?;
    for family in Family::ALL {
        world.reaches(From::Pod("b1"), web.cluster_ip(family), &["a1"])?;
        world.reaches(From::Pod("b1"), world.node_port("a", web, family), &["a1"])?;
        world.reaches(From::Outside, world.node_port("c", web, family), &["a1"])?;
    }
    Ok(())
}

fn not_published(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.with(world, &[at("a1", Ended), at("b1", Unready)])])?;
    for family in Family::ALL {
        for from in [From::Pod("b2"), From::Node("a")] {
            world.is_refused(from, web.cluster_ip(family))?;
        }
        for from in [From::Outside, From::Pod("b2"), From::Node("a")] {
            world.is_refused(from, world.node_port("a", web, family))?;
        }
    }
    Ok(())
}
