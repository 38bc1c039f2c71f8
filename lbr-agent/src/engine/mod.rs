//! From changes to maps, without a clock, threads or sockets: what the agent's loop drives, and every scenario and bench.
//!
//! ```text
//! take(change) ─> cluster ─┐
//! set_node ─────> node ────┴─> compile: what the maps should hold ─> write ─> maps
//! ```
//!
//! A change costs what it changes: the cluster notes which objects changed, Services are compiled one by one, and
//! policies only if a change concerns them.

mod former;
mod pods;

use std::collections::BTreeMap;

use anyhow::Context as _;
use lbr_common::addr::Addr;
use lbr_common::maglev;

pub use self::former::Former;
use crate::cluster::{Change, Changes, ClusterState, Store};
use crate::compile;
use crate::dataplane::Dataplane;
use crate::desired::{Desired, HealthPort};
use crate::ids::Ids;
use crate::link;
use crate::model::{Kind, ObjectName, Rejected};
use crate::node::here::Here;
use crate::node::links::PodAddresses;
use crate::node::{NodeChange, NodeView};
use crate::policy::Fit;
use crate::policy::stand_in::StandIns;
use crate::reconcile::Reconciler;
use crate::service;
use crate::table::Outcome;

/// The state of everything, and who writes it.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    ids: Ids,
    node: NodeView,
    /// The node that was compiled for; `None`: nothing was compiled yet.
    compiled_for: Option<NodeView>,
    services: service::Compiler,
    fit: Fit,
    /// What is not in force of pods and policies.
    of_policies: Vec<Rejected>,
    /// What is not in force of everything.
    rejected: Vec<Rejected>,
    pods: PodAddresses,
    reconciler: Reconciler,
}

/// What a compile did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Services that were compiled.
    pub services: usize,
    /// Whether these were all, because of a change that concerns every Service.
    pub all_services: bool,
    /// Whether policies were compiled.
    pub policies: bool,
    /// Whether these were all, because the agent has just started, or the maps have no room for some.
    pub all_policies: bool,
}

impl Engine {
    /// Reads what a former agent left in the maps. Nothing is known of the cluster yet.
    pub fn start(node: NodeView, dataplane: &mut dyn Dataplane) -> anyhow::Result<Self> {
        let reconciler = Reconciler::load(dataplane).context("read the maps of the last run")?;
        let mut engine = Self {
            store: Store::new(),
            ids: Ids::restore(&reconciler.actual()),
            node,
            compiled_for: None,
            services: service::Compiler::default(),
            fit: Fit::default(),
            of_policies: Vec::new(),
            rejected: Vec::new(),
            pods: PodAddresses::new(),
            reconciler,
        };
        // The size of the existing map counts: a former agent may have made it.
        let tables = maglev::table_count(dataplane.tables().maglev.max_entries() as usize);
        engine.node.settings.maglev_tables = Some(tables);
        Ok(engine)
    }

    /// Applies a change. Returns whether anything is different.
    pub fn take(&mut self, change: Change) -> bool {
        self.store.apply(change)
    }

    /// Takes a new picture of the node. New pods' links get their programs at once, before anything is compiled; all else
    /// comes with [`Self::write`].
    pub fn set_node(&mut self, change: impl FnOnce(&mut NodeView), dataplane: &mut dyn Dataplane) -> Outcome {
        change(&mut self.node);
        self.reconciler.plug(&link::links(&self.node.links), dataplane)
    }

    /// Computes what the maps should hold.
    pub fn compile(&mut self, dataplane: &mut dyn Dataplane) -> Compiled {
        let changes = self.store.take_changes();
        let change = self.node_change(&changes);
        let has_new_links = self.compiled_for.as_ref().is_none_or(|before| before.links != self.node.links);
        let here = Here::new(self.store.state(), &self.node);
        let Reconciler { services: tables, links, .. } = &mut self.reconciler;
        let state = self.store.state();
        let done = self.services.compile(&changes, &change, state, &here, &mut self.ids, &mut tables.maps);
        // Few, and one that was plugged may be gone again.
        links.maps.links.set_desired(link::links(&self.node.links));
        links.maps.uplinks.set_desired(here.uplinks());
        let concerns_policies =
            [Kind::Pod, Kind::Namespace, Kind::NetworkPolicy].into_iter().any(|kind| changes.has(kind));
        // Policies without room are tried again each time.
        let policies = concerns_policies
            || has_new_links
            || change.is_everything()
            || !self.fit.without_room().is_empty();
        let all_policies = policies && self.compile_policies(&changes, dataplane);
        let before = policies.then(|| std::mem::replace(&mut self.of_policies, self.fit.rejected()));
        let is_same = before.is_none_or(|before| before == self.of_policies);
        if done.rejected || changes.rejected || !is_same || change.is_everything() {
            self.rejected = compile::all(self.store.state(), &self.node, &self.services, &self.of_policies);
            self.reconciler.report.rejected.set_desired(compile::records(&self.rejected));
        }
        if has_new_links || change.is_everything() {
            self.compiled_for = Some(self.node.clone());
        }
        Compiled { services: done.services, all_services: change.is_everything(), policies, all_policies }
    }

