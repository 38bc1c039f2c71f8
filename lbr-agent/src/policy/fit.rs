//! Finds the policies that fit into the maps.
//!
//! A policy that does not fit is treated like an invalid one: its last version that fitted stays in force, and the pods
//! that the present version selects are isolated and get nothing by it. The agent finds such policies by compiling,
//! before it writes anything, and tries them again each time.
//!
//! Where no policy is to blame (other pods made other sets of the same policies), `reconcile` leaves out the sets that
//! lack room.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::Compiler;
use super::stand_in::{StandIn, StandIns};
use super::{Full, Policies, Shortage};
use crate::cluster::{Changes, ClusterState};
use crate::dataplane::Dataplane;
use crate::desired::Desired;
use crate::ids::{Ids, PolicyIds};
use crate::model::{NetworkPolicy, ObjectName, Peer, Rejected};
use crate::node::NodeView;
use crate::table::PolicyMaps;

/// How often one round compiles to find out which of several policies fit; policies not tried by then wait.
const ATTEMPTS: usize = 8;

/// The policies that are compiled, the last versions that fitted, and the policies that do not fit. An agent that starts
/// has none.
#[derive(Debug, Default)]
pub(crate) struct Fit {
    /// `None`: nothing was compiled yet.
    compiler: Option<Compiler>,
    fitted: BTreeMap<ObjectName, Arc<NetworkPolicy>>,
    without_room: StandIns,
}

impl Fit {
    /// Compiles the policies that fit, and sets what the maps should hold. Where all did and still do, that costs what the
    /// changes concern; otherwise everything is compiled anew. Returns whether it was.
    pub(crate) fn compile(
        &mut self,
        changes: &Changes,
        state: &ClusterState,
        node: &NodeView,
        ids: &mut Ids,
        policies: &mut Policies,
        dataplane: &mut dyn Dataplane,
    ) -> bool {
        if let (Some(compiler), true) = (&mut self.compiler, self.without_room.is_empty()) {
            compiler.compile(changes, state, &self.without_room, node, ids.policy(), policies.desire());
            if policies.shortage(&dataplane.tables()).is_empty() {
                ids.policy().release_left();
                self.remember(changes.policies.iter(), state);
                return false;
            }
        }
        let shortage = |draft: &Desired| policies.shortage_of(draft, &dataplane.tables());
        let mut drafts = Drafts { state, node, ids, shortage };
        let all = drafts.without(StandIns::new());
        let mut draft = match all.lack.is_empty() {
            true => all,
            false => {
                let held = self.hold(&mut drafts, all);
                release(&mut drafts, held, &self.without_room)
            }
        };
        ids.forget_unused_policy();
        self.without_room = draft.without_room;
        self.compiler = Some(draft.compiler);
        self.fitted.retain(|name, _| state.policies.contains_key(name));
        self.remember(state.policies.keys(), state);
        policies.set_desired(&mut draft.desired);
        true
    }

    /// Policies that the maps have no room for.
    pub(crate) fn without_room(&self) -> &StandIns {
        &self.without_room
    }

    /// What is not in force of pods and policies.
    pub(crate) fn rejected(&self) -> Vec<Rejected> {
        self.compiler.as_ref().map(|compiler| compiler.rejected(&self.without_room)).unwrap_or_default()
    }

    /// Leaves out policies that changed since they fitted, until the rest fits: first those of sets and blocks without
    /// room, then all of them.
    fn hold<F: FnMut(&Desired) -> Shortage>(&self, drafts: &mut Drafts<'_, F>, all: Draft) -> Draft {
        let mut draft = all;
        for blame in [in_shortage, any] {
            let state = drafts.state;
            let mut without_room = draft.without_room.clone();
            for (name, full) in blame(state, &draft.desired, &draft.lack) {
                let fitted = self.fitted.get(&name);
                if state.policies.get(&name) != fitted {
                    without_room.entry(name).or_insert_with(|| stand_in(fitted, full));
                }
            }
            if without_room.len() > draft.without_room.len() {
                draft = drafts.without(without_room);
            }
        }
        draft
    }

    /// These policies fit as they are.
    fn remember<'a>(&mut self, names: impl Iterator<Item = &'a ObjectName>, state: &ClusterState) {
        for name in names.filter(|name| !self.without_room.contains_key(*name)) {
            match state.policies.get(name) {
                Some(policy) => drop(self.fitted.insert(name.clone(), policy.clone())),
                None => drop(self.fitted.remove(name)),
            }
        }
    }
}

