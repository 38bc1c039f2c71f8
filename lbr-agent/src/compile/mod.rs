//! From the state of the cluster to the content of the maps: what all parts want, together.
//!
//! A pure function: no I/O, no clock, no logger. The same state gives the same bytes, in whatever order the objects
//! arrived.

mod rejected;
#[cfg(test)]
mod tests;

pub(crate) use self::rejected::{record, rejected};
use crate::cluster::ClusterState;
use crate::desired::Desired;
use crate::ids::Ids;
use crate::node::NodeView;
use crate::node::here::Here;
use crate::{link, policy, service};

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
    let mut desired = Desired { links: link::links(&node.links), ..Desired::default() };
    let mut found = state.rejected.clone();
    let here = Here::new(state, node);
    desired.uplinks = here.uplinks();
    desired.service_cidrs = service::service_cidrs(state);
    service::compile(state, &here, ids, &mut desired, &mut found);
    policy::compile(state, node, ids, &mut desired, &mut found);
    found.extend(node.links.unfit.iter().map(link::unfit_device));
    for one in found.iter_mut().filter(|one| one.origin.is_empty()) {
        one.origin = state.origin_of(&one.object).to_owned();
    }
    desired.rejected = rejected::records(found);
    desired
}
