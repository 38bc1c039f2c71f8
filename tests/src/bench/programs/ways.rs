//! The measured paths of a packet: where it is, what happened before, and its verdict.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use lbr_common::addr::Family;
use lbr_common::verdict::{Hook, Verdict};

use super::node::{Links, Net, Node, PORT, Web, nets};
use crate::packet::{Packet, Parsed, flags};

/// The port of clients whose flows are known.
const CLIENT: u16 = 40_000;
/// The first port of clients that begin one flow after the other.
const FIRST: u16 = 1_024;

/// Packets of one way.
pub(super) enum Packets {
    /// Always this one.
    Same(Vec<u8>),
    /// Each one begins a flow, by its number.
    New(Box<dyn Fn(u16) -> Vec<u8>>),
}

impl Packets {
    /// The packet with this number.
    pub(super) fn number(&self, number: u16) -> Vec<u8> {
        match self {
            Self::Same(packet) => packet.clone(),
            Self::New(make) => make(number),
        }
    }
}

/// A packet at a program.
pub(super) struct Step {
    pub(super) hook: Hook,
    pub(super) link: u32,
    /// The interface by which it entered the node; 0: the node sends it.
    pub(super) entered_by: u32,
    pub(super) packet: Vec<u8>,
}

/// A measured path.
pub(super) struct Way {
    pub(super) hook: Hook,
    pub(super) name: &'static str,
    pub(super) link: u32,
    pub(super) entered_by: u32,
    /// Steps before the measurement.
    pub(super) before: Vec<Step>,
    pub(super) packets: Packets,
    /// The expected verdict.
    pub(super) verdict: Verdict,
    family: Option<Family>,
}

impl Way {
    /// Name of the family; empty where there is none.
    pub(super) fn family(&self) -> &'static str {
        self.family.map_or("", Family::name)
    }
}

/// All paths, by program.
pub(super) fn all(node: &mut Node) -> Result<Vec<Way>> {
    let links = node.links();
    let mut ways: Vec<Way> =
        [Hook::FromPod, Hook::ToPod, Hook::FromNetdev, Hook::ToNetdev].map(|hook| not_ip(hook, links)).into();
    for net in nets()? {
        let at = At { net, links };
        ways.extend(at.of_from_pod());
        ways.extend(at.of_to_pod());
        ways.extend(at.of_from_netdev(node)?);
        ways.extend(at.of_to_netdev());
    }
    // Both families of a path are side by side, as the sort is stable.
    ways.sort_by_key(|way| way.hook);
    Ok(ways)
}

fn not_ip(hook: Hook, links: Links) -> Way {
    // An ARP answer, as far as programs read it.
    let mut packet = vec![2, 0, 0, 0, 0, 2];
    packet.extend([2, 0, 0, 0, 0, 1, 0x08, 0x06]);
    packet.resize(60, 0);
    let link = if matches!(hook, Hook::FromPod | Hook::ToPod) { links.client } else { links.uplink };
    let entered_by = if hook == Hook::ToNetdev { 0 } else { link };
    let packets = Packets::Same(packet);
    Way {
        hook,
        name: "not IP",
        link,
        entered_by,
        before: Vec::new(),
        packets,
        verdict: Verdict::NotIp,
        family: None,
    }
}

/// Paths of one family.
#[derive(Clone, Copy)]
struct At {
    net: Net,
    links: Links,
}

