//! C7 and C9: packets that look like an answer, without a request. C4: addresses of a node that are not in its
//! `Node.status`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use lbr_common::addr::Family;
use lbr_tests::packet::{Packet, Parsed, Transport};
use lbr_tests::probe::Client;
use serde_json::{Value, json};

use crate::cast::Actor;
use crate::packets::{arrives, at, isolated, policies};
use crate::probe::{ping, send_raw};
use crate::stage;
use crate::world::World;

/// x may send anything, and is isolated for ingress.
fn senders() -> Value {
    json!([{"in": "x", "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{}]}])
}

/// Whether an echo message from a host outside arrives.
fn echo_arrives(from: &Actor, to: &Actor, ident: u16, reply: bool, family: Family) -> Result<bool> {
    let (src, dst) = (from.address(family), to.address(family));
    let packet =
        if reply { Packet::echo_reply(src, dst, ident, 9) } else { Packet::echo(src, dst, ident, 9) };
    let (header, protocol) = if family.is_v6() { (40, 58) } else { (20, 1) };
    let is_it = |p: &Parsed| {
        let Transport::Icmp { rest, .. } = p.transport else { return false };
        p.src.ip() == src && rest == u32::from(ident) << 16 | 9
    };
    arrives(to, is_it, || send_raw(&from.ns, dst, protocol, &packet.build_ip()[header..]))
}

/// x/a and x/c ping ext-100; then messages with the same identifier come.
fn after_a_ping(expected: &[(&str, bool, bool)]) -> Result<()> {
    stage::with(|world| {
        world.apply(&policies("senders", &senders()))?;
        let asked = world.actor("ext-100")?;
        for pod in ["x/a", "x/c"] {
            let pod = world.actor(pod)?;
            for family in Family::ALL {
                let ident = world.next_ident();
                pod.ns.run(|| ping(asked.address(family), ident, crate::probe::long()))?;
                for &(from, reply, passes) in expected {
                    let found = echo_arrives(world.actor(from)?, pod, ident, reply, family)?;
                    ensure!(
                        found == passes,
                        "{from} -> {} {family:?} reply={reply}: arrived {found}",
                        pod.name
                    );
                }
            }
        }
        Ok(())
    })
}

#[test]
fn c9_reply_of_the_pinged_host_passes() {
    after_a_ping(&[("ext-100", true, true)]).unwrap();
}

#[test]
fn c9_reply_of_another_host_is_denied() {
    after_a_ping(&[("ext-200", true, false)]).unwrap();
}

/// A request with the identifier of an answer is no answer.
#[test]
fn c9_request_with_the_same_identifier_is_denied() {
    after_a_ping(&[("ext-100", false, false), ("ext-200", false, false)]).unwrap();
}

/// Datagrams from port 80 without a request.
#[test]
fn c7_unrequested_answer_is_denied() {
    stage::with(|world| {
        world.apply(&policies("senders", &senders()))?;
        for (from, to) in [("ext-100", "x/a"), ("ext-100", "x/c"), ("y/a", "x/a"), ("y/b", "x/c")] {
            let (from, to) = (world.actor(from)?, world.actor(to)?);
            for family in Family::ALL {
                let (asked, other) = (world.next_ident(), world.next_ident());
                Client::new(&to.ns).from_port(asked).udp(at(from, family, 80))?;
                for port in [other, asked] {
                    let packet = Packet::udp(at(from, family, 80), at(to, family, port)).payload(b"unasked");
                    let bytes = packet.build_ip();
                    let is_it = |p: &Parsed| p.dst.port() == port && p.payload == b"unasked";
                    let udp = &bytes[if family.is_v6() { 40 } else { 20 }..];
                    let found = arrives(to, is_it, || send_raw(&from.ns, to.address(family), 17, udp))?;
                    let is_answer = port == asked;
                    ensure!(
                        found == is_answer,
                        "{} -> {} {family:?} answer={is_answer}: {found}",
                        from.name,
                        to.name
                    );
                }
            }
        }
        Ok::<_, anyhow::Error>(())
    })
    .unwrap();
}

/// Addresses of the node that no Node object has: the gateway on the bridge, and one on the loopback.
#[test]
fn c4_the_nodes_other_addresses() {
    stage::with(other_addresses).unwrap();
}

fn other_addresses(world: &World) -> Result<()> {
    world.apply(&isolated(&["x", "y", "z"]))?;
    let added = ["192.0.2.1", "2001:db8::1"];
    let node = &world.actor("node-a")?.ns;
    node.ip(added.map(|ip| format!("addr add {ip} dev lo")))?;
    // lbr learns of them a moment later.
    let client = Client::new(&world.actor("x/a")?.ns).timeout(crate::probe::short());
    let ping = |ip: &str| -> Result<()> {
        let target = ip.parse()?;
        (0..8).map(|_| client.ping(target)).find(Result::is_ok).context("no answer")?
    };
    let pings = added.map(ping);
    node.ip([format!("addr del {}/32 dev lo", added[0]), format!("addr del {}/128 dev lo", added[1])])?;
    for (done, ip) in pings.into_iter().zip(added) {
        done.with_context(|| format!("x/a to its node's {ip}"))?;
    }
    let gateway: [IpAddr; 2] = ["10.244.2.1".parse()?, "fd00:10:244:2::1".parse()?];
    for ip in gateway {
        Client::new(&world.actor("x/c")?.ns).ping(ip).with_context(|| format!("x/c to its gateway {ip}"))?;
        // For the other node's pod it is an ordinary address.
        let other = Client::new(&world.actor("x/a")?.ns).timeout(crate::probe::short());
        ensure!(
            other.tcp(SocketAddr::new(ip, 9)).is_err_and(|e| lbr_tests::probe::is_timeout(&e)),
            "x/a to {ip}"
        );
    }
    Ok(())
}
