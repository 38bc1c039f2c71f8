//! C22: multicast and broadcast of an isolated pod. Only rules without peers and matching blocks allow it.
//!
//! Between bridged pods of one node, as a routed pod has no neighbour to receive it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::packet::Packet;
use serde_json::{Value, json};

use crate::packets::{arrives, at, policies, send};
use crate::stage;
use crate::world::World;

/// Destinations and their link addresses.
const GROUPS: [(IpAddr, [u8; 6]); 3] = [
    (IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3)), [0x01, 0x00, 0x5e, 1, 2, 3]),
    (IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3)), [0x33, 0x33, 0, 1, 0, 3]),
    (IpAddr::V4(Ipv4Addr::BROADCAST), [0xff; 6]),
];

fn check(world: &World, egress: Option<Value>, expected: [bool; 3]) -> Result<()> {
    let all = match egress {
        Some(rules) => json!([{"in": "x", "podSelector": {}, "policyTypes": ["Egress"], "egress": rules}]),
        None => json!([]),
    };
    world.apply(&policies("multicast", &all))?;
    let (from, to) = (world.actor("x/c")?, world.actor("y/b")?);
    let mac = from.pod.as_ref().context("a pod")?.mac;
    for ((group, group_mac), expected) in GROUPS.into_iter().zip(expected) {
        let ident = world.next_ident();
        let packet =
            Packet::udp(at(from, Family::of(group), ident), SocketAddr::new(group, 80)).payload(b"all");
        let frame = packet.macs(mac, group_mac).build();
        let found = arrives(to, |p| p.src.port() == ident, || send(from, &frame))?;
        ensure!(found == expected, "to {group}: arrived {found}, expected {expected}, with {all}");
    }
    Ok(())
}

#[test]
fn c22_not_isolated() {
    stage::with(|world| check(world, None, [true; 3])).unwrap();
}

#[test]
fn c22_isolated() {
    stage::with(|world| check(world, Some(json!([])), [false; 3])).unwrap();
}

#[test]
fn c22_selectors_do_not_match_groups() {
    let rules = json!([{"to": [{"namespaceSelector": {}}]}]);
    stage::with(|world| check(world, Some(rules), [false; 3])).unwrap();
}

#[test]
fn c22_rules_without_peers_match_groups() {
    stage::with(|world| check(world, Some(json!([{"ports": [{"port": 80, "protocol": "UDP"}]}])), [true; 3]))
        .unwrap();
}

#[test]
fn c22_blocks_match_groups() {
    let rules = json!([{"to": [{"ipBlock": {"cidr": "224.0.0.0/4"}}, {"ipBlock": {"cidr": "ff00::/8"}}]}]);
    stage::with(|world| check(world, Some(rules), [true, true, false])).unwrap();
}