    fn node_change(&self, changes: &Changes) -> NodeChange {
        // The node's addresses and its zone.
        let has_other_object = changes.nodes.contains(&ObjectName::cluster(&self.node.name));
        match &self.compiled_for {
            Some(before) if !has_other_object => NodeChange::between(before, &self.node),
            _ => NodeChange::Everything,
        }
    }

    /// Returns whether all were.
    fn compile_policies(&mut self, changes: &Changes, dataplane: &mut dyn Dataplane) -> bool {
        let Self { fit, store, node, ids, reconciler, .. } = self;
        let all = fit.compile(changes, store.state(), node, ids, &mut reconciler.policy, dataplane);
        self.pods = pods::of(&reconciler.policy.maps);
        all
    }

    /// Makes the maps hold it, as far as possible now. What fails is pending, and tried again by the next call.
    ///
    /// Until every kind has been listed once, it removes nothing that a former agent left in force, changes nothing of it,
    /// and leaves policies as they are; links and rejected objects excepted.
    pub fn write(&mut self, dataplane: &mut dyn Dataplane) -> Outcome {
        self.reconciler.retry(self.store.is_synced(), dataplane)
    }

    /// Whether every kind has been listed once.
    pub fn is_synced(&self) -> bool {
        self.store.is_synced()
    }

    /// The cluster, as far as it is known.
    pub fn state(&self) -> &ClusterState {
        self.store.state()
    }

    /// This node.
    pub fn node(&self) -> &NodeView {
        &self.node
    }

    /// Addresses of this node's pods, as compiled last.
    pub fn pods(&self) -> &PodAddresses {
        &self.pods
    }

    /// Health check ports to listen on.
    pub fn health_ports(&self) -> &BTreeMap<u16, HealthPort> {
        self.services.health_ports()
    }

    /// The objects and parts that are not in force.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }

    /// Policies that the maps have no room for.
    pub fn without_room(&self) -> &StandIns {
        self.fit.without_room()
    }

    /// Whether this is the address of a pod of this node whose policies are in force as they are desired. See
    /// [`Reconciler::is_ready`].
    pub fn is_ready(&self, addr: &Addr) -> bool {
        self.reconciler.is_ready(addr)
    }

    /// How many entries each map has, as far as known.
    pub fn entries(&self) -> Vec<(&'static str, usize)> {
        self.reconciler.entries()
    }

    /// How many Service ports, endpoints and pod links are desired.
    pub fn counts(&self) -> [usize; 3] {
        let Reconciler { services, links, .. } = &self.reconciler;
        [
            services.maps.services.desired_len(),
            services.maps.backends.desired_len(),
            links.maps.links.desired_len(),
        ]
    }

    /// A warning of NodePorts that the node's own connections may use, if there are any.
    pub fn ephemeral_warning(&self) -> Option<String> {
        let keys = self.reconciler.services.maps.frontends.desired().map(|(key, _)| key);
        service::ephemeral::warning(keys, self.node.settings.ephemeral_ports.as_ref()?)
    }

    /// What the maps should hold, as compiled last.
    pub fn desired(&self) -> Desired {
        Desired { health_ports: self.health_ports().clone(), ..self.reconciler.desired() }
    }

    /// The same, compiled from scratch with the same numbers: what [`Self::desired`] must be.
    pub fn from_scratch(&self) -> Desired {
        compile::with_stand_ins(self.state(), self.without_room(), &self.node, &mut self.ids.clone())
    }
}
