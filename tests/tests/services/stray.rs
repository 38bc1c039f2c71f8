//! Segments outside of any connection's window: the client never sees a server under its own address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::netns::Netns;
use lbr_tests::packet::{Packet, Parsed, flags};
use lbr_tests::probe::{Capture, ask_on, send_frames};

use crate::world::{Check, From, World};

pub(crate) const CHECKS: &[Check] = &[(
    "KubeProxy should resolve connection reset issue #74839: out of the window, and still translated",
    out_of_window,
)];

/// The payload of stray segments.
const STRAY: &[u8] = b"stray";

fn out_of_window(world: &World) -> Result<()> {
    let web = world.web();
    world.apply(&[web.at_nodes().yaml(), web.on(world, &["b1"])])?;
    for family in Family::ALL {
        let clients = [
            (From::Outside, world.node_port("a", web, family)),
            (From::Outside, world.node_port("b", web, family)),
            (From::Pod("a2"), web.cluster_ip(family)),
            (From::Pod("b2"), web.cluster_ip(family)),
        ];
        for (from, to) in clients {
            stray(world, from, to).with_context(|| format!("{from:?} to {to}"))?;
        }
    }
    Ok(())
}

fn stray(world: &World, from: From, to: SocketAddr) -> Result<()> {
    let stream = world.client(from).tcp_stream(to)?;
    let server = ask_on(&stream)?;
    let pod = &world.bed.pods()["b1"];
    let capture = Capture::start(ns(world, from)?, "eth0")?;
    let segment = Packet::tcp(server.local, server.peer, flags::ACK).numbers(0x7fff_0000, 1).payload(STRAY);
    send_frames(&pod.ns, "eth0", &[segment.macs(pod.mac, pod.gateway_mac).build()])?;
    let came = capture.wait(Duration::from_secs(2), |frame| {
        Parsed::frame(&frame.bytes).is_ok_and(|packet| packet.payload == STRAY)
    })?;
    let source = Parsed::frame(&came.bytes).map_err(anyhow::Error::msg)?.src;
    ensure!(source == to, "the stray segment came from {source}");
    // A client that got an unknown segment would reset it.
    let others: Vec<IpAddr> = world.bed.pods()["b1"].addresses().into();
    for frame in capture.drain(Duration::from_millis(100))? {
        let Ok(packet) = Parsed::frame(&frame.bytes) else { continue };
        ensure!(!others.contains(&packet.dst.ip()), "the client sends to the pod itself: {packet:?}");
    }
    let again = ask_on(&stream)?;
    ensure!(again == server, "another connection: {again}");
    Ok(())
}

fn ns(world: &World, from: From) -> Result<&Netns> {
    match from {
        From::Pod(name) => Ok(&world.bed.pods()[name].ns),
        From::Outside => Ok(&world.bed.clients()["outside"].ns),
        other => anyhow::bail!("{other:?} has no namespace of its own"),
    }
}
