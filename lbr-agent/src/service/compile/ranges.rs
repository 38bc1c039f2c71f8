//! Blocks of addresses as keys of maps: source ranges, peers, and where ClusterIPs come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use lbr_common::addr::{Addr, Family};
use lbr_common::id::ServiceId;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{SourceRange, frontend_flags, peer_flags};

use crate::cluster::ClusterState;
use crate::model::Service;
use crate::node::here::Here;

/// `service_cidrs`.
pub(super) fn service_cidrs(state: &ClusterState) -> BTreeMap<Prefix<Block>, u32> {
    let nets = state.service_cidrs.values().flat_map(|object| &object.cidrs);
    nets.map(|net| (block(net), 0)).collect()
}

/// The ranges of a Service in one family, and the flags of its load balancer's frontends.
pub(super) fn rows(service: &Service, id: ServiceId, family: Family, here: &Here<'_>) -> (Vec<Range>, u32) {
    let Some(ranges) = service.source_ranges.of(family) else { return (Vec::new(), 0) };
    let row = |net: &IpNet| {
        let data = SourceRange { service: id, client: Addr::from(net.network()).bytes };
        Prefix { data, len: SourceRange::FIXED_BITS + bits(net) }
    };
    let mut rows: Vec<Range> = ranges.iter().map(row).collect();
    if !here.is_in(ranges) {
        return (rows, frontend_flags::RANGES);
    }
    // As kube-proxy: packets of the node to the address may have that address as their source.
    let own = service.load_balancer_ips.iter().filter(|ip| Family::of(**ip) == family);
    rows.extend(own.map(|ip| row(&IpNet::from(*ip))));
    (rows, frontend_flags::RANGES | frontend_flags::HOST_IN_RANGES)
}

/// A key of `source_ranges`.
pub(super) type Range = Prefix<SourceRange>;

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
