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
use lbr_common::service::{Frontend, FrontendKey, scope};

use self::addresses::{Addresses, Use};
use self::claims::{Ask, Claims};
use self::fragment::{Asked, Fragment};
pub(crate) use self::health::HEALTH_PORT;
use self::maglev::Wish;
use crate::cluster::{Changes, ClusterState};
use crate::desired::HealthPort;
use crate::ids::Ids;
use crate::model::{Kind, ObjectName, Rejected};
use crate::node::NodeChange;
use crate::node::here::Here;
use crate::table::{ServiceMaps, compact};

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
                let mut due = changes.services.clone();
                // The links by which backends are reached are others.
                let services = ids.services_with_backend_at(addresses);
                if !services.is_empty() {
                    let has =
                        |fragment: &&Fragment| fragment.ports.iter().any(|port| services.contains(&port.id));
                    due.extend(self.fragments.values().filter(has).map(|fragment| fragment.name.clone()));
                }
                due
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
            let before = former.map(|fragment| std::mem::take(&mut fragment.asked)).unwrap_or_default();
            let asked = state.services.get(name).map(|service| Asked::of(service, &nodeports, here));
            let now: Vec<Ask> = asked.iter().flat_map(Asked::asks).collect();
            for ask in before.iter().filter(|ask| !now.contains(ask)) {
                self.claims.withdraw(*ask, name, &mut others);
            }
            for ask in now.iter().filter(|ask| !before.contains(ask)) {
                self.claims.enter(*ask, name, &mut others);
            }
        }
        due.extend(others);
    }

    /// Compiles the due Services, and then what Services share.
    fn compile_due(
        &mut self,
        due: BTreeSet<ObjectName>,
        state: &ClusterState,
        here: &Here<'_>,
        ids: &mut Ids,
        maps: &mut ServiceMaps,
    ) -> Compiled {
        let of_shared = |all: &Self| !all.tables.rejected.is_empty() || !all.health_rejected.is_empty();
        let had_rejected = of_shared(self);
        let nodeports = here.nodeport_addresses();
        // First all former frontends go: one may come to another Service.
        let former: Vec<Fragment> = due.iter().filter_map(|name| self.take_out(name, maps)).collect();
        let (before, mut now) = (Shared::of(&former), Shared::default());
        for service in due.iter().filter_map(|name| state.services.get(name)) {
            let (slices, asked) = (state.slices_of(&service.name), Asked::of(service, &nodeports, here));
            let (fragment, wishes) = fragment::compile(asked, &slices, &self.claims, here, ids, maps);
            now.add(&fragment);
            self.put_in(fragment, wishes);
        }
        for fragment in former {
            let ports =
                self.fragments.get(&fragment.name).map(|fragment| &*fragment.ports).unwrap_or_default();
            for port in fragment.ports.iter().filter(|port| !ports.contains(port)) {
                fragment::remove(*port, ids, maps);
            }
        }
        self.addresses.write(before.uses.iter().chain(&now.uses), here, maps);
        self.lead_to_tables(&due, here, ids, maps);
        // A NodePort may be somebody's health check port.
        let concerns_health = before.has_health || now.has_health || before.node_ports != now.node_ports;
        if concerns_health {
            self.compile_health(here, maps);
        }
        if due.len() > self.fragments.len() / 2 {
            compact(&mut self.fragments);
            self.claims.compact();
            self.addresses.compact();
            ids.compact();
        }
        let rejected = before.has_rejected || now.has_rejected || had_rejected || of_shared(self);
        Compiled { services: due.len(), rejected }
    }

    /// Takes a Service out of what is kept, and its frontends out of the maps.
    fn take_out(&mut self, name: &ObjectName, maps: &mut ServiceMaps) -> Option<Fragment> {
        let fragment = self.fragments.remove(name)?;
        fragment.keys.iter().for_each(|key| maps.frontends.set(*key, None));
        fragment.wishes.iter().for_each(|key| self.tables.remove(key));
        self.addresses.remove(&fragment.uses);
        self.direct.remove(name);
        self.with_health.remove(name);
        Some(fragment)
    }

    fn put_in(&mut self, fragment: Fragment, wishes: Vec<(maglev::Key, Wish)>) {
        let name = &fragment.name;
        for (key, wish) in wishes {
            self.tables.add(key, wish);
        }
        self.addresses.add(&fragment.uses);
        if fragment.is_direct {
            self.direct.insert(name.clone());
        }
        if fragment.health.is_some() {
            self.with_health.insert(name.clone());
        }
        self.fragments.insert(name.clone(), fragment);
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

/// What fragments have to do with other Services.
#[derive(Debug, Default)]
struct Shared {
    uses: Vec<Use>,
    node_ports: BTreeSet<FrontendKey>,
    has_health: bool,
    has_rejected: bool,
}

impl Shared {
    fn of(fragments: &[Fragment]) -> Self {
        let mut all = Self::default();
        fragments.iter().for_each(|fragment| all.add(fragment));
        all
    }

    fn add(&mut self, fragment: &Fragment) {
        self.uses.extend(&fragment.uses);
        self.node_ports.extend(fragment.keys.iter().filter(|key| key.scope == scope::HOST_LOCAL));
        self.has_health |= fragment.health.is_some();
        self.has_rejected |= fragment.is_nowhere || !fragment.rejected.is_empty();
    }
}
