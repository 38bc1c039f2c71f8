//! The objects and parts that are not in force, as `lbr show rejected` reads them.

use std::collections::BTreeMap;

use lbr_common::maps;
use lbr_common::text::{RejectedRecord, Text, extent};

use crate::cluster::ClusterState;
use crate::model::{Extent, ObjectName, Rejected};
use crate::node::NodeView;
use crate::{link, service};

/// Everything that is not in force: what the sources reject, and what the parts found.
pub(crate) fn all(
    state: &ClusterState,
    node: &NodeView,
    services: &service::Compiler,
    of_policies: &[Rejected],
) -> BTreeMap<u32, RejectedRecord> {
    let mut all: Vec<Rejected> = state.rejected.clone();
    all.extend(services.rejected().chain(of_policies).cloned());
    for one in &mut all {
        // A Service that got none of its addresses is not in force at all.
        if let Some(name) = service_of(&one.object)
            && services.is_nowhere(&name)
        {
            one.extent = Extent::Rejected;
        }
    }
    all.extend(node.links.unfit.iter().map(link::unfit_device));
    for one in all.iter_mut().filter(|one| one.origin.is_empty()) {
        one.origin = state.origin_of(&one.object).to_owned();
    }
    records(all)
}

fn service_of(object: &str) -> Option<ObjectName> {
    let (namespace, name) = object.strip_prefix("Service ")?.split_once('/')?;
    Some(ObjectName::new(namespace.to_owned(), name.to_owned()))
}

/// The table of rejected objects and parts, in an order that does not depend on when each was rejected: whole objects
/// first.
fn records(mut rejected: Vec<Rejected>) -> BTreeMap<u32, RejectedRecord> {
    rejected.sort();
    rejected.dedup();
    // The last record counts the rest: a list that ends silently would look complete.
    let room = maps::REJECTED.max_entries;
    if rejected.len() > room {
        let rest = rejected.len() - (room - 1);
        let extent = rejected.get(room - 1).map_or(Extent::Rejected, |first| first.extent);
        rejected.truncate(room - 1);
        let reason = format!("{rest} more objects or fields belong here; this list has no room for them");
        let (object, origin, field) = Default::default();
        rejected.push(Rejected { extent, object, origin, field, reason });
    }
    (0..).zip(rejected.iter().map(record)).collect()
}

/// How the map has it.
pub(crate) fn record(one: &Rejected) -> RejectedRecord {
    RejectedRecord {
        object: Text::new(&one.object),
        origin: Text::new(&one.origin),
        extent: match one.extent {
            Extent::Rejected => extent::REJECTED,
            Extent::Limited => extent::LIMITED,
        },
        field: Text::new(&one.field),
        reason: Text::new(&one.reason),
    }
}

/// The same backwards, as far as the texts fit.
pub(crate) fn rejected(record: &RejectedRecord) -> Rejected {
    Rejected {
        extent: if record.extent == extent::LIMITED { Extent::Limited } else { Extent::Rejected },
        object: record.object.as_str().to_owned(),
        origin: record.origin.as_str().to_owned(),
        field: record.field.as_str().to_owned(),
        reason: record.reason.as_str().to_owned(),
    }
}
