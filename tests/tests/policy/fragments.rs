//! C17: later fragments have the verdict of their first fragment.

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::packet::Packet;
use lbr_tests::probe::{Client, pattern};
use serde_json::json;

use crate::cast::crossed;
use crate::packets::{arrives, at, on_link, policies, send};
use crate::probe::short;
use crate::stage;
use crate::world::World;

/// Datagrams to port 80 only, to every pod of x and from every pod of y.
fn only_80(world: &World) -> Result<()> {
    let ports = json!([{"port": 80, "protocol": "UDP"}]);
    world.apply(&policies(
        "only UDP 80",
        &json!([
            {"in": "x", "podSelector": {}, "ingress": [{"ports": ports}]},
            {"in": "y", "podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": ports}]},
        ]),
    ))
}

const PAIRS: [(&str, &str); 4] = [("y/a", "x/a"), ("y/a", "x/c"), ("y/b", "x/c"), ("y/b", "x/b")];

#[test]
fn c17_all_fragments_of_allowed_datagrams_pass() {
    stage::with(|world| {
        only_80(world)?;
        for (from, to) in PAIRS {
            let (client, to) = (Client::new(&world.actor(from)?.ns), world.actor(to)?);
            for family in Family::ALL {
                let service = (to.service[family.index()], crossed(80)).into();
                for target in [at(to, family, 80), service] {
                    for len in [2_000, 30_000] {
                        client.udp_echo(target, len).with_context(|| format!("{from} -> {target}"))?;
                    }
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}

/// C4: a pod that may send nothing to other pods exchanges datagrams over the MTU with its own node, as it does short ones.
#[test]
fn c4_fragments_between_an_isolated_pod_and_its_node() {
    stage::with(|world| {
        world.apply(&policies(
            "no egress",
            &json!([
                {"in": "x", "podSelector": {}, "policyTypes": ["Egress"]},
                {"in": "y", "podSelector": {}, "policyTypes": ["Egress"]},
            ]),
        ))?;
        for (pod, node) in [("x/a", "node-a"), ("x/c", "node-b"), ("y/b", "node-b")] {
            let (client, node) = (Client::new(&world.actor(pod)?.ns), world.actor(node)?);
            for family in Family::ALL {
                for len in [100, 1_473, 2_000, 30_000] {
                    let target = at(node, family, 80);
                    client
                        .udp_echo(target, len)
                        .with_context(|| format!("{pod} -> {target}, {len} bytes"))?;
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}

#[test]
fn c17_no_fragment_of_denied_datagrams_passes() {
    stage::with(|world| {
        only_80(world)?;
        for (from, to) in PAIRS.into_iter().chain([("z/a", "x/a"), ("z/a", "x/c"), ("y/a", "z/a")]) {
            let (sender, to) = (world.actor(from)?, world.actor(to)?);
            for family in Family::ALL {
                let service = (to.service[family.index()], crossed(81)).into();
                for target in [at(to, family, 81), service] {
                    let echo = || {
                        let _ = Client::new(&sender.ns).timeout(short()).udp_echo(target, 4_000);
                        Ok(())
                    };
                    let source = sender.address(family);
                    let is_piece =
                        |p: &lbr_tests::packet::Parsed| p.fragment.is_some() && p.src.ip() == source;
                    ensure!(!arrives(to, is_piece, echo)?, "{from} -> {target}: a fragment arrived");
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}

#[test]
fn c17_fragments_without_a_first_one_are_dropped() {
    stage::with(|world| {
        only_80(world)?;
        for (number, (from, to)) in PAIRS.into_iter().enumerate() {
            let (from, to) = (world.actor(from)?, world.actor(to)?);
            for family in Family::ALL {
                let ident = world.next_ident();
                let packet =
                    Packet::udp(at(from, family, ident), at(to, family, 80)).payload(&pattern(2_400));
                let id = 7_000 + u32::from(ident) + u32::try_from(number)?;
                let frames = on_link(packet, from, to)?.fragments(id, 800);
                let later = || frames[1..].iter().try_for_each(|frame| send(from, frame));
                let is_piece = |p: &lbr_tests::packet::Parsed| {
                    p.fragment.is_some_and(|f| f.id == id & 0xffff || f.id == id)
                };
                let (from, to_name) = (&from.name, &to.name);
                ensure!(!arrives(to, is_piece, later)?, "{from} -> {to_name} {family:?}: arrived");
            }
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}
