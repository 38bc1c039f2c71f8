//! From the state of the cluster to the content of the maps.
//!
//! A pure function: no I/O, no clock, no logger. The same state gives the same bytes, in whatever order the objects
//! arrived. Everything is computed anew each time; `reconcile` finds out what has to be written. Only this module knows
//! both the Kubernetes words (Service, EndpointSlice) and those of the data path (frontend, slot, backend).

mod direct;
mod endpoints;
pub mod ephemeral;
mod frontends;
mod health;
mod ids;
mod maglev;
mod node;
mod plan;
mod policy;
mod ranges;
mod services;
mod settings;
mod topology;

pub(crate) use health::HEALTH_PORT;
pub use ids::Ids;
pub use settings::{NodePortAddress, Settings};

use std::collections::BTreeMap;

use lbr_common::link::{Link, link_flags};
use lbr_common::maps;
use lbr_common::text::{RejectedRecord, Text, extent};

use crate::desired::Desired;
use crate::model::{Extent, Rejected};
use crate::source::links::{LocalLink, LocalLinks, UnfitDevice};
use crate::store::ClusterState;

/// The node that the maps are for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name, which endpoints carry as `nodeName`.
    pub name: String,
    /// Settings for Services from the command line.
    pub settings: Settings,
    /// Its pod links, routes and addresses.
    pub links: LocalLinks,
    /// Health check ports that the agent cannot listen on, and why.
    pub refused_ports: BTreeMap<u16, String>,
}

/// The content of every map that the agent owns.
///
/// `ids` carries the numbers of services and backends from one call to the next. Numbers that this state does not need
/// are given up.
pub fn compile(state: &ClusterState, node: &NodeView, ids: &mut Ids) -> Desired {
    let desired = draft(state, node, ids);
    ids.forget_unused();
    desired
}

/// The same for a result that may be discarded: no number is given up.
pub fn draft(state: &ClusterState, node: &NodeView, ids: &mut Ids) -> Desired {
    let mut desired = Desired { links: links(&node.links), ..Desired::default() };
    let mut rejected = state.rejected.clone();
    let here = node::Here::new(state, node);
    desired.uplinks = here.uplinks();
    desired.service_cidrs = ranges::service_cidrs(state);
    services::compile(state, &here, ids, &mut desired, &mut rejected);
    policy::compile(state, node, ids, &mut desired, &mut rejected);
    rejected.extend(node.links.unfit.iter().map(unfit_device));
    for one in rejected.iter_mut().filter(|one| one.origin.is_empty()) {
        one.origin = state.origin_of(&one.object).to_owned();
    }
    desired.rejected = records(rejected);
    desired
}

fn unfit_device(device: &UnfitDevice) -> Rejected {
    let (object, field) = ("lbr run".to_owned(), format!("--devices={}", device.pattern));
    Rejected { origin: "command line".to_owned(), ..Rejected::limited(object, field, device.reason.clone()) }
}

/// `links`: the part of [`compile`] that needs no object, for links that must not wait for the rest.
pub fn links(local: &LocalLinks) -> BTreeMap<u32, Link> {
    let flags = |has_peer: bool, has_master: bool| match (has_peer, has_master) {
        (true, false) => link_flags::PEER | link_flags::ROUTED,
        (true, true) => link_flags::PEER,
        (false, _) => 0,
    };
    let link = |l: &LocalLink| Link {
        flags: flags(l.has_peer, l.master.is_some()),
        master: l.master.unwrap_or_default(),
    };
    local.links.iter().map(|(&index, l)| (index, link(l))).collect()
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

#[cfg(test)]
mod tests;
