//! C16: a source address that is not the sender's.

use anyhow::{Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::packet::Packet;
use lbr_tests::probe::send_frames;
use serde_json::json;

use crate::packets::{arrives, at, isolated, on_link, policies, send};
use crate::stage;
use crate::world::World;

/// Whether a datagram of `from` with the source address of `claimed` arrives at `to`.
fn passes(world: &World, from: &str, claimed: &str, to: &str, family: Family) -> Result<bool> {
    let [from, claimed, to] = [world.actor(from)?, world.actor(claimed)?, world.actor(to)?];
    let ident = world.next_ident();
    let packet = Packet::udp(at(claimed, family, ident), at(to, family, 80)).payload(b"spoofed");
    let frame = on_link(packet, from, to)?.build();
    arrives(to, |p| p.src.port() == ident, || send(from, &frame))
}

/// None of these arrives, and lbr on the sender's node counts the reason.
fn all_dropped(world: &World, triples: &[(&str, &str, &str)]) -> Result<()> {
    for (from, claimed, to) in triples {
        let node = usize::from(world.actor(from)?.pod.as_ref().is_some_and(|pod| pod.node == "node-b"));
        for family in Family::ALL {
            ensure!(passes(world, from, from, to, family)?, "{from} -> {to} {family:?}: its own address");
            let before = world.counted(node, "spoofed_source")?;
            let is_through = passes(world, from, claimed, to, family)?;
            ensure!(!is_through, "{from} as {claimed} -> {to} {family:?}: arrived");
            let after = world.counted(node, "spoofed_source")?;
            ensure!(after > before, "{from} as {claimed} -> {to} {family:?}: not counted as spoofed");
        }
    }
    Ok(())
}

#[test]
fn c16_a_pod_as_another_pod() {
    stage::with(|world| {
        world.apply(&policies("nothing", &json!([])))?;
        all_dropped(
            world,
            &[
                ("x/a", "x/b", "y/a"),
                ("x/a", "y/a", "z/a"),
                ("x/c", "y/b", "z/a"),
                ("x/c", "z/a", "x/a"),
                ("x/b", "z/a", "x/a"),
            ],
        )
    })
    .unwrap();
}

#[test]
fn c16_a_pod_as_its_node() {
    stage::with(|world| {
        world.apply(&policies("nothing", &json!([])))?;
        all_dropped(
            world,
            &[
                ("x/a", "node-a", "x/b"),
                ("x/a", "node-a", "x/c"),
                ("x/c", "node-b", "y/b"),
                ("x/c", "node-b", "x/a"),
            ],
        )
    })
    .unwrap();
}

#[test]
fn c16_a_pod_as_another_node_or_an_outside_host() {
    stage::with(|world| {
        world.apply(&policies("nothing", &json!([])))?;
        all_dropped(
            world,
            &[
                ("x/a", "node-b", "y/a"),
                ("x/a", "ext-100", "x/b"),
                ("x/c", "node-a", "y/b"),
                ("x/c", "ext-100", "x/a"),
            ],
        )
    })
    .unwrap();
}

/// A packet from the wire is not the node's, whatever its source: also where every peer may reach the pod.
#[test]
fn c16_the_wire_as_the_pods_own_node() {
    stage::with(|world| {
        let outside = world.actor("ext-100")?;
        let cases = [isolated(&["x"]), policies("nothing", &json!([]))];
        let ends = [(0, "node-a", "x/a"), (1, "node-b", "x/c")];
        for (case, (number, node, to)) in cases.iter().flat_map(|case| ends.map(|end| (case, end))) {
            world.apply(case)?;
            let (node, to) = (world.actor(node)?, world.actor(to)?);
            let mac = link_address(world, number)?;
            for family in Family::ALL {
                let ident = world.next_ident();
                let packet = Packet::udp(at(node, family, ident), at(to, family, 80)).payload(b"spoofed");
                let frame = packet.macs([2, 0, 0, 0, 0, 9], mac).build();
                let is_through =
                    arrives(to, |p| p.src.port() == ident, || send_frames(&outside.ns, "eth0", &[frame]))?;
                ensure!(!is_through, "the wire as {} -> {} {family:?}: arrived", node.name, to.name);
            }
        }
        Ok(())
    })
    .unwrap();
}

/// The link address of a node's `eth0`.
fn link_address(world: &World, node: usize) -> Result<[u8; 6]> {
    let text = world.nodes[node].ns.run(|| {
        let output = std::process::Command::new("ip").args(["-o", "link", "show", "eth0"]).output()?;
        Ok(String::from_utf8(output.stdout)?)
    })?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let mac = words.windows(2).find(|pair| pair[0] == "link/ether").map_or("", |pair| pair[1]);
    let bytes: Vec<u8> = mac.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    bytes.try_into().map_err(|_| anyhow::anyhow!("no link address in {text}"))
}
