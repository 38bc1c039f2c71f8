//! The objects and parts that are not in force, as `lbr show rejected` reads them.

use std::collections::BTreeMap;

use lbr_common::maps;
use lbr_common::text::{RejectedRecord, Text, extent};

use crate::cluster::ClusterState;
use crate::link;
use crate::model::{Extent, Item, Kind, Rejected};
use crate::node::NodeView;
use crate::service;

/// Everything that is not in force: what the sources reject, and what the parts found. Whole objects come first, in an
/// order that does not depend on when each was rejected.
pub(crate) fn all(
    state: &ClusterState,
    node: &NodeView,
    services: &service::Compiler,
    of_policies: &[Rejected],
) -> Vec<Rejected> {
    let mut all: Vec<Rejected> = state.rejected.clone();
    all.extend(services.rejected().chain(of_policies).cloned());
    for one in &mut all {
        let Item::Object(object) = &one.object else { continue };
        // A Service that got none of its addresses is not in force at all.
        if object.kind == Kind::Service && services.is_nowhere(&object.name) {
            one.extent = Extent::Rejected;
        }
        if one.origin.is_empty() {
            one.origin = state.origin_of(object).to_owned();
        }
    }
    all.extend(node.links.unfit.iter().map(link::unfit_device));
    // By the text of the object, as people look for it; then by all else.
    all.sort();
    all.sort_by_cached_key(|one| (one.extent, one.object.to_string()));
    all.dedup();
    limit(&mut all);
    all
}

/// The last one counts the rest: a list that ends silently would look complete.
fn limit(all: &mut Vec<Rejected>) {
    let room = maps::REJECTED.max_entries;
    if all.len() <= room {
        return;
    }
    let rest = all.len() - (room - 1);
    let extent = all.get(room - 1).map_or(Extent::Rejected, |first| first.extent);
    all.truncate(room - 1);
    let reason = format!("{rest} more objects or fields belong here; this list has no room for them");
    let (object, origin, field) = (Item::Text(String::new()), String::new(), String::new());
    all.push(Rejected { extent, object, origin, field, reason });
}

/// How the map has them.
pub(crate) fn records(all: &[Rejected]) -> BTreeMap<u32, RejectedRecord> {
    (0..).zip(all.iter().map(record)).collect()
}

fn record(one: &Rejected) -> RejectedRecord {
    RejectedRecord {
        object: Text::new(&one.object.to_string()),
        origin: Text::new(&one.origin),
        extent: match one.extent {
            Extent::Rejected => extent::REJECTED,
            Extent::Limited => extent::LIMITED,
        },
        field: Text::new(&one.field),
        reason: Text::new(&one.reason),
    }
}