/// Tables that may not fit.
struct Draft {
    without_room: StandIns,
    compiler: Compiler,
    desired: Desired,
    lack: Shortage,
}

struct Drafts<'a, F> {
    state: &'a ClusterState,
    node: &'a NodeView,
    ids: &'a mut Ids,
    shortage: F,
}

impl<F: FnMut(&Desired) -> Shortage> Drafts<'_, F> {
    fn without(&mut self, without_room: StandIns) -> Draft {
        let (mut desired, ids) = (Desired::default(), self.ids.policy());
        let compiler = from_scratch(self.state, &without_room, self.node, ids, &mut desired);
        let lack = (self.shortage)(&desired);
        Draft { without_room, compiler, desired, lack }
    }
}

/// Compiles all policies, with a stand-in for each that the maps have no room for.
pub(crate) fn from_scratch(
    state: &ClusterState,
    without_room: &StandIns,
    node: &NodeView,
    ids: &mut PolicyIds,
    desired: &mut Desired,
) -> Compiler {
    let (mut compiler, mut maps) = (Compiler::default(), PolicyMaps::default());
    compiler.compile(&Changes::of_policy(state), state, without_room, node, ids, &mut maps);
    maps.desired(desired);
    compiler
}

/// Re-admits policies that were excluded only because of others. Those that did not fit the last time (`last`) are
/// tried last.
fn release<F: FnMut(&Desired) -> Shortage>(
    drafts: &mut Drafts<'_, F>,
    held: Draft,
    last: &StandIns,
) -> Draft {
    let mut best = held;
    if best.lack.is_empty() && best.without_room.len() > 1 {
        let (known, new): (Vec<_>, Vec<_>) =
            best.without_room.keys().cloned().partition(|name| last.contains_key(name));
        let mut groups = match known.is_empty() || new.is_empty() {
            true => halves(&[known, new].concat()),
            false => vec![known, new],
        };
        for _ in 0..ATTEMPTS {
            let Some(group) = groups.pop() else { break };
            let mut fewer = best.without_room.clone();
            fewer.retain(|name, _| !group.contains(name));
            let draft = drafts.without(fewer);
            if draft.lack.is_empty() {
                best = draft;
            } else if group.len() > 1 {
                groups.extend(halves(&group));
            }
        }
    }
    best
}

fn halves(names: &[ObjectName]) -> Vec<Vec<ObjectName>> {
    let (first, second) = names.split_at(names.len() / 2);
    [first, second].into_iter().filter(|half| !half.is_empty()).map(<[_]>::to_vec).collect()
}

fn stand_in(last: Option<&Arc<NetworkPolicy>>, full: Full) -> StandIn {
    let stays = match last {
        Some(_) => {
            "its last version that fitted stays in force, and the pods that it selects now are isolated"
        }
        None => "the pods that it selects are isolated, and it allows nothing",
    };
    StandIn { version: last.cloned(), reason: format!("{}; until then {stays}", full.error()) }
}

type Blamed = BTreeMap<ObjectName, Full>;

/// Policies of sets without room, and policies with blocks if blocks lack room.
fn in_shortage(state: &ClusterState, desired: &Desired, lack: &Shortage) -> Blamed {
    let mut blamed = Blamed::new();
    for (key, member) in &desired.set_members {
        if let Some(full) = lack.sets.get(&key.set)
            && let Some(record) = desired.policies.get(&member.policy)
        {
            let (namespace, name) = (record.namespace.as_str().to_owned(), record.name.as_str().to_owned());
            blamed.entry(ObjectName::new(namespace, name)).or_insert(*full);
        }
    }
    if let Some(full) = lack.blocks {
        let with_blocks = state.policies.iter().filter(|(_, policy)| has_blocks(policy));
        blamed.extend(with_blocks.map(|(name, _)| (name.clone(), full)));
    }
    blamed
}

fn any(state: &ClusterState, _: &Desired, lack: &Shortage) -> Blamed {
    let full = lack.sets.values().copied().chain(lack.blocks).next();
    full.map(|full| state.policies.keys().map(|name| (name.clone(), full)).collect()).unwrap_or_default()
}

fn has_blocks(policy: &NetworkPolicy) -> bool {
    let rules = policy.ingress.iter().chain(&policy.egress).flatten();
    rules.flat_map(|rule| &rule.peers).any(|peer| matches!(peer, Peer::Block { .. }))
}

#[cfg(test)]
mod tests;
