//! Writes interfaces: with its entry, an interface gets its programs.

use std::collections::BTreeMap;

use lbr_common::epoch::Place;
use lbr_common::link::{Link, Uplink};

use crate::dataplane::{Dataplane, WriteError};
use crate::table::{LinkMaps, Outcome, Pass, number, remove, write};

/// The interfaces that programs are attached to.
#[derive(Debug)]
pub(crate) struct Links {
    pub(crate) maps: LinkMaps,
}

impl Links {
    pub(crate) fn load(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
        Ok(Self { maps: LinkMaps::load(dataplane.tables())? })
    }

    /// Whether this link has its programs.
    pub(crate) fn has_programs(&self, link: u32) -> bool {
        self.maps.links.actual().contains_key(&link) && !self.maps.links.must_write(&link)
    }

    /// Whether the other parts have to wait for the programs. Packets meet programs at every link, or at none: those that a
    /// former agent left at some links know nothing of a link that is new, and it has none yet that would translate back.
    pub(crate) fn wait_for_programs(&self) -> bool {
        let LinkMaps { links, uplinks, .. } = &self.maps;
        let is_first = links.actual().is_empty() && uplinks.actual().is_empty();
        let is_new = |(index, link): (u32, Link)| links.actual().get(&index) != Some(&link);
        let is_new_uplink = |(index, uplink): (u32, Uplink)| uplinks.actual().get(&index) != Some(&uplink);
        !is_first && (links.writes().any(is_new) || uplinks.writes().any(is_new_uplink))
    }

    /// Enters and attaches those of these links that are new, and touches nothing else.
    pub(crate) fn plug(&mut self, links: &BTreeMap<u32, Link>, dataplane: &mut dyn Dataplane) -> Outcome {
        let Self { maps } = self;
        if !dataplane.can_attach() {
            return Outcome::default();
        }
        // A link that turns from an uplink into a pod's link changes two maps, in an order: not here.
        let is_new =
            |index: &u32| maps.links.get(index).is_none() && !maps.uplinks.actual().contains_key(index);
        let new: BTreeMap<u32, Link> =
            links.iter().filter(|(index, _)| is_new(index)).map(|(index, link)| (*index, *link)).collect();
        let mut outcome = Outcome::default();
        if !new.is_empty() {
            for (&index, &link) in &new {
                maps.links.set(index, Some(link));
            }
            let is_new = |index: &u32, _: &Link| new.contains_key(index);
            write(&mut maps.links, &mut *dataplane.tables().links, is_new, number, &mut outcome);
        }
        outcome
    }

    /// An interface that cannot be attached holds up no other. Interfaces that are gone are removed even while the sources
    /// have not listed everything. An interface may turn from a pod's link into an uplink, or back.
    pub(crate) fn apply(&mut self, pass: &mut Pass<'_>) {
        let links = &mut self.maps.links;
        let changed = links.writes().filter(|(index, _)| links.actual().contains_key(index));
        pass.due.flows.extend(changed.map(|(index, _)| Place::link(index)));
        write(links, &mut *pass.dataplane.tables().links, |_, _| true, number, &mut pass.outcome);
        let due: Vec<u32> = links.removals().collect();
        remove(links, &mut *pass.dataplane.tables().links, |_| true, number, &mut pass.outcome);
        let removed = due.into_iter().filter(|index| !links.actual().contains_key(index));
        pass.due.flows.extend(removed.map(Place::link));
        let uplinks = &mut self.maps.uplinks;
        // A source that was accepted at an uplink was not compared with a pod.
        let changed = uplinks.removals().chain(uplinks.writes().map(|(index, _)| index));
        pass.due.flows.extend(changed.filter(|index| uplinks.actual().contains_key(index)).map(Place::link));
        remove(uplinks, &mut *pass.dataplane.tables().uplinks, |_| true, number, &mut pass.outcome);
        write(uplinks, &mut *pass.dataplane.tables().uplinks, |_, _| true, number, &mut pass.outcome);
    }
}
