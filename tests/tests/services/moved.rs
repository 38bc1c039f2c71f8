//! NodePorts with a second use: one that becomes another Service's, and one whose number is the source port of
//! masqueraded traffic.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::probe::{Server, ask_on};
use lbr_tests::process;

use crate::datagrams::Datagrams;
use crate::world::{Check, From, PORT, World};

pub(crate) const CHECKS: &[Check] = &[
    (
        "a NodePort that moves to another Service takes datagrams with it, and no connection",
        to_another_service,
    ),
    ("traffic masqueraded with a NodePort's number reaches its server", behind_a_node_port),
];

/// Source port of the client's datagrams.
const FROM_PORT: u16 = 12_346;

fn to_another_service(world: &World) -> Result<()> {
    for family in Family::ALL {
        let (old, new) = (world.web(), world.web());
        let port = old.node_port();
        let slices = [old.on(world, &["a1"]), new.on(world, &["b1"])];
        let before = [old.at_nodes().yaml(), new.internal().yaml()];
        let after = [old.internal().yaml(), new.with_node_ports("NodePort", port).yaml()];
        world.apply(&[before.to_vec(), slices.to_vec()].concat())?;
        let to = world.node_port("a", old, family);
        let mut clients = Vec::new();
        for from in [From::Outside, From::Pod("a2"), From::Pod("c1")] {
            let datagrams = Datagrams::from(world, from, FROM_PORT, to)?;
            datagrams.until(|who| who.name == "a1")?;
            let stream = world.client(from).tcp_stream(to)?;
            clients.push((from, datagrams, ask_on(&stream)?, stream));
        }
        world.apply(&[after.to_vec(), slices.to_vec()].concat())?;
        for (from, datagrams, server, stream) in &clients {
            let next = datagrams.once()?.with_context(|| format!("{from:?} to {to}: no answer"))?;
            ensure!(next.name == "b1", "{from:?} to {to}: the next datagram went to {next}");
            let still = ask_on(stream).with_context(|| format!("{from:?} to {to}"))?;
            ensure!(still == *server && still.name == "a1", "{from:?} to {to}: another connection: {still}");
            world.reaches(*from, to, &["b1"])?;
        }
    }
    Ok(())
}

/// A pod asks a server outside. The node masquerades it with a NodePort's number as the source port, so that the
/// answers look like a client's requests to the NodePort.
fn behind_a_node_port(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.on(world, &["a1"])])?;
    let outside = &world.bed.clients()["outside"];
    let _server = Server::start(&outside.ns, "outside", &outside.addresses(), PORT)?;
    let node = &world.node("a").ns;
    let pod = From::Pod("a2");
    let [pod4, pod6] = Family::ALL.map(|family| world.address(pod, family));
    let port = web.node_port();
    let rules = format!(
        "table inet fixed {{ chain out {{ type nat hook postrouting priority srcnat - 5; \
         ip saddr {pod4} ip daddr {v4} meta l4proto {{ tcp, udp }} masquerade to :{port}\n\
         ip6 saddr {pod6} ip6 daddr {v6} meta l4proto {{ tcp, udp }} masquerade to :{port}\n}}\n}}",
        v4 = outside.v4,
        v6 = outside.v6,
    );
    process::run(node.command("nft")?.arg(rules))?;
    let asked = Family::ALL.into_iter().try_for_each(|family| {
        let to = SocketAddr::new(outside.address(family), PORT);
        let seen = world.node_port("a", web, family);
        for who in [world.client(pod).tcp(to), world.client(pod).udp(to)] {
            let who = who.with_context(|| format!("{pod:?} to {to}"))?;
            ensure!(who.name == "outside" && who.peer == seen, "{pod:?} to {to}, as {seen}: {who}");
        }
        // The NodePort works as before.
        world.reaches(From::Stranger, seen, &["a1"]).map(drop)
    });
    process::run(node.command("nft")?.arg("delete table inet fixed"))?;
    asked
}
