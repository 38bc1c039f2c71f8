//! From ipBlocks to regions: blocks of addresses for which the same ipBlocks hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use lbr_common::addr::{Addr, Family};
use lbr_common::policy::{Block, Prefix};

use super::terms::{Term, TermId, Terms};

/// Every `cidr` and `except` in use, and the ipBlock terms that hold where it is the longest match.
#[derive(Debug, Default)]
pub(super) struct Regions {
    holding: BTreeMap<IpNet, Vec<TermId>>,
    /// Prefix lengths that occur, for IPv4 and IPv6.
    lengths: [BTreeSet<u8>; 2],
}

/// The terms that begin or end at one block.
#[derive(Default)]
struct Edge {
    begins: Vec<TermId>,
    ends: Vec<TermId>,
}

impl Regions {
    /// A block has the terms of the block around it, and those whose `cidr` it is, without those whose `except` it is.
    /// (B8: an exception narrows its own rule only.)
    pub(super) fn new(terms: &Terms) -> Self {
        let mut edges: BTreeMap<IpNet, Edge> = BTreeMap::new();
        for (number, term) in terms.iter() {
            let Term::Block(cidr, except) = term else { continue };
            // An exception covers the whole block.
            if !except.iter().any(|net| net.contains(cidr)) {
                edges.entry(*cidr).or_default().begins.push(number);
            }
            for &net in except.iter().filter(|net| cidr.contains(*net)) {
                edges.entry(net).or_default().ends.push(number);
            }
        }
        let mut regions = Self::default();
        // In this order a block comes right after those that contain it.
        let mut around: Vec<(IpNet, Vec<TermId>)> = Vec::new();
        for (net, edge) in edges {
            while around.last().is_some_and(|(outer, _)| !outer.contains(&net)) {
                around.pop();
            }
            let mut holding: BTreeSet<TermId> =
                around.last().map(|(_, terms)| terms.iter().copied().collect()).unwrap_or_default();
            holding.extend(edge.begins);
            for number in edge.ends {
                holding.remove(&number);
            }
            let holding: Vec<TermId> = holding.into_iter().collect();
            around.push((net, holding.clone()));
            regions.lengths[Family::of(net.addr()).index()].insert(net.prefix_len());
            regions.holding.insert(net, holding);
        }
        regions
    }

    /// The ipBlock terms that hold for an address.
    pub(super) fn of(&self, addr: Addr) -> &[TermId] {
        let ip = IpAddr::from(addr);
        let longest = self.lengths[Family::of(ip).index()].iter().rev().find_map(|&length| {
            let net = IpNet::new(ip, length).ok()?.trunc();
            self.holding.get(&net)
        });
        longest.map_or(&[], Vec::as_slice)
    }

    /// Keys of `cidr_class` and the terms that hold there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Prefix<Block>, &[TermId])> {
        self.holding.iter().map(|(net, holding)| (key(*net), holding.as_slice()))
    }
}

/// The key of a masked block.
fn key(net: IpNet) -> Prefix<Block> {
    let (family, mapped) = match net {
        IpNet::V4(_) => (4, 96),
        IpNet::V6(_) => (6, 0),
    };
    let addr = Addr::from(net.network());
    Prefix {
        data: Block { family, addr: addr.bytes },
        len: Block::FAMILY_BITS + mapped + u32::from(net.prefix_len()),
    }
}
