//! C4 and C16: a packet that the node masquerades into a pod comes from outside, whatever its address. C18: a stray
//! segment leaves no connection behind.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::packet::{Packet, flags};
use lbr_tests::probe::Client;
use lbr_tests::process;
use serde_json::{Value, json};

use crate::packets::{arrives, at, policies};
use crate::probe::{long, send_raw, short};
use crate::stage;
use crate::world::World;

/// x receives only what these rules allow.
fn receivers(rules: &Value) -> crate::case::Case {
    policies(
        "receivers",
        &json!([{"in": "x", "podSelector": {}, "policyTypes": ["Ingress"], "ingress": rules}]),
    )
}

/// A host outside asks a pod through the pod's node, which masquerades the request.
#[test]
fn c16_masqueraded_packet_is_judged() {
    stage::with(|world| {
        let node = world.actor("node-a")?;
        let (asks, asked) = (world.actor("ext-100")?, world.actor("x/a")?);
        let rule = |family: Family| {
            let ip = if family.is_v6() { "ip6" } else { "ip" };
            let [from, to, by] = [asks, asked, node].map(|actor| actor.address(family));
            format!("{ip} saddr {from} {ip} daddr {to} snat {ip} to {by}")
        };
        let rules = format!(
            "table inet as_node {{ chain out {{ type nat hook postrouting priority srcnat; {}\n{}\n}}\n}}",
            rule(Family::V4),
            rule(Family::V6)
        );
        process::run(node.ns.command("nft")?.arg(rules))?;
        let judged = is_judged(world);
        process::run(node.ns.command("nft")?.arg("delete table inet as_node"))?;
        judged
    })
    .unwrap();
}

fn is_judged(world: &World) -> Result<()> {
    let node = world.actor("node-a")?;
    let (asks, asked) = (world.actor("ext-100")?, world.actor("x/a")?);
    let blocks = Family::ALL.map(|family| {
        let width = if family.is_v6() { 128 } else { 32 };
        json!({"ipBlock": {"cidr": format!("{}/{width}", node.address(family))}})
    });
    for (rules, is_allowed) in [(json!([]), false), (json!([{"from": blocks}]), true)] {
        world.apply(&receivers(&rules))?;
        for family in Family::ALL {
            let (denied, spoofed) =
                (world.counted(0, "ingress_denied")?, world.counted(0, "spoofed_source")?);
            let client = Client::new(&asks.ns).timeout(if is_allowed { long() } else { short() });
            for who in [client.tcp(at(asked, family, 80)), client.udp(at(asked, family, 80))] {
                if is_allowed {
                    let who = who.with_context(|| format!("{family:?}, allowed"))?;
                    ensure!(who.peer.ip() == node.address(family), "not masqueraded: {who}");
                } else {
                    ensure!(who.is_err(), "{family:?}: denied, but answered");
                }
            }
            let is_denied = world.counted(0, "ingress_denied")? > denied;
            ensure!(
                is_denied != is_allowed,
                "{family:?}, allowed {is_allowed}: counted as denied {is_denied}"
            );
            ensure!(world.counted(0, "spoofed_source")? == spoofed, "{family:?}: counted as spoofed");
        }
    }
    Ok(())
}

/// A segment that opens nothing passes, as it may belong to a connection that the pod has opened. The pod answers
/// with a reset. The SYN behind it, from the same port of an ordinary socket, is judged for itself.
#[test]
fn c18_a_syn_behind_a_stray_segment() {
    stage::with(|world| {
        world.apply(&receivers(&json!([])))?;
        let strays = [flags::ACK, flags::RST, flags::SYN | flags::ACK];
        for (from, to) in [("ext-100", "x/a"), ("y/a", "x/a"), ("y/b", "x/c")] {
            let (from, to) = (world.actor(from)?, world.actor(to)?);
            for (family, bits) in Family::ALL.into_iter().flat_map(|family| strays.map(|bits| (family, bits)))
            {
                let port = world.next_ident();
                let what = || format!("{} -> {} {family:?} flags {bits}", from.name, to.name);
                let stray = Packet::tcp(at(from, family, port), at(to, family, 80), bits)
                    .numbers(7_000, 9_000)
                    .build_ip();
                let segment = &stray[if family.is_v6() { 40 } else { 20 }..];
                let is_it = |packet: &lbr_tests::packet::Parsed| packet.src.port() == port;
                let came = arrives(to, is_it, || send_raw(&from.ns, to.address(family), 6, segment))?;
                ensure!(came, "{}: the segment itself does not arrive", what());
                let before = world.counted(usize::from(to.name == "x/c"), "ingress_denied")?;
                let client = Client::new(&from.ns).from_port(port).timeout(short());
                ensure!(
                    client.tcp(SocketAddr::new(to.address(family), 80)).is_err(),
                    "{}: connected",
                    what()
                );
                let after = world.counted(usize::from(to.name == "x/c"), "ingress_denied")?;
                ensure!(after > before, "{}: the SYN was not denied", what());
            }
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}
