//! Blocks of addresses as keys of maps: source ranges, peers, and where ClusterIPs come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use lbr_common::addr::{Addr, Family};
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{SourceRange, frontend_flags, peer_flags};

use crate::cluster::ClusterState;
use crate::desired::Desired;
use crate::model::Service;
use crate::node::here::Here;

/// `service_cidrs`.
pub(crate) fn service_cidrs(state: &ClusterState) -> BTreeMap<Prefix<Block>, u32> {
    let nets = state.service_cidrs.values().flat_map(|object| &object.cidrs);
    nets.map(|net| (block(net), 0)).collect()
}

/// Writes the ranges of a Service in one family, and returns the flags of its load balancer's frontends.
pub(super) fn write(
    service: &Service,
    id: u32,
    family: Family,
    here: &Here<'_>,
    desired: &mut Desired,
) -> u32 {
    let Some(ranges) = service.source_ranges.of(family) else { return 0 };
    add(id, ranges, desired);
    if !here.is_in(ranges) {
        return frontend_flags::RANGES;
    }
    // As kube-proxy: packets of the node to the address may have that address as their source.
    let own = service.load_balancer_ips.iter().filter(|ip| Family::of(**ip) == family);
    add(id, &own.map(|ip| IpNet::from(*ip)).collect::<Vec<_>>(), desired);
    frontend_flags::RANGES | frontend_flags::HOST_IN_RANGES
}

/// `peers`: the other nodes, always, since connections outlive the Service's annotation; `with_cluster`: also all addresses in
/// the cluster.
pub(super) fn peers(
    state: &ClusterState,
    here: &Here<'_>,
    with_cluster: bool,
) -> BTreeMap<Prefix<Block>, u32> {
    let of_nodes = || state.nodes.values().flat_map(|node| node.addresses.iter().copied());
    let mut peers = BTreeMap::new();
    if with_cluster {
        // A CNI plugin may give pods addresses outside of their nodes' blocks.
        let of_pods = state.pods.values().flat_map(|pod| pod.ips.iter().copied());
        let blocks = state.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
        let all: Vec<IpNet> = of_nodes().chain(of_pods).map(IpNet::from).chain(blocks).collect();
        // Neighbouring addresses share an entry.
        peers.extend(IpNet::aggregate(&all).iter().map(|net| (block(net), peer_flags::IN_CLUSTER)));
    }
    let others = of_nodes().filter(|ip| !here.is_own(*ip));
    let flags = if with_cluster { peer_flags::NODE | peer_flags::IN_CLUSTER } else { peer_flags::NODE };
    peers.extend(others.map(|ip| (block(&ip.into()), flags)));
    peers
}

fn add(service: u32, nets: &[IpNet], desired: &mut Desired) {
    for net in nets {
        let data = SourceRange { service, client: Addr::from(net.network()).bytes };
        desired.source_ranges.insert(Prefix { data, len: SourceRange::FIXED_BITS + bits(net) }, 0);
    }
}

fn block(net: &IpNet) -> Prefix<Block> {
    Prefix { data: Block::of(&net.network().into()), len: Block::FAMILY_BITS + bits(net) }
}

/// Bits of the 16 bytes of an address that count.
fn bits(net: &IpNet) -> u32 {
    let mapped = match net.addr() {
        IpAddr::V4(_) => 96,
        IpAddr::V6(_) => 0,
    };
    mapped + u32::from(net.prefix_len())
}
