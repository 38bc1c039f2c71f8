//! Which clients a Service serves, and how: source ranges, peers, blocks of ClusterIPs.

use std::collections::BTreeSet;

use lbr_common::epoch::Place;
use lbr_common::policy::{Block, Prefix};
use lbr_common::service::SourceRange;

use super::Steps;
use super::text::{block_text, peer_text, range_text};
use crate::dataplane::Concerned;
use crate::table::{remove, write};

impl Steps<'_, '_> {
    pub(in crate::service) fn write_source_ranges(&mut self) {
        let ready: BTreeSet<Prefix<SourceRange>> = self
            .maps
            .source_ranges
            .writes()
            .filter(|(range, _)| self.open(range.data.service, false))
            .map(|(range, _)| range)
            .collect();
        let table = self.pass.dataplane.tables().source_ranges;
        write(
            &mut self.maps.source_ranges,
            table,
            |range, _| ready.contains(range),
            range_text,
            &mut self.pass.outcome,
        );
        self.pass.due.flows.extend(ready.iter().map(|range| Place::service(range.data.service)));
    }

    pub(in crate::service) fn remove_source_ranges(&mut self) {
        let ranges = &mut self.maps.source_ranges;
        let due: Vec<_> = ranges.removals().collect();
        let table = self.pass.dataplane.tables().source_ranges;
        remove(ranges, table, |_| true, range_text, &mut self.pass.outcome);
        let removed = due.into_iter().filter(|range| !ranges.actual().contains_key(range));
        self.pass.due.flows.extend(removed.map(|range| Place::service(range.data.service)));
    }

    /// New peers, and those that get more flags.
    pub(in crate::service) fn write_peers(&mut self) {
        let peers = &self.maps.peers;
        let grows = |(block, flags): &(Prefix<Block>, u32)| {
            peers.actual().get(block).is_none_or(|before| before & !flags == 0)
        };
        let ready: BTreeSet<_> = peers.writes().filter(grows).map(|(block, _)| block).collect();
        let table = self.pass.dataplane.tables().peers;
        write(
            &mut self.maps.peers,
            table,
            |block, _| ready.contains(block),
            peer_text,
            &mut self.pass.outcome,
        );
    }

    /// Peers that lose flags, and those that are gone.
    pub(in crate::service) fn reduce_peers(&mut self) {
        let table = self.pass.dataplane.tables().peers;
        write(&mut self.maps.peers, table, |_, _| true, peer_text, &mut self.pass.outcome);
        remove(&mut self.maps.peers, table, |_| true, peer_text, &mut self.pass.outcome);
    }

    /// Only once all Services are known: until then an address of the block may belong to a Service that is still missing.
    pub(in crate::service) fn write_service_cidrs(&mut self) {
        self.any_source_may_be_a_service();
        let table = self.pass.dataplane.tables().service_cidrs;
        write(&mut self.maps.service_cidrs, table, |_, _| true, block_text, &mut self.pass.outcome);
    }

    pub(in crate::service) fn remove_service_cidrs(&mut self) {
        self.any_source_may_be_a_service();
        let table = self.pass.dataplane.tables().service_cidrs;
        remove(&mut self.maps.service_cidrs, table, |_| true, block_text, &mut self.pass.outcome);
    }

    /// Whether a block of Services is to be written or removed: any flow's source may be in it.
    fn any_source_may_be_a_service(&mut self) {
        if self.maps.service_cidrs.pending() > 0 {
            self.pass.due.flows.merge(&Concerned::all());
        }
    }
}
