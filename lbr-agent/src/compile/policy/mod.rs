//! From NetworkPolicies, Pods and Namespaces to the tables of `lbr_common::policy`.

use super::{Ids, NodeView};
use crate::desired::Desired;
use crate::model::Rejected;
use crate::store::ClusterState;

pub(super) fn compile(
    _state: &ClusterState,
    _node: &NodeView,
    _ids: &mut Ids,
    _desired: &mut Desired,
    _rejected: &mut Vec<Rejected>,
) {
}
