//! From Services to frontends, slots and backends: how each port is served (`plan`), at which addresses (`frontends`), by
//! which endpoints (`endpoints`, `topology`).
//!
//! Each Service is compiled by itself (`fragment`), when it or one of its slices changed, or when another Service gave up or
//! took an address that it asks for (`claims`). What Services share is counted: addresses (`addresses`), Maglev tables
//! (`maglev`), health check ports (`health`). So a change costs what it changes. A compiler that has seen nothing yet and
//! gets all Services makes the same of them: that is the full compile, which tests hold the incremental one against.

mod addresses;
mod claims;
mod endpoints;
mod fragment;
mod frontends;
mod health;
mod maglev;
mod plan;
mod ranges;
mod topology;

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::id::MaglevId;
use lbr_common::service::{Frontend, scope};

use self::addresses::{Addresses, Use};
use self::claims::{Ask, Claims};
use self::fragment::{Asked, Fragment};
pub(crate) use self::health::HEALTH_PORT;
use crate::cluster::{Changes, ClusterState};
use crate::desired::HealthPort;
use crate::ids::Ids;
use crate::model::{Kind, ObjectName, Rejected};
use crate::node::NodeChange;
use crate::node::here::Here;
use crate::table::ServiceMaps;

/// What is known of all Services from the last compile.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    fragments: BTreeMap<ObjectName, Fragment>,
    claims: Claims,
    addresses: Addresses,
    tables: maglev::Tables,
    /// Services that ask for a health check port.
    with_health: BTreeSet<ObjectName>,
    health_ports: BTreeMap<u16, HealthPort>,
    health_rejected: Vec<Rejected>,
    /// Services with direct server return.
    direct: BTreeSet<ObjectName>,
}

/// What a compile did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Compiled {
    /// Services that were compiled.
    pub(crate) services: usize,
    /// What is rejected may be something else now.
    pub(crate) rejected: bool,
}

impl Compiler {
    /// Brings what the maps should hold up to date with these changes.
    pub(crate) fn compile(
        &mut self,
        changes: &Changes,
        node: &NodeChange,
        state: &ClusterState,
        here: &Here<'_>,
        ids: &mut Ids,
        maps: &mut ServiceMaps,
    ) -> Compiled {
        let mut due = self.due(changes, node, state, ids);
        let was_direct = !self.direct.is_empty();
        let mut done = Compiled::default();
        if !due.is_empty() {
            self.enter_claims(&mut due, state, here);
            done = self.compile_due(due, state, here, ids, maps);
        }
        let is_direct = !self.direct.is_empty();
        let with_pods = is_direct && changes.has(Kind::Pod);
        if changes.has(Kind::Node) || with_pods || was_direct != is_direct || node.is_everything() {
            maps.peers.set_desired(ranges::peers(state, here, is_direct));
        }
        if changes.has(Kind::ServiceCidr) || node.is_everything() {
            maps.service_cidrs.set_desired(ranges::service_cidrs(state));
        }
        done
    }

    /// Health check ports to listen on.
    pub(crate) fn health_ports(&self) -> &BTreeMap<u16, HealthPort> {
        &self.health_ports
    }

    /// What is not in force of Services.
    pub(crate) fn rejected(&self) -> impl Iterator<Item = &Rejected> {
        let of_services = self.fragments.values().flat_map(|fragment| &fragment.rejected);
        of_services.chain(&self.tables.rejected).chain(&self.health_rejected)
    }

    /// Whether a Service has ports, and none of its addresses.
    pub(crate) fn is_nowhere(&self, service: &ObjectName) -> bool {
        self.fragments.get(service).is_some_and(|fragment| fragment.is_nowhere)
    }

    /// The Services to compile.
    fn due(
        &self,
        changes: &Changes,
        node: &NodeChange,
        state: &ClusterState,
        ids: &Ids,
    ) -> BTreeSet<ObjectName> {
        let known = || self.fragments.keys().cloned();
        match node {
            NodeChange::Everything => state.services.keys().cloned().chain(known()).collect(),
            NodeChange::Addresses(addresses) => {
                // The links by which backends are reached are others.
                let services = ids.services_with_backend_at(addresses);
                let has = |fragment: &Fragment| fragment.ports.iter().any(|port| services.contains(&port.id));
                let theirs = self.fragments.iter().filter(|(_, fragment)| has(fragment));
                let none = services.is_empty();
                let theirs = theirs.map(|(name, _)| name.clone()).filter(|_| !none);
                changes.services.iter().cloned().chain(theirs).collect()
            }
            NodeChange::Nothing => changes.services.clone(),
        }
    }

