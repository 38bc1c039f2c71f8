//! C8: errors of routers. C10: neighbour discovery, and messages of routers.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::packet::{Packet, Parsed, Reason, Transport};
use lbr_tests::probe::Client;
use serde_json::{Value, json};

use crate::packets::{arrives, at, isolated, policies, send};
use crate::probe::{send_raw, short};
use crate::stage;
use crate::world::World;

/// x may send UDP, and is isolated for ingress.
fn senders() -> Value {
    let egress = json!([{"ports": [{"port": 80, "protocol": "UDP"}]}]);
    json!([{"in": "x", "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": egress}])
}

/// A router (a host outside) sends `from` an error about a datagram to `to`, which was sent or not.
fn complaint_arrives(
    world: &World,
    from: &str,
    to: &str,
    reason: Reason,
    family: Family,
    sent: bool,
) -> Result<bool> {
    let [from, to, router] = [world.actor(from)?, world.actor(to)?, world.actor("ext-100")?];
    let ident = world.next_ident();
    if sent {
        Client::new(&from.ns).from_port(ident).udp(at(to, family, 80)).context("the datagram")?;
    }
    let quoted = Packet::udp(at(from, family, ident), at(to, family, 80)).payload(b"who").build_ip();
    let error = Packet::icmp_error(router.address(family), from.address(family), reason, &quoted).build_ip();
    let (header, protocol) = if family.is_v6() { (40, 58) } else { (20, 1) };
    let is_it = |p: &Parsed| p.quoted().is_some_and(|q| q.src.port() == ident);
    arrives(from, is_it, || send_raw(&router.ns, from.address(family), protocol, &error[header..]))
}

fn complaints(reason: Reason) -> Result<()> {
    stage::with(|world| {
        world.apply(&policies("senders", &senders()))?;
        for (from, to) in [("x/a", "y/a"), ("x/a", "y/b"), ("x/c", "y/b"), ("x/c", "ext-200")] {
            for family in Family::ALL {
                for sent in [true, false] {
                    let found = complaint_arrives(world, from, to, reason, family, sent)?;
                    ensure!(found == sent, "about {from} -> {to} {family:?} sent={sent}: arrived {found}");
                }
            }
        }
        Ok(())
    })
}

#[test]
fn c8_too_big() {
    complaints(Reason::TooBig { mtu: 1400 }).unwrap();
}

#[test]
fn c8_time_exceeded() {
    complaints(Reason::TimeExceeded).unwrap();
}

#[test]
fn c8_host_unreachable() {
    complaints(Reason::HostUnreachable).unwrap();
}

/// Neighbours are resolved even where no other packet passes.
#[test]
fn c10_neighbours_are_found() {
    stage::with(|world| {
        world.apply(&isolated(&["x", "y", "z"]))?;
        let (from, to) = (world.actor("x/c")?, world.actor("y/b")?);
        from.ns.ip(["neigh flush all"])?;
        for family in Family::ALL {
            let target = to.address(family);
            let client = Client::new(&from.ns).timeout(short());
            ensure!(client.ping(target).is_err(), "{target} answers");
            let known = neighbours(world, "x/c")?;
            let line = known.lines().find(|line| line.split_whitespace().next() == Some(&target.to_string()));
            ensure!(line.is_some_and(|line| line.contains("lladdr")), "{target} is not in\n{known}");
        }
        // The pod and its node as well, in both kinds of network.
        for (node, pod) in [("node-a", "x/a"), ("node-b", "x/c")] {
            let (node, pod) = (world.actor(node)?, world.actor(pod)?);
            node.ns.ip(["neigh flush all"])?;
            for family in Family::ALL {
                Client::new(&node.ns)
                    .ping(pod.address(family))
                    .with_context(|| format!("{} to {}", node.name, pod.name))?;
            }
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}

fn neighbours(world: &World, name: &str) -> Result<String> {
    let mut command = world.actor(name)?.ns.command("ip")?;
    Ok(String::from_utf8(command.args(["neigh", "show"]).output()?.stdout)?)
}

/// A message of ICMPv6 with a chosen type, from x/c to its neighbour y/b or to all neighbours.
fn neighbour_message_arrives(world: &World, kind: u8, to: IpAddr, mac: [u8; 6]) -> Result<bool> {
    let (from, neighbour) = (world.actor("x/c")?, world.actor("y/b")?);
    let ident = world.next_ident();
    let mut body = vec![kind, 0, 0, 0, 64, 0];
    body.extend(ident.to_be_bytes());
    body.extend([0; 32]);
    let sum = lbr_tests::packet::pseudo_sum(from.address(Family::V6), to, 58, body.len());
    let sum = !lbr_tests::packet::sum(sum, &body);
    body[2..4].copy_from_slice(&(sum as u16).to_be_bytes());
    let pod = from.pod.as_ref().context("a pod")?;
    let frame =
        Packet::raw(from.address(Family::V6), to, 58).payload(&body).ttl(255).macs(pod.mac, mac).build();
    let is_it = |p: &Parsed| match p.transport {
        Transport::Icmp { kind: k, rest, .. } => k == kind && rest & 0xffff == u32::from(ident),
        _ => false,
    };
    arrives(neighbour, is_it, || send(from, &frame))
}

#[test]
fn c10_pods_are_no_routers() {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const REDIRECT: u8 = 137;
    stage::with(|world| {
        let neighbour = world.actor("y/b")?;
        let all: IpAddr = "ff02::1".parse()?;
        let mac = neighbour.pod.as_ref().context("a pod")?.mac;
        for state in [policies("nothing", &json!([])), isolated(&["x", "y"])] {
            world.apply(&state)?;
            for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
                for (to, mac) in [(all, [0x33, 0x33, 0, 0, 0, 1]), (neighbour.address(Family::V6), mac)] {
                    let before = world.counted(1, "router_message")?;
                    let found = neighbour_message_arrives(world, kind, to, mac)?;
                    ensure!(!found, "{}: type {kind} to {to} arrived", state.name);
                    let after = world.counted(1, "router_message")?;
                    ensure!(after > before, "{}: type {kind} to {to} is not counted", state.name);
                }
            }
        }
        Ok(())
    })
    .unwrap();
}

/// Neighbour solicitations and advertisements also pass as packets, isolated or not.
#[test]
fn c10_neighbour_messages_pass() {
    stage::with(|world| {
        let mac = world.actor("y/b")?.pod.as_ref().context("a pod")?.mac;
        let to = world.actor("y/b")?.address(Family::V6);
        for state in [policies("nothing", &json!([])), isolated(&["x", "y"])] {
            world.apply(&state)?;
            for kind in [135, 136] {
                ensure!(neighbour_message_arrives(world, kind, to, mac)?, "{}: type {kind}", state.name);
            }
        }
        Ok(())
    })
    .unwrap();
}
