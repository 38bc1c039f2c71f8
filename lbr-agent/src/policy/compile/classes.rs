//! From terms to classes: groups of addresses that the policies in use cannot distinguish. `ip_class`, `cidr_class`, and
//! their descriptions in `classes`.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::id::ClassId;
use lbr_common::policy::class;
use lbr_common::text::{ClassRecord, Text};

use super::blocks::Regions;
use super::canon::Canon;
use super::terms::{TermId, Terms};
use crate::ids::PolicyIds;
use crate::table::PolicyMaps;

/// A class.
#[derive(Debug)]
struct Class {
    /// Ascending, and not empty.
    terms: Vec<TermId>,
    record: ClassRecord,
}

/// The classes that an address or a block has.
#[derive(Debug, Default)]
pub(super) struct Classes {
    by_terms: BTreeMap<Vec<TermId>, ClassId>,
    all: BTreeMap<ClassId, Class>,
    of_term: BTreeMap<TermId, BTreeSet<ClassId>>,
    /// Classes with other counts than their record in the maps.
    due: BTreeSet<ClassId>,
    /// Since the last [`Classes::write`].
    concerned: Concerned,
}

/// What classes that came or went have.
#[derive(Debug, Default)]
pub(super) struct Concerned {
    /// Terms.
    pub(super) terms: BTreeSet<TermId>,
    /// Numbers of named ports.
    pub(super) ports: bool,
}

impl Concerned {
    fn add(&mut self, holding: &[TermId], terms: &Terms) {
        self.terms.extend(holding);
        self.ports |= holding.iter().any(|&term| terms.is_port(term));
    }
}

impl Classes {
    /// The class of addresses for which these terms hold.
    fn of(&mut self, mut holding: Vec<TermId>, terms: &mut Terms, ids: &mut PolicyIds) -> ClassId {
        holding.sort_unstable();
        holding.dedup();
        if let Some(&id) = self.by_terms.get(&holding) {
            return id;
        }
        let entries = || holding.iter().filter_map(|&term| terms.get(term));
        // The order of terms differs between runs.
        let mut hashes: Vec<u64> = entries().map(|entry| entry.hash).collect();
        hashes.sort_unstable();
        let mut canon = Canon::default();
        canon.len(hashes.len());
        for &hash in &hashes {
            canon.number(hash);
        }
        let hash = canon.hash();
        let mut texts: Vec<&str> = entries().map(|entry| entry.text.as_str()).collect();
        texts.sort_unstable();
        let record = ClassRecord { hash, pods: 0, blocks: 0, matches: Text::new(&texts.join("; ")) };
        let id = ids.class(holding.clone(), hash);
        for &term in &holding {
            terms.hold_port(term);
            self.of_term.entry(term).or_default().insert(id);
        }
        self.concerned.add(&holding, terms);
        self.by_terms.insert(holding.clone(), id);
        self.all.insert(id, Class { terms: holding, record });
        id
    }

    /// Gives a pod's address the class of what holds for it; of nothing, none.
    pub(super) fn set(
        &mut self,
        addr: Addr,
        holding: Vec<TermId>,
        terms: &mut Terms,
        ids: &mut PolicyIds,
        maps: &mut PolicyMaps,
    ) {
        let before = maps.ip_class.desired().get(&addr).copied();
        let now = (!holding.is_empty()).then(|| self.of(holding, terms, ids));
        if before == now {
            return;
        }
        maps.ip_class.set(addr, now);
        self.count(before, |record| record.pods = record.pods.saturating_sub(1));
        self.count(now, |record| record.pods += 1);
    }

    /// Gives all blocks their classes.
    pub(super) fn set_blocks(
        &mut self,
        regions: &Regions,
        terms: &mut Terms,
        ids: &mut PolicyIds,
        maps: &mut PolicyMaps,
    ) {
        let former: Vec<ClassId> = maps.cidr_class.desired().values().copied().collect();
        let mut blocks = BTreeMap::new();
        for (prefix, holding) in regions.iter() {
            // A block that its exceptions cover completely must hide the block around it.
            let id = match holding.is_empty() {
                true => class::NONE,
                false => self.of(holding.to_vec(), terms, ids),
            };
            blocks.insert(prefix, id);
            self.count(Some(id), |record| record.blocks += 1);
        }
        for id in former {
            self.count(Some(id), |record| record.blocks = record.blocks.saturating_sub(1));
        }
        maps.cidr_class.set_desired(blocks);
    }

    fn count(&mut self, id: Option<ClassId>, count: impl FnOnce(&mut ClassRecord)) {
        if let Some((id, class)) = id.and_then(|id| Some((id, self.all.get_mut(&id)?))) {
            count(&mut class.record);
            self.due.insert(id);
        }
    }

    /// Writes the records, and forgets classes that nothing has. Returns what concerns those that came or went.
    pub(super) fn write(
        &mut self,
        terms: &mut Terms,
        ids: &mut PolicyIds,
        maps: &mut PolicyMaps,
    ) -> Concerned {
        for id in std::mem::take(&mut self.due) {
            let Some(class) = self.all.get(&id) else { continue };
            if class.record.pods + class.record.blocks > 0 {
                maps.classes.set(id, Some(class.record));
                continue;
            }
            maps.classes.set(id, None);
            let Some(Class { terms: holding, .. }) = self.all.remove(&id) else { continue };
            for &term in &holding {
                terms.leave_port(term);
                if let Some(classes) = self.of_term.get_mut(&term) {
                    classes.remove(&id);
                    if classes.is_empty() {
                        self.of_term.remove(&term);
                    }
                }
            }
            self.concerned.add(&holding, terms);
            self.by_terms.remove(&holding);
            ids.leave_class(holding);
        }
        std::mem::take(&mut self.concerned)
    }

    /// The classes of each term.
    pub(super) fn by_term(&self) -> impl Iterator<Item = (&TermId, &BTreeSet<ClassId>)> {
        self.of_term.iter()
    }

    /// The classes that have any of these terms.
    pub(super) fn with_any(&self, terms: &[TermId]) -> BTreeSet<ClassId> {
        terms.iter().filter_map(|term| self.of_term.get(term)).flatten().copied().collect()
    }

    /// Whether a class has a term.
    pub(super) fn has(&self, id: ClassId, term: TermId) -> bool {
        self.all.get(&id).is_some_and(|class| class.terms.binary_search(&term).is_ok())
    }
}
