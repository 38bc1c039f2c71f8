//! Attempts of an untrusted sender: a pod against the policies of others and its own, or a host outside against the
//! node's Services and pods. Each test is named after the attacker's goal, and shows that it is out of reach.

mod alias;
mod errors;
mod flood;
mod handshake;
mod receiver;
mod service;
mod source;

use std::net::IpAddr;

use lbr_common::addr::Addr;
use lbr_common::policy::{Block, Policy, Prefix, policy_flags};
use lbr_common::service::{Frontend, frontend_flags, peer_flags};

use super::policy::Policies;
use super::wire::{Wire, node};
use super::world::{ACKNOWLEDGED, Net, SCTP, TCP, UDP, World, at, opening, packet, segment, syn};
use lbr_agent::dataplane::Dataplane as _;
use lbr_agent::desired::EndpointPolicy;
use lbr_tests::packet::{Packet, chunk, flags};
use std::net::SocketAddr;

/// Flags of segments that open nothing.
const STRAY: [u8; 6] = [
    flags::ACK,
    flags::SYN | flags::ACK,
    flags::FIN | flags::ACK,
    flags::RST,
    flags::RST | flags::ACK,
    flags::PSH | flags::ACK,
];

/// One packet of each kind that a sender may begin with: a SYN, a datagram, an echo, an INIT, another protocol.
fn beginnings(src: SocketAddr, dst: SocketAddr) -> Vec<Packet> {
    let (from, to) = (src.ip(), dst.ip());
    vec![
        syn(src, dst),
        packet(UDP, src, dst),
        Packet::echo(from, to, 7, 1).payload(b"ping"),
        opening(SCTP, src, dst),
        Packet::raw(from, to, 99).payload(b"whatever"),
    ]
}

/// One packet of each kind that opens nothing, of TCP and SCTP.
fn strays(src: SocketAddr, dst: SocketAddr) -> impl Iterator<Item = Packet> {
    let plain = STRAY.map(move |bits| segment(src, dst, bits));
    let chunks = [chunk::INIT_ACK, chunk::COOKIE_ECHO, chunk::ABORT, chunk::SHUTDOWN_COMPLETE];
    let chunks = chunks.map(|kind| Packet::sctp(src, dst, kind).tags(ACKNOWLEDGED, ACKNOWLEDGED));
    plain.into_iter().chain(chunks).chain([packet(TCP, src, dst), packet(SCTP, src, dst)])
}

/// The node of [`Wire`] with both pods, and with its own address.
pub(crate) fn wire_with_pods(name: &str, net: &Net) -> (Wire, Policies) {
    let mut wire = Wire::new(name);
    let mut policies = Policies::pods(&mut wire.world, net);
    let policy = Policy { flags: policy_flags::NODE, ..Policy::default() };
    policies.wanted.endpoints.insert(node(net).into(), EndpointPolicy { ifindex: 0, policy });
    policies.apply(&mut wire.world);
    (wire, policies)
}

/// Reserves the block of this address for Services.
fn reserve_block(world: &mut World, service: IpAddr) {
    let bits = if service.is_ipv6() { 112 } else { 96 + 24 };
    let addr = Addr::from(service);
    let mut block = Block::of(&addr);
    block.addr[bits / 8..].fill(0);
    let key = Prefix { data: block, len: Block::FAMILY_BITS + bits as u32 };
    world.programs.kernel.tables().service_cidrs.insert(&key, &0).unwrap();
}

/// Makes this an address of the node: packets to it without a frontend are left to the stack.
pub(crate) fn open_address(world: &mut World, ip: IpAddr) {
    let flags = frontend_flags::WILDCARD | frontend_flags::PASS_UNMATCHED | frontend_flags::HOST;
    world.frontend(at(ip, 0), 0, Frontend { flags, ..Frontend::default() });
}

/// Makes this an address of another node.
fn a_node(world: &mut World, ip: IpAddr) {
    let key = Prefix { data: Block::of(&ip.into()), len: Block::FULL };
    world.programs.kernel.tables().peers.insert(&key, &peer_flags::NODE).unwrap();
}
