//! Interfaces that programs are attached to.

use super::{Pass, number, remove, write};

impl Pass<'_> {
    pub(crate) fn write_links(&mut self) {
        let links = &self.r.maps.links;
        self.r.epoch_due |= links.writes().any(|(index, _)| links.actual().contains_key(&index));
        let mut table = self.dataplane.tables().links;
        write(&mut self.r.maps.links, &mut *table, |_, _| true, number, &mut self.outcome);
    }

    pub(crate) fn remove_links(&mut self) {
        let before = self.outcome.removals;
        remove(
            &mut self.r.maps.links,
            &mut *self.dataplane.tables().links,
            |_| true,
            number,
            &mut self.outcome,
        );
        self.r.epoch_due |= self.outcome.removals > before;
    }

    pub(crate) fn write_uplinks(&mut self) {
        let mut table = self.dataplane.tables().uplinks;
        write(&mut self.r.maps.uplinks, &mut *table, |_, _| true, number, &mut self.outcome);
    }

    pub(crate) fn remove_uplinks(&mut self) {
        let mut table = self.dataplane.tables().uplinks;
        remove(&mut self.r.maps.uplinks, &mut *table, |_| true, number, &mut self.outcome);
    }
}
