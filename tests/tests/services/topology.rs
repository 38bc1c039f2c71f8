//! Endpoints near the client, by the hints for zones and nodes in EndpointSlices.

use anyhow::Result;
use lbr_common::addr::Family;

use crate::objects::State::{Ready, Terminating};
use crate::objects::{Backend, Web, at};
use crate::world::{Check, From, World};

pub(crate) const CHECKS: &[Check] = &[
    (
        "Traffic Distribution should route traffic to an endpoint in the same zone when using PreferSameZone",
        same_zone,
    ),
    (
        "Traffic Distribution should route traffic to an endpoint on the same node when using PreferSameNode",
        same_node,
    ),
    (
        "Traffic Distribution should fall back to the zone when there are no endpoints on the same node",
        node_then_zone,
    ),
    (
        "Topology Hints should distribute endpoints evenly; without all hints all endpoints are used",
        missing_hint,
    ),
    ("no hint names this zone: all endpoints are used", other_zones),
    ("hints of endpoints that are not ready do not count", only_ready),
    ("hints hold for clients at the wire, and not for externalTrafficPolicy=Local", by_the_wire),
];

/// Ready endpoints with hints for their own zones.
fn zoned() -> [Backend; 3] {
    [
        at("a1", Ready).for_zones(&["east"]),
        at("b1", Ready).for_zones(&["west"]),
        at("c1", Ready).for_zones(&["west"]),
    ]
}

fn reaches(world: &World, web: Web, node: &'static str, pod: &'static str, names: &[&str]) -> Result<()> {
    for family in Family::ALL {
        for from in [From::Pod(pod), From::Node(node)] {
            world.reaches(from, web.cluster_ip(family), names)?;
        }
    }
    Ok(())
}

fn same_zone(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.internal().yaml(), web.with(world, &zoned())])?;
    reaches(world, web, "a", "a2", &["a1"])?;
    reaches(world, web, "b", "b2", &["b1", "c1"])?;
    reaches(world, web, "c", "c2", &["b1", "c1"])?;
    // The only endpoint of the zone goes: its clients use the others.
    world.apply(&[web.internal().yaml(), web.with(world, &zoned()[1..])])?;
    reaches(world, web, "a", "a2", &["b1", "c1"])
}

fn same_node(world: &World) -> Result<()> {
    let web = world.web();
    let backends = [
        at("a1", Ready).for_zones(&["east"]).for_nodes(&["a"]),
        at("b1", Ready).for_zones(&["west"]).for_nodes(&["b"]),
        at("c1", Ready).for_zones(&["west"]).for_nodes(&["c"]),
    ];
    world.apply(&[web.internal().yaml(), web.with(world, &backends)])?;
    for (node, pod, name) in [("a", "a2", "a1"), ("b", "b2", "b1"), ("c", "c2", "c1")] {
        reaches(world, web, node, pod, &[name])?;
    }
    Ok(())
}

fn node_then_zone(world: &World) -> Result<()> {
    let web = world.web();
    let backends = [
        at("a1", Ready).for_zones(&["east"]).for_nodes(&["a"]),
        at("b1", Ready).for_zones(&["west"]).for_nodes(&["b"]),
        at("b2", Ready).for_zones(&["west"]).for_nodes(&["b"]),
    ];
    world.apply(&[web.internal().yaml(), web.with(world, &backends)])?;
    reaches(world, web, "b", "b2", &["b1", "b2"])?;
    // No hint names this node, and two name its zone.
    reaches(world, web, "c", "c2", &["b1", "b2"])
}

fn missing_hint(world: &World) -> Result<()> {
    let web = world.web();
    let [a, b, _] = zoned();
    world.apply(&[web.internal().yaml(), web.with(world, &[a, b, at("c1", Ready)])])?;
    for (node, pod) in [("a", "a2"), ("b", "b2"), ("c", "c2")] {
        reaches(world, web, node, pod, &["a1", "b1", "c1"])?;
    }
    world.apply(&[web.internal().yaml(), web.with(world, &zoned())])?;
    reaches(world, web, "a", "a2", &["a1"])
}

fn other_zones(world: &World) -> Result<()> {
    let web = world.web();
    let backends = [at("a1", Ready).for_zones(&["north"]), at("b1", Ready).for_zones(&["west"])];
    world.apply(&[web.internal().yaml(), web.with(world, &backends)])?;
    reaches(world, web, "a", "a2", &["a1", "b1"])?;
    reaches(world, web, "c", "c2", &["b1"])
}

fn only_ready(world: &World) -> Result<()> {
    let web = world.web();
    let [a, b, c] = zoned();
    let going = at("a2", Terminating);
    world.apply(&[web.internal().yaml(), web.with(world, &[a, b, c, going])])?;
    reaches(world, web, "a", "a2", &["a1"])?;
    reaches(world, web, "b", "b2", &["b1", "c1"])
}

fn by_the_wire(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.with(world, &zoned())])?;
    for family in Family::ALL {
        world.reaches(From::Outside, world.node_port("a", web, family), &["a1"])?;
        world.reaches(From::Outside, world.node_port("b", web, family), &["b1", "c1"])?;
    }
    let backends = [at("a1", Ready).for_zones(&["west"]), at("b1", Ready).for_zones(&["east"])];
    let local = web.at_nodes().spec("externalTrafficPolicy: Local").yaml();
    world.apply(&[local, web.with(world, &backends)])?;
    for family in Family::ALL {
        world.reaches(From::Outside, world.node_port("a", web, family), &["a1"])?;
        world.reaches(From::Outside, world.node_port("b", web, family), &["b1"])?;
    }
    Ok(())
}
