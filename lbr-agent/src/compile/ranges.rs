//! Blocks of addresses as keys of maps: source ranges, and where ClusterIPs come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use lbr_common::addr::Addr;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::{SourceRange, frontend_flags};

use super::node::Here;
use crate::desired::Desired;
use crate::model::Service;
use crate::store::ClusterState;

/// `service_cidrs`.
pub(super) fn service_cidrs(state: &ClusterState) -> BTreeMap<Prefix<Block>, u32> {
    let nets = state.service_cidrs.values().flat_map(|object| &object.cidrs);
    let key =
        |net: &IpNet| Prefix { data: Block::of(&net.network().into()), len: Block::FAMILY_BITS + bits(net) };
    nets.map(|net| (key(net), 0)).collect()
}

/// Writes the ranges of a Service in one family, and returns the flags of its load balancer's frontends.
pub(super) fn write(service: &Service, id: u32, v4: bool, here: &Here<'_>, desired: &mut Desired) -> u32 {
    let Some(ranges) = service.source_ranges.of(v4) else { return 0 };
    add(id, ranges, desired);
    if !here.is_in(ranges) {
        return frontend_flags::RANGES;
    }
    // As kube-proxy: what the node sends to the address may carry that very address as its source.
    let own = service.load_balancer_ips.iter().filter(|ip| ip.is_ipv4() == v4);
    add(id, &own.map(|ip| IpNet::from(*ip)).collect::<Vec<_>>(), desired);
    frontend_flags::RANGES | frontend_flags::HOST_IN_RANGES
}

/// Writes which clients are inside of the cluster: nodes, the blocks from which their pods have addresses, and pods,
/// whose network may not use those blocks.
pub(super) fn write_inside(state: &ClusterState, desired: &mut Desired) {
    let of_nodes = state.nodes.values().flat_map(|node| &node.addresses);
    let of_pods = state.pods.values().flat_map(|pod| &pod.ips);
    let blocks = state.nodes.values().flat_map(|node| node.pod_cidrs.iter().copied());
    let all: Vec<IpNet> = of_nodes.chain(of_pods).map(|ip| IpNet::from(*ip)).chain(blocks).collect();
    // Pods have addresses side by side: together they take less room.
    add(SourceRange::INSIDE, &IpNet::aggregate(&all), desired);
}

/// Writes the addresses of the other nodes. Also while no Service has a use for them: connections that began when one
/// had go on.
pub(super) fn write_nodes(state: &ClusterState, here: &Here<'_>, desired: &mut Desired) {
    let addresses = state.nodes.values().flat_map(|node| &node.addresses).filter(|ip| !here.is_own(**ip));
    let nets: Vec<IpNet> = addresses.map(|ip| IpNet::from(*ip)).collect();
    add(SourceRange::NODES, &nets, desired);
}

fn add(service: u32, nets: &[IpNet], desired: &mut Desired) {
    for net in nets {
        let data = SourceRange { service, client: Addr::from(net.network()).bytes };
        desired.source_ranges.insert(Prefix { data, len: SourceRange::FIXED_BITS + bits(net) }, 0);
    }
}

/// Bits of the 16 bytes of an address that count.
fn bits(net: &IpNet) -> u32 {
    let mapped = match net.addr() {
        IpAddr::V4(_) => 96,
        IpAddr::V6(_) => 0,
    };
    mapped + u32::from(net.prefix_len())
}
