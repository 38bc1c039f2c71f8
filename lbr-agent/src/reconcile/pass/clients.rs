//! Which clients a Service serves, and how: source ranges, peers, blocks of ClusterIPs.

use std::collections::BTreeSet;

use lbr_common::policy::{Block, Prefix};
use lbr_common::service::SourceRange;

use super::super::text::{block_text, peer_text, range_text};
use super::{Pass, remove, write};

impl Pass<'_> {
    pub(crate) fn write_source_ranges(&mut self) {
        let ready: BTreeSet<Prefix<SourceRange>> = self
            .r
            .maps
            .source_ranges
            .writes()
            .filter(|(range, _)| self.open(range.data.service, false))
            .map(|(range, _)| range)
            .collect();
        let table = self.dataplane.tables().source_ranges;
        write(
            &mut self.r.maps.source_ranges,
            table,
            |range, _| ready.contains(range),
            range_text,
            &mut self.outcome,
        );
        self.r.epoch_due |= !ready.is_empty();
    }

    pub(crate) fn remove_source_ranges(&mut self) {
        let before = self.outcome.removals;
        let table = self.dataplane.tables().source_ranges;
        remove(&mut self.r.maps.source_ranges, table, |_| true, range_text, &mut self.outcome);
        self.r.epoch_due |= self.outcome.removals > before;
    }

    /// New peers, and those that get more flags.
    pub(crate) fn write_peers(&mut self) {
        let peers = &self.r.maps.peers;
        let grows = |(block, flags): &(Prefix<Block>, u32)| {
            peers.actual().get(block).is_none_or(|before| before & !flags == 0)
        };
        let ready: BTreeSet<_> = peers.writes().filter(grows).map(|(block, _)| block).collect();
        let table = self.dataplane.tables().peers;
        write(&mut self.r.maps.peers, table, |block, _| ready.contains(block), peer_text, &mut self.outcome);
    }

    /// Peers that lose flags, and those that are gone.
    pub(crate) fn reduce_peers(&mut self) {
        let table = self.dataplane.tables().peers;
        write(&mut self.r.maps.peers, table, |_, _| true, peer_text, &mut self.outcome);
        remove(&mut self.r.maps.peers, table, |_| true, peer_text, &mut self.outcome);
    }

    /// Only once all Services are known: until then an address of the block may belong to a Service that is still missing.
    pub(crate) fn write_service_cidrs(&mut self) {
        let table = self.dataplane.tables().service_cidrs;
        write(&mut self.r.maps.service_cidrs, table, |_, _| true, block_text, &mut self.outcome);
    }

    pub(crate) fn remove_service_cidrs(&mut self) {
        let table = self.dataplane.tables().service_cidrs;
        remove(&mut self.r.maps.service_cidrs, table, |_| true, block_text, &mut self.outcome);
    }
}
