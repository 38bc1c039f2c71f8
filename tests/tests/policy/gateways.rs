//! A route whose gateway is a pod does not change the kind of the pod's link.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::case::Case;
use crate::packets::policies;
use crate::stage;
use crate::world::World;

/// Destinations of the routes; no host is there.
const BEHIND: [&str; 2] = ["203.0.113.0/24", "2001:db8:cafe::/48"];

/// Interfaces in the output of `lbr show KIND` on a node.
fn interfaces(world: &World, node: usize, kind: &str) -> Result<BTreeSet<u64>> {
    let shown = world.agents[node].show(kind)?;
    let rows = shown.as_array().with_context(|| format!("{kind} are a list"))?;
    Ok(rows.iter().filter_map(|row| row["ifindex"].as_u64()).collect())
}

/// Only the node reaches x/a and x/c; the other pods reach each other.
fn closed() -> Case {
    let words = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
    let pods = json!([{"key": "pod", "operator": "In", "values": ["a", "c"]}]);
    let closed = json!([{"in": "x", "podSelector": {"matchExpressions": pods}, "ingress": []}]);
    Case {
        denied: words(&["x/b y/a y/b ext-100 -> x/a x/c tcp/80 udp/80 icmp"]),
        allowed: words(&[
            "node-a -> x/a tcp/80 udp/80",
            "node-b -> x/c tcp/80 udp/80",
            "x/a x/b -> y/a y/b tcp/80",
            "x/c y/b -> z/a x/b tcp/80",
        ]),
        ..policies("closed", &closed)
    }
}

#[test]
fn a_pod_that_is_a_gateway_keeps_its_programs() {
    stage::with(|world| {
        let before =
            [0, 1].map(|node| (interfaces(world, node, "links"), interfaces(world, node, "uplinks")));
        let ways = [("x/a", 0), ("x/c", 1)].map(|(name, node)| (world.actor(name), node));
        let mut undo = Vec::new();
        for (actor, node) in ways {
            let actor = actor?;
            let pod = actor.pod.as_ref().context("a pod")?;
            let device = if node == 0 { pod.link.as_str() } else { "cni0" };
            for (behind, gateway) in BEHIND.iter().zip(actor.addresses) {
                world.nodes[node].ns.ip([format!("route add {behind} via {gateway} dev {device} onlink")])?;
                undo.push((node, format!("route del {behind} via {gateway} dev {device}")));
            }
        }
        let result = (|| {
            // The agents see a route within 15 milliseconds.
            std::thread::sleep(Duration::from_millis(200));
            world.play(&closed())?;
            for (node, (links, uplinks)) in before.into_iter().enumerate() {
                let now = interfaces(world, node, "links")?;
                ensure!(now == links?, "node {node}: other pods' links: {now:?}");
                let now = interfaces(world, node, "uplinks")?;
                ensure!(now == uplinks?, "node {node}: other uplinks: {now:?}");
            }
            Ok(())
        })();
        for (node, line) in undo {
            world.nodes[node].ns.ip([line])?;
        }
        result
    })
    .unwrap();
}
