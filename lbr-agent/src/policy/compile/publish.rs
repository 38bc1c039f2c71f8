//! Classes for the maps: `ip_class`, `cidr_class`, and their descriptions in `classes`.

use lbr_common::id::ClassId;
use lbr_common::policy::class;
use lbr_common::text::{ClassRecord, Text};

use super::blocks::Regions;
use super::canon::{Canon, hash};
use super::classes::Classes;
use super::names;
use super::terms::Terms;
use crate::desired::Desired;
use crate::ids::PolicyIds;

/// Writes the classes and returns their numbers in the maps.
pub(super) fn publish(
    classes: &Classes,
    regions: &Regions,
    terms: &Terms<'_>,
    pool: &mut PolicyIds,
    desired: &mut Desired,
) -> Vec<ClassId> {
    let parts: Vec<(u32, u64)> =
        terms.iter().map(|(_, canon)| (pool.part(canon.clone()), hash(canon))).collect();
    let texts: Vec<String> = terms.iter().map(|(term, _)| names::term(term)).collect();
    let mut ids: Vec<ClassId> = Vec::new();
    for of_class in &classes.terms {
        let of_class = || of_class.iter().filter_map(|&term| parts.get(term).zip(texts.get(term)));
        let mut content: Vec<u32> = of_class().map(|((part, _), _)| *part).collect();
        content.sort_unstable();
        // The order of terms differs between runs.
        let mut hashes: Vec<u64> = of_class().map(|((_, hash), _)| *hash).collect();
        hashes.sort_unstable();
        let mut canon = Canon::default();
        canon.len(hashes.len());
        for &hash in &hashes {
            canon.number(hash);
        }
        let hash = canon.hash();
        let id = pool.class(content, hash);
        let texts: Vec<&str> = of_class().map(|(_, text)| text.as_str()).collect();
        let matches = Text::new(&texts.join("; "));
        desired.classes.insert(id, ClassRecord { hash, pods: 0, blocks: 0, matches });
        ids.push(id);
    }
    for (&addr, &number) in &classes.addresses {
        let Some(&id) = ids.get(number) else { continue };
        desired.ip_class.insert(addr, id);
        if let Some(record) = desired.classes.get_mut(&id) {
            record.pods += 1;
        }
    }
    for (prefix, holding) in regions.iter() {
        // A block that its exceptions cover completely must hide the block around it.
        let known = classes.of(holding).and_then(|number: usize| ids.get(number));
        let id: ClassId = known.copied().unwrap_or(class::NONE);
        desired.cidr_class.insert(prefix, id);
        if let Some(record) = desired.classes.get_mut(&id) {
            record.blocks += 1;
        }
    }
    ids
}