impl At {
    fn of_from_pod(self) -> Vec<Way> {
        let Net { client, backend, isolated, far, outside, unallocated, .. } = self.net;
        let known = (client, CLIENT);
        let at_client =
            |name, packets, verdict| self.way(Hook::FromPod, name, self.links.client, packets, verdict);
        let at_backend =
            |name, packets, verdict| self.way(Hook::FromPod, name, self.links.backend, packets, verdict);
        let sent = |packet| self.step(Hook::FromPod, self.links.client, packet);
        let came = |packet| self.step(Hook::FromNetdev, self.links.uplink, packet);
        let (here, there, empty) =
            (self.service(Web::Here), self.service(Web::There), self.service(Web::Empty));
        let (open, closed) = ((far, PORT), (here.0, 81));
        vec![
            at_client("no Service, known flow", same(ack(known, open)), Verdict::Allowed)
                .after(sent(syn(known, open))),
            at_client("no Service, new flow", news(client, open), Verdict::Allowed),
            at_client("to a Service, known flow, TCP", same(ack(known, here)), Verdict::ToBackend)
                .after(sent(syn(known, here))),
            at_client("to a Service, known flow, UDP", same(udp(known, here)), Verdict::ToBackend)
                .after(sent(udp(known, here))),
            at_client("to a Service, new flow, backend here", news(client, here), Verdict::ToBackend),
            at_client("to a Service, new flow, backend elsewhere", news(client, there), Verdict::ToBackend),
            at_backend("answer to a pod here", same(ack((backend, PORT), known)), Verdict::ToClient)
                .after(sent(syn(known, here))),
            at_backend(
                "answer to a client outside",
                same(ack((backend, PORT), (outside, CLIENT))),
                Verdict::ToClient,
            )
            .after(came(syn((outside, CLIENT), self.at_node(Web::Here)))),
            at_client("refused: no endpoint, TCP", same(syn(known, empty)), Verdict::NoEndpoint),
            at_client("refused: no endpoint, UDP", same(udp(known, empty)), Verdict::NoEndpoint),
            at_client("refused: no such port, TCP", same(syn(known, closed)), Verdict::NoSuchPort),
            at_client(
                "dropped: no Service has the address",
                same(syn(known, (unallocated, 80))),
                Verdict::UnallocatedAddress,
            ),
            at_client("dropped: forged source", same(syn((outside, CLIENT), open)), Verdict::SpoofedSource),
            self.way(
                Hook::FromPod,
                "dropped: denied by policy",
                self.links.isolated,
                same(syn((isolated, CLIENT), open)),
                Verdict::EgressDenied,
            ),
        ]
    }

    fn of_to_pod(self) -> Vec<Way> {
        let Net { client, isolated, far, node, .. } = self.net;
        let (known, to) = ((far, CLIENT), (client, PORT));
        let came = |name, link, packets, verdict| Way {
            entered_by: self.links.uplink,
            ..self.way(Hook::ToPod, name, link, packets, verdict)
        };
        let at_client = |name, packets, verdict| came(name, self.links.client, packets, verdict);
        let begun = Step {
            entered_by: self.links.uplink,
            ..self.step(Hook::ToPod, self.links.client, syn(known, to))
        };
        let asked =
            self.step(Hook::FromPod, self.links.client, syn((client, CLIENT), self.service(Web::There)));
        vec![
            at_client("no Service, known flow", same(ack(known, to)), Verdict::Allowed).after(begun),
            at_client("no Service, new flow", news(far, to), Verdict::Allowed),
            at_client(
                "answer of a backend elsewhere",
                same(ack((far, PORT), (client, CLIENT))),
                Verdict::ToClient,
            )
            .after(asked),
            Way { entered_by: 0, ..at_client("from the node", same(syn((node, CLIENT), to)), Verdict::Node) },
            came(
                "dropped: denied by policy",
                self.links.isolated,
                same(syn(known, (isolated, PORT))),
                Verdict::IngressDenied,
            ),
        ]
    }

