//! NodePorts that lead to endpoints on the node that was asked (`externalTrafficPolicy: Local`).

use anyhow::Result;
use lbr_common::addr::Family;
use lbr_tests::manifests::Service;

use crate::objects::Web;
use crate::world::{Check, From, NODES, World};

pub(crate) const CHECKS: &[Check] = &[
    ("Services should only target nodes with endpoints, client IP preserved", only_nodes_with_endpoints),
    ("Services with externalTrafficPolicy=Local: a node's process reaches its own NodePort", short_circuit),
    ("Services with externalTrafficPolicy=Local: a pod does not reach another node's NodePort", other_node),
    ("the ClusterIP leads to every endpoint", cluster_ip),
    ("externalTrafficPolicy=Local to a pod in the node's network", host_network),
    ("Services should be able to change externalTrafficPolicy", changes),
    ("two nodes with endpoints each lead to their own", own_endpoints),
];

fn local(web: Web) -> Service {
    web.at_nodes().spec("externalTrafficPolicy: Local")
}

fn only_nodes_with_endpoints(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local(web).yaml(), web.on(world, &["a1"])])?;
    for family in Family::ALL {
        for from in [From::Outside, From::Stranger] {
            let client = world.address(from, family);
            world.reaches_as(from, world.node_port("a", web, family), &["a1"], client)?;
            for node in ["b", "c"] {
                world.is_lost(from, world.node_port(node, web, family))?;
            }
        }
    }
    Ok(())
}

/// The request does not come by the wire, so no load balancer has chosen the node.
fn short_circuit(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local(web).yaml(), web.on(world, &["a1"])])?;
    for family in Family::ALL {
        for node in ["b", "c"] {
            let own = world.node_port(node, web, family);
            world.reaches_as(From::Node(node), own, &["a1"], world.in_the_name_of(node, family))?;
            // To the node with the endpoint, the request goes by the wire.
            let client = world.address(From::Node(node), family);
            world.reaches_as(From::Node(node), world.node_port("a", web, family), &["a1"], client)?;
        }
        world.reaches(From::Node("a"), world.node_port("a", web, family), &["a1"])?;
        world.is_lost(From::Node("b"), world.node_port("c", web, family))?;
        world.is_lost(From::Node("a"), world.node_port("b", web, family))?;
        // A pod to its own node: kube-proxy does the same, and no test of Kubernetes covers it.
        world.reaches(From::Pod("b1"), world.node_port("b", web, family), &["a1"])?;
    }
    Ok(())
}

/// A proxy that takes the addresses of all nodes for its own fails here.
fn other_node(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local(web).yaml(), web.on(world, &["b1"])])?;
    for family in Family::ALL {
        world.is_lost(From::Pod("a1"), world.node_port("c", web, family))?;
        world.is_lost(From::Pod("b2"), world.node_port("a", web, family))?;
        for from in [From::Pod("a1"), From::Pod("b2"), From::Pod("c1")] {
            world.reaches(from, world.node_port("b", web, family), &["b1"])?;
        }
    }
    Ok(())
}

fn cluster_ip(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local(web).yaml(), web.on(world, &["a1", "b1"])])?;
    for family in Family::ALL {
        for from in [From::Pod("a2"), From::Pod("c1"), From::Node("a"), From::Node("c")] {
            world.reaches(from, web.cluster_ip(family), &["a1", "b1"])?;
        }
    }
    Ok(())
}

fn host_network(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local(web).yaml(), web.on(world, &["host-c"])])?;
    for family in Family::ALL {
        let client = world.address(From::Outside, family);
        world.reaches_as(From::Outside, world.node_port("c", web, family), &["host-c"], client)?;
        world.is_lost(From::Outside, world.node_port("a", web, family))?;
    }
    Ok(())
}

fn changes(world: &World) -> Result<()> {
    let web = world.web();
    let slices = web.on(world, &["a1", "c1"]);
    for _ in 0..2 {
        world.apply(&[web.at_nodes().yaml(), slices.clone()])?;
        for (family, node) in Family::ALL.into_iter().flat_map(|family| NODES.map(|node| (family, node))) {
            world.reaches(From::Outside, world.node_port(node, web, family), &["a1", "c1"])?;
        }
        world.apply(&[local(web).yaml(), slices.clone()])?;
        for family in Family::ALL {
            world.reaches(From::Outside, world.node_port("a", web, family), &["a1"])?;
            world.is_lost(From::Outside, world.node_port("b", web, family))?;
            world.reaches(From::Outside, world.node_port("c", web, family), &["c1"])?;
        }
    }
    Ok(())
}

fn own_endpoints(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[local(web).yaml(), web.on(world, &["a1", "a2", "b1"])])?;
    for family in Family::ALL {
        let client = world.address(From::Outside, family);
        world.reaches_as(From::Outside, world.node_port("a", web, family), &["a1", "a2"], client)?;
        world.reaches_as(From::Outside, world.node_port("b", web, family), &["b1"], client)?;
    }
    Ok(())
}
