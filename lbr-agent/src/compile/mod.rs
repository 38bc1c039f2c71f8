//! What all parts want of a state of the cluster, from scratch: for tests and tools, and what tests hold the engine against,
//! which compiles only what a change concerns.
//!
//! A pure function: no I/O, no clock, no logger. The same state gives the same bytes, in whatever order the objects
//! arrived.

mod rejected;
#[cfg(test)]
mod tests;

pub(crate) use self::rejected::{all, records};
use crate::cluster::{Changes, ClusterState};
use crate::desired::Desired;
use crate::ids::Ids;
use crate::link;
use crate::node::here::Here;
use crate::node::{NodeChange, NodeView};
use crate::policy;
use crate::policy::stand_in::StandIns;
use crate::service;
use crate::table::ServiceMaps;

/// The content of every map that the agent owns.
///
/// `ids` carries the numbers of services and backends from one call to the next. Numbers that this state does not need
/// are given up.
pub fn compile(state: &ClusterState, node: &NodeView, ids: &mut Ids) -> Desired {
    with_stand_ins(state, &StandIns::new(), node, ids)
}

/// The same with a stand-in for each policy that the maps have no room for.
pub(crate) fn with_stand_ins(
    state: &ClusterState,
    without_room: &StandIns,
    node: &NodeView,
    ids: &mut Ids,
) -> Desired {
    let mut desired = Desired::default();
    let here = Here::new(state, node);
    let (mut services, mut maps) = (service::Compiler::default(), ServiceMaps::default());
    services.compile(&Changes::default(), &NodeChange::Everything, state, &here, ids, &mut maps);
    maps.desired(&mut desired);
    desired.health_ports = services.health_ports().clone();
    let policies = policy::from_scratch(state, without_room, node, ids.policy(), &mut desired);
    ids.forget_unused();
    desired.links = link::links(&node.links);
    desired.uplinks = here.uplinks();
    desired.rejected = records(&all(state, node, &services, &policies.rejected(without_room)));
    desired
}
