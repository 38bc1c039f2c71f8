//! Which flows a new generation concerns.

use lbr_common::addr::Addr;
use lbr_common::epoch::Place;
use lbr_common::policy::{Block, Prefix};

use crate::dataplane::Concerned;

/// The keys under which a generation differs from the one before.
pub(super) struct Changed {
    pub(super) blocks: Vec<Prefix<Block>>,
    pub(super) classes: Vec<Addr>,
    pub(super) endpoints: Vec<Addr>,
    pub(super) links: Vec<u32>,
}

impl Changed {
    pub(super) fn is_none(&self) -> bool {
        let Self { blocks, classes, endpoints, links } = self;
        blocks.is_empty() && classes.is_empty() && endpoints.is_empty() && links.is_empty()
    }

    /// The flows that it concerns. A verdict follows from the policies and classes of both ends, and from what is known of
    /// their links.
    ///
    /// Blocks concern no flow by themselves. Which ipBlocks hold for an address does not change, and a set contains the text
    /// of the ipBlocks that its rules name. So if a block gets another class while a pod keeps its set, both classes are
    /// the same to the rules of that set; and a pod with another set is among `endpoints`. That is not so while sets or
    /// blocks in force are other than desired, since they were not made for each other (`lack_room`, now or before).
    pub(super) fn concerned(&self, lack_room: bool) -> Concerned {
        if lack_room && !self.blocks.is_empty() {
            return Concerned::all();
        }
        let ends = self.classes.iter().chain(&self.endpoints);
        ends.map(Place::address).chain(self.links.iter().map(|link| Place::link(*link))).collect()
    }
}
