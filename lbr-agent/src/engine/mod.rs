//! From changes to maps, without a clock, threads or sockets: what the agent's loop drives, and every scenario and bench.
//!
//! ```text
//! take(change) ─> store ─┐
//! set_links ─> node ─────┴─> compile ─> what the maps should hold ─> write ─> maps
//! ```

mod former;
mod pods;

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context as _;
use lbr_common::addr::Addr;
use lbr_common::maglev;
use lbr_common::text::RejectedRecord;

pub use self::former::Former;
use crate::cluster::{Change, ClusterState, Store};
use crate::dataplane::Dataplane;
use crate::desired::{Desired, HealthPort};
use crate::ids::Ids;
use crate::model::ObjectName;
use crate::node::NodeView;
use crate::node::links::{LocalLinks, PodAddresses};
use crate::policy::fit::Fit;
use crate::reconcile::Reconciler;
use crate::table::Outcome;
use crate::{link, service};

/// The state of everything, and who writes it.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    ids: Ids,
    fit: Fit,
    node: NodeView,
    reconciler: Reconciler,
}

/// What all parts want.
#[derive(Debug)]
pub struct Compiled {
    desired: Desired,
    /// Addresses of this node's pods.
    pub pods: PodAddresses,
    /// Health check ports of Services.
    pub health_ports: BTreeMap<u16, HealthPort>,
    /// Service ports, endpoints, pod links.
    pub counts: [usize; 3],
}

impl Compiled {
    /// The warning of NodePorts that the node's own connections may use, if there are any.
    pub(crate) fn ephemeral_warning(&self, node: &NodeView) -> Option<String> {
        service::ephemeral::warning(&self.desired, node.settings.ephemeral_ports.as_ref()?)
    }
}

impl Engine {
    /// Reads what a former agent left in the maps. Nothing is known of the cluster yet.
    pub fn start(node: NodeView, dataplane: &mut dyn Dataplane) -> anyhow::Result<Self> {
        let reconciler = Reconciler::load(dataplane).context("read the maps of the last run")?;
        let ids = Ids::restore(&reconciler.actual());
        let mut engine = Self { store: Store::new(), ids, fit: Fit::default(), node, reconciler };
        // The size of the existing map counts: a former agent may have made it.
        let tables = maglev::table_count(dataplane.tables().maglev.max_entries() as usize);
        engine.node.settings.maglev_tables = Some(tables);
        Ok(engine)
    }

    /// Applies a change. Returns whether anything is different.
    pub fn take(&mut self, change: Change) -> bool {
        self.store.apply(change)
    }

    /// Sets the addresses of a pod until the API has any.
    pub fn set_addresses(&mut self, pod: &ObjectName, addresses: &[IpAddr]) {
        self.store.set_addresses(pod, addresses);
    }

    /// Sets the health check ports that the agent cannot listen on, and why.
    pub fn set_refused_ports(&mut self, refused: BTreeMap<u16, String>) {
        self.node.refused_ports = refused;
    }

    /// Takes a new picture of the links. New pods' links get their programs at once, before anything is compiled; all else
    /// comes with [`Self::write`].
    pub fn set_links(&mut self, links: LocalLinks, dataplane: &mut dyn Dataplane) -> Outcome {
        self.node.links = links;
        self.reconciler.plug(&link::links(&self.node.links), dataplane)
    }

    /// Computes what the maps should hold.
    pub fn compile(&mut self, dataplane: &mut dyn Dataplane) -> Compiled {
        let Self { fit, store, node, ids, reconciler } = self;
        let desired = fit.compile(store, node, ids, |draft| reconciler.shortage(draft, dataplane));
        let counts = [desired.services.len(), desired.backends.len(), desired.links.len()];
        let (pods, health_ports) = (pods::of(&desired), desired.health_ports.clone());
        Compiled { desired, pods, health_ports, counts }
    }

    /// Makes the maps hold it, as far as possible now. What fails is pending, and tried again by the next call.
    ///
    /// Until every kind has been listed once, it removes nothing that a former agent left in force.
    pub fn write(&mut self, compiled: Compiled, dataplane: &mut dyn Dataplane) -> Outcome {
        let mut desired = compiled.desired;
        // Keep the links that got their programs since.
        let links = link::links(&self.node.links).into_iter();
        for (index, link) in links.filter(|(index, _)| !desired.uplinks.contains_key(index)) {
            desired.links.entry(index).or_insert(link);
        }
        self.reconciler.apply(desired, self.store.is_synced(), dataplane)
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

    /// Whether this is the address of a pod of this node whose policies are in force as they are desired. See
    /// [`Reconciler::is_ready`].
    pub fn is_ready(&self, addr: &Addr) -> bool {
        self.reconciler.is_ready(addr)
    }

    /// The objects and parts that are not in force.
    pub fn rejected(&self) -> &BTreeMap<u32, RejectedRecord> {
        self.reconciler.rejected()
    }

    /// How many entries each map has, as far as known.
    pub fn entries(&self) -> Vec<(&'static str, usize)> {
        self.reconciler.entries()
    }
}