    /// Enters what the due Services ask for. Services that ask for the same become due.
    fn enter_claims(&mut self, due: &mut BTreeSet<ObjectName>, state: &ClusterState, here: &Here<'_>) {
        let nodeports = here.nodeport_addresses();
        let mut others = BTreeSet::new();
        for name in &*due {
            let former = self.fragments.get_mut(name);
            let known = former.as_ref().map(|fragment| fragment.name.clone());
            let before = former.map(|fragment| std::mem::take(&mut fragment.asked)).unwrap_or_default();
            let asked = state.services.get(name).map(|service| Asked::of(service, &nodeports, here));
            let now: Vec<Ask> = asked.iter().flat_map(Asked::asks).collect();
            let name = known.unwrap_or_else(|| name.clone());
            for ask in before.iter().filter(|ask| !now.contains(ask)) {
                self.claims.withdraw(*ask, &name, &mut others);
            }
            for ask in now.iter().filter(|ask| !before.contains(ask)) {
                self.claims.enter(*ask, &name, &mut others);
            }
        }
        due.extend(others);
    }

    fn compile_due(
        &mut self,
        due: BTreeSet<ObjectName>,
        state: &ClusterState,
        here: &Here<'_>,
        ids: &mut Ids,
        maps: &mut ServiceMaps,
    ) -> Compiled {
        let mut done = Compiled { services: due.len(), rejected: false };
        let had_rejected = !self.tables.rejected.is_empty() || !self.health_rejected.is_empty();
        // First all former frontends go: one may come to another Service.
        let former: Vec<Fragment> = due.iter().filter_map(|name| self.fragments.remove(name)).collect();
        for fragment in &former {
            fragment.keys.iter().for_each(|key| maps.frontends.set(*key, None));
            fragment.wishes.iter().for_each(|key| self.tables.remove(key));
            self.addresses.remove(&fragment.uses);
            done.rejected |= fragment.is_nowhere || !fragment.rejected.is_empty();
        }
        let mut touched: Vec<Use> =
            former.iter().flat_map(|fragment| fragment.uses.iter().copied()).collect();
        let mut keys_before: BTreeSet<_> =
            former.iter().flat_map(|fragment| fragment.keys.iter().copied()).collect();
        let mut is_health_due = false;
        let nodeports = here.nodeport_addresses();
        for name in &due {
            self.direct.remove(name);
            is_health_due |= self.with_health.remove(name);
            let Some(service) = state.services.get(name) else { continue };
            let known = former.binary_search_by(|fragment| fragment.name.cmp(name));
            let known = known.ok().and_then(|place| former.get(place)).map(|fragment| fragment.name.clone());
            let shared = known.unwrap_or_else(|| name.clone());
            let (slices, asked) = (state.slices_of(name), Asked::of(service, &nodeports, here));
            let (fragment, wishes) = fragment::compile(asked, shared, &slices, &self.claims, here, ids, maps);
            for (key, wish) in wishes {
                self.tables.add(key, wish);
            }
            self.addresses.add(&fragment.uses);
            touched.extend(&fragment.uses);
            if fragment.is_direct {
                self.direct.insert(name.clone());
            }
            if fragment.health.is_some() {
                is_health_due = true;
                self.with_health.insert(name.clone());
            }
            // A NodePort may be somebody's health check port.
            for key in &fragment.keys {
                is_health_due |= !keys_before.remove(key) && key.scope == scope::HOST_LOCAL;
            }
            done.rejected |= fragment.is_nowhere || !fragment.rejected.is_empty();
            self.fragments.insert(fragment.name.clone(), fragment);
        }
        is_health_due |= keys_before.iter().any(|key| key.scope == scope::HOST_LOCAL);
        for fragment in former {
            let now = self.fragments.get(&fragment.name).map(|fragment| &*fragment.ports).unwrap_or_default();
            for port in fragment.ports.iter().filter(|port| !now.contains(port)) {
                fragment::remove(*port, ids, maps);
            }
        }
        self.addresses.write(touched.iter(), here, maps);
        self.lead_to_tables(&due, here, ids, maps);
        if is_health_due || !here.refused_ports.is_empty() {
            self.compile_health(here, maps);
        }
        done.rejected |= had_rejected || !self.tables.rejected.is_empty() || !self.health_rejected.is_empty();
        done
    }

    /// Gives Maglev tables, and leads the frontends of these Services, and of those that get another table, to theirs.
    fn lead_to_tables(
        &mut self,
        due: &BTreeSet<ObjectName>,
        here: &Here<'_>,
        ids: &mut Ids,
        maps: &mut ServiceMaps,
    ) {
        let others = self.tables.give(here.settings.maglev_tables, ids, maps);
        let others = others.iter().filter(|name| !due.contains(*name));
        for fragment in due.iter().chain(others).filter_map(|name| self.fragments.get(name)) {
            for key in fragment.keys.iter().filter(|_| !fragment.wishes.is_empty()) {
                let Some(frontend) = maps.frontends.get(key).copied() else { continue };
                let table = self.tables.of(&(frontend.service, frontend.set));
                let maglev = if frontend.count > 0 { table } else { MaglevId::NONE };
                maps.frontends.set(*key, Some(Frontend { maglev, ..frontend }));
            }
        }
    }

    fn compile_health(&mut self, here: &Here<'_>, maps: &ServiceMaps) {
        let asked =
            self.with_health.iter().filter_map(|name| Some((name, self.fragments.get(name)?.health?)));
        (self.health_ports, self.health_rejected) = health::compile(asked, here.refused_ports, maps);
    }
}
