//! Clients that may use a load balancer's address (`loadBalancerSourceRanges`).

use anyhow::Result;
use lbr_common::addr::Family;
use lbr_tests::manifests::Service;

use crate::objects::Web;
use crate::world::{Check, From, World};

pub(crate) const CHECKS: &[Check] = &[
    ("LoadBalancers should only allow access from service loadbalancer source ranges", from_outside),
    ("LoadBalancers should only allow access from service loadbalancer source ranges (pods)", from_pods),
    ("LoadBalancers should only allow access from service loadbalancer source ranges (nodes)", from_nodes),
    ("ranges change, and a range of all addresses restricts nothing", changes),
    ("ranges do not apply to NodePorts and the ClusterIP", other_addresses),
];

fn only(web: Web, ranges: &[String]) -> Service {
    let list = ranges.iter().map(|range| format!("\"{range}\"")).collect::<Vec<_>>().join(", ");
    web.balanced().spec(&format!("loadBalancerSourceRanges: [{list}]"))
}

/// A range of each family with one address.
fn just(world: &World, from: From) -> Vec<String> {
    vec![
        format!("{}/32", world.address(from, Family::V4)),
        format!("{}/128", world.address(from, Family::V6)),
    ]
}

/// Routes the address to this node.
fn serve(world: &World, web: Web, ranges: &[String], node: &str) -> Result<()> {
    world.apply(&[only(web, ranges).yaml(), web.on(world, &["a1", "b1"])])?;
    web.externals().into_iter().try_for_each(|vip| world.bed.route_vip(vip, world.node(node)))
}

fn from_outside(world: &World) -> Result<()> {
    let web = world.web();
    for (allowed, denied) in [(From::Outside, From::Stranger), (From::Stranger, From::Outside)] {
        serve(world, web, &just(world, allowed), "a")?;
        for family in Family::ALL {
            world.reaches(allowed, web.external(family), &["a1", "b1"])?;
            world.is_lost(denied, web.external(family))?;
        }
    }
    Ok(())
}

/// The pod's own address counts, on whatever node.
fn from_pods(world: &World) -> Result<()> {
    let web = world.web();
    for (allowed, denied) in [("a2", "b2"), ("b2", "a2")] {
        serve(world, web, &just(world, From::Pod(allowed)), "a")?;
        for family in Family::ALL {
            world.reaches(From::Pod(allowed), web.external(family), &["a1", "b1"])?;
            world.is_lost(From::Pod(denied), web.external(family))?;
            world.is_lost(From::Outside, web.external(family))?;
        }
    }
    Ok(())
}

fn from_nodes(world: &World) -> Result<()> {
    let web = world.web();
    serve(world, web, &just(world, From::Node("a")), "a")?;
    for family in Family::ALL {
        world.reaches(From::Node("a"), web.external(family), &["a1", "b1"])?;
        world.fails(From::Node("b"), web.external(family))?;
    }
    Ok(())
}

fn changes(world: &World) -> Result<()> {
    let web = world.web();
    let everybody = ["0.0.0.0/0", "::/0"].map(str::to_owned);
    for _ in 0..2 {
        serve(world, web, &just(world, From::Stranger), "b")?;
        for family in Family::ALL {
            world.is_lost(From::Outside, web.external(family))?;
        }
        serve(world, web, &everybody, "b")?;
        for family in Family::ALL {
            for from in [From::Outside, From::Stranger, From::Pod("a2"), From::Node("c")] {
                world.reaches(from, web.external(family), &["a1", "b1"])?;
            }
        }
    }
    // As users write ranges: with spaces around, and wider than one address.
    serve(world, web, &[" 192.0.2.0/24 ".to_owned(), " 2001:db8:2::/64 ".to_owned()], "b")?;
    for family in Family::ALL {
        world.reaches(From::Outside, web.external(family), &["a1", "b1"])?;
        world.is_lost(From::Pod("a2"), web.external(family))?;
    }
    world.apply(&[web.balanced().yaml(), web.on(world, &["a1", "b1"])])?;
    for family in Family::ALL {
        world.reaches(From::Pod("a2"), web.external(family), &["a1", "b1"])?;
    }
    Ok(())
}

fn other_addresses(world: &World) -> Result<()> {
    let web = world.web();
    serve(world, web, &just(world, From::Stranger), "a")?;
    for family in Family::ALL {
        for from in [From::Outside, From::Pod("a2"), From::Node("a")] {
            world.reaches(from, world.node_port("a", web, family), &["a1", "b1"])?;
        }
        for from in [From::Pod("a2"), From::Node("a")] {
            world.reaches(from, web.cluster_ip(family), &["a1", "b1"])?;
        }
    }
    Ok(())
}
