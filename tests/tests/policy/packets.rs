//! Packets made by hand: their sending, and the check whether they arrive.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lbr_common::addr::Family;
use lbr_tests::packet::{Packet, Parsed};
use lbr_tests::probe::{Capture, send_frames};
use serde_json::{Value, json};

use crate::case::Case;
use crate::cast::Actor;
use crate::probe::short;
use crate::world::World;

/// A case with these policies.
pub(crate) fn policies(name: &str, policies: &Value) -> Case {
    let policies = policies.as_array().into_iter().flatten();
    let policies = policies.filter_map(|policy| policy.as_object().cloned()).collect();
    Case { name: name.to_owned(), policies, ..Case::default() }
}

/// Nothing in and nothing out, for every pod of these namespaces.
pub(crate) fn isolated(namespaces: &[&str]) -> Case {
    let all: Vec<Value> = namespaces
        .iter()
        .map(|namespace| json!({"in": namespace, "podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
        .collect();
    policies("isolated", &Value::Array(all))
}

/// An address and a port of one of the cast.
pub(crate) fn at(actor: &Actor, family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(actor.address(family), port)
}

/// Sets the link addresses for the packet's path: to a neighbour on the bridge, or to the gateway.
pub(crate) fn on_link(packet: Packet, from: &Actor, to: &Actor) -> Result<Packet> {
    use lbr_tests::topology::PodNetwork::Bridge;
    let pod = from.pod.as_ref().with_context(|| format!("{} is no pod", from.name))?;
    let neighbour = to.pod.as_ref().filter(|to| to.node == pod.node && pod.network == Bridge);
    Ok(packet.macs(pod.mac, neighbour.map_or(pod.gateway_mac, |to| to.mac)))
}

/// Sends a frame out of `eth0` of one of the cast.
pub(crate) fn send(from: &Actor, frame: &[u8]) -> Result<()> {
    send_frames(&from.ns, "eth0", &[frame])
}

/// Whether `act` makes a packet arrive at the interface of one of the cast.
pub(crate) fn arrives(
    to: &Actor,
    matches: impl Fn(&Parsed) -> bool,
    act: impl FnOnce() -> Result<()>,
) -> Result<bool> {
    let capture = Capture::start(&to.ns, "eth0")?;
    act()?;
    let found = capture.wait(patience(), |frame| {
        !frame.outgoing && Parsed::frame(&frame.bytes).is_ok_and(|packet| matches(&packet))
    });
    Ok(found.is_ok())
}

fn patience() -> Duration {
    short()
}

impl World {
    /// A counter of the agent on a node (0 or 1), all hooks together.
    pub(crate) fn counted(&self, node: usize, verdict: &str) -> Result<u64> {
        let shown = self.agents[node].show("counters")?;
        let rows = shown.as_array().context("counters are a list")?.iter();
        Ok(rows.filter(|row| row["verdict"] == verdict).filter_map(|row| row["packets"].as_u64()).sum())
    }
}