    fn of_from_netdev(self, node: &mut Node) -> Result<Vec<Way>> {
        let Net { client, far, outside, unallocated, .. } = self.net;
        let known = (outside, CLIENT);
        let here =
            |name, packets, verdict| self.way(Hook::FromNetdev, name, self.links.uplink, packets, verdict);
        let came = |packet| self.step(Hook::FromNetdev, self.links.uplink, packet);
        let sent = self.step(Hook::FromPod, self.links.client, syn((client, CLIENT), (far, PORT)));
        let (to_here, to_there, to_empty) =
            (self.at_node(Web::Here), self.at_node(Web::There), self.at_node(Web::Empty));
        // The same flow always gets the same SNAT port, so the answer can be made in advance.
        let ran = node.programs.run_at(
            Hook::FromNetdev,
            self.links.uplink,
            self.links.uplink,
            &syn(known, to_there),
        )?;
        let stands_in = Parsed::frame(&ran.packet).map_err(anyhow::Error::msg)?.src;
        let answer = ack((far, PORT), (stands_in.ip(), stands_in.port()));
        let by_xdp = |name, packets, verdict| self.way(Hook::Xdp, name, self.links.uplink, packets, verdict);
        Ok(vec![
            here("no Service", same(ack(known, (client, PORT))), Verdict::NotService),
            here(
                "no Service, known flow of a pod",
                same(ack((far, PORT), (client, CLIENT))),
                Verdict::Allowed,
            )
            .after(sent),
            here("to a Service, known flow, backend here", same(ack(known, to_here)), Verdict::ToBackend)
                .after(came(syn(known, to_here))),
            here(
                "to a Service, known flow, backend elsewhere",
                same(ack(known, to_there)),
                Verdict::ToBackend,
            )
            .after(came(syn(known, to_there))),
            here("to a Service, new flow, backend here", news(outside, to_here), Verdict::ToBackend),
            here("to a Service, new flow, backend elsewhere", news(outside, to_there), Verdict::ToBackend),
            here("answer of a backend elsewhere", same(answer.clone()), Verdict::ToClient)
                .after(came(syn(known, to_there))),
            by_xdp(
                "to a Service, known flow, backend elsewhere",
                same(ack(known, to_there)),
                Verdict::ToBackend,
            )
            .after(came(syn(known, to_there))),
            by_xdp("answer of a backend elsewhere", same(answer.clone()), Verdict::ToClient)
                .after(came(syn(known, to_there))),
            by_xdp("left to tc: new flow", same(syn(known, to_there)), Verdict::LeftToTc),
            by_xdp("left to tc: backend here", same(ack(known, to_here)), Verdict::LeftToTc)
                .after(came(syn(known, to_here))),
            here("refused: no endpoint, TCP", same(syn(known, to_empty)), Verdict::NoEndpoint),
            here("refused: no endpoint, UDP", same(udp(known, to_empty)), Verdict::NoEndpoint),
            here(
                "dropped: no Service has the address",
                same(syn(known, (unallocated, 80))),
                Verdict::UnallocatedAddress,
            ),
        ])
    }

    fn of_to_netdev(self) -> Vec<Way> {
        let Net { client, node, outside, .. } = self.net;
        let to = (outside, CLIENT);
        let out = |name, entered_by, packet, verdict| Way {
            entered_by,
            ..self.way(Hook::ToNetdev, name, self.links.uplink, same(packet), verdict)
        };
        let asked = self.step(Hook::FromNetdev, self.links.uplink, syn(to, self.at_node(Web::Own)));
        vec![
            out("of a pod", self.links.client, ack((client, PORT), to), Verdict::NotService),
            out("of the node", 0, ack((node, CLIENT), (outside, PORT)), Verdict::Node),
            out("answer of a process of the node", 0, ack((node, PORT), to), Verdict::ToClient).after(asked),
        ]
    }

    fn service(self, web: Web) -> (IpAddr, u16) {
        (self.net.services[web as usize], 80)
    }

    fn at_node(self, web: Web) -> (IpAddr, u16) {
        (self.net.node, web.node_port())
    }

    fn step(self, hook: Hook, link: u32, packet: Vec<u8>) -> Step {
        Step { hook, link, entered_by: link, packet }
    }

    fn way(self, hook: Hook, name: &'static str, link: u32, packets: Packets, verdict: Verdict) -> Way {
        let family = Some(Family::of(self.net.node));
        Way { hook, name, link, entered_by: link, before: Vec::new(), packets, verdict, family }
    }
}

impl Way {
    /// With this step before.
    fn after(mut self, step: Step) -> Self {
        self.before.push(step);
        self
    }
}

type End = (IpAddr, u16);

fn same(packet: Vec<u8>) -> Packets {
    Packets::Same(packet)
}

/// Flows of one client.
fn news(from: IpAddr, to: End) -> Packets {
    Packets::New(Box::new(move |number| syn((from, FIRST + number), to)))
}

fn syn(from: End, to: End) -> Vec<u8> {
    Packet::tcp(SocketAddr::from(from), to.into(), flags::SYN).build()
}

/// A segment of an established connection.
fn ack(from: End, to: End) -> Vec<u8> {
    Packet::tcp(from.into(), to.into(), flags::ACK).payload(&[0; 6]).build()
}

fn udp(from: End, to: End) -> Vec<u8> {
    Packet::udp(from.into(), to.into()).payload(&[0; 18]).build()
}
