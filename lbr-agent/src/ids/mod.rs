//! The numbers of services, backends and parts of policies: stable as long as these exist, and not soon used for
//! anything else.
//!
//! Flows carry the numbers of services and backends, and a number that is still in a map means "still an endpoint of
//! that service". A number that changed hands would keep a flow at a backend that is gone. For the numbers of policies
//! see `policy.rs`.

mod policy;
mod pool;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lbr_common::addr::{Addr, Family};
use lbr_common::id::{BackendId, MaglevId, ServiceId};
use lbr_common::maglev::MaglevPart;
use lbr_common::service::frontend_flags;
use lbr_common::text::ServiceName;
pub(crate) use policy::PolicyIds;
use pool::Pool;
use tables::Tables;

use crate::desired::Desired;

/// A Service port in one family, by its name: its addresses come and go, and no port belongs to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServicePort {
    pub(crate) name: ServiceName,
    pub(crate) proto: u8,
    pub(crate) family: Family,
}

/// The same as a key: most of a [`ServiceName`] is padding.
type PortKey = (Box<str>, u8, Family);

impl ServicePort {
    fn key(&self) -> PortKey {
        let ServiceName { namespace, name, port } = &self.name;
        // No name has a slash in it.
        let text = [namespace.as_str(), name.as_str(), port.as_str()].join("/");
        (text.into(), self.proto, self.family)
    }
}

/// Numbers for services, backends (by service, address and port), and for policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    services: Pool<PortKey, ServiceId>,
    backends: Pool<(ServiceId, Addr, u16), BackendId>,
    maglev: Tables,
    policy: PolicyIds,
}

impl Ids {
    /// No number is in use.
    pub fn new() -> Self {
        Self::default()
    }

    /// The numbers that a former agent left in the maps. Entries that contradict each other are not adopted: they get a
    /// new number, and the old one is not used again.
    ///
    /// An adopted number waits for its first use without a limit, so that compiling a state that is not complete yet
    /// does not give it up.
    pub fn restore(tables: &Desired) -> Self {
        let mut ids = Self::default();

        // All frontends of a service have the same protocol and family, by the definition of a service.
        let mut shapes = BTreeMap::new();
        for (key, frontend) in
            tables.frontends.iter().filter(|(_, f)| f.flags & frontend_flags::WILDCARD == 0)
        {
            let shape = (key.proto, key.addr.family());
            let known = shapes.entry(frontend.service).or_insert(Some(shape));
            if *known != Some(shape) {
                *known = None;
            }
        }
        shapes.remove(&ServiceId::NONE);
        let shape_of = |service: ServiceId| shapes.get(&service).copied().flatten();

        for (&id, &name) in &tables.services {
            if let Some((proto, family)) = shape_of(id) {
                ids.services.adopt(ServicePort { name, proto, family }.key(), id);
            }
        }
        for (&id, backend) in &tables.backends {
            let fits = |(proto, family)| backend.proto == proto && backend.addr.family() == family;
            let is_named = tables.services.contains_key(&backend.service);
            if id.is_some() && is_named && shape_of(backend.service).is_some_and(fits) {
                ids.backends.adopt((backend.service, backend.addr, backend.port), id);
            }
        }

        ids.services.avoid(tables.frontends.values().map(|f| f.service));
        ids.services.avoid(tables.slots.keys().map(|k| k.service));
        ids.services.avoid(tables.backends.values().map(|b| b.service));
        ids.services.avoid(tables.services.keys().copied());
        ids.backends.avoid(tables.backends.keys().copied());
        ids.backends.avoid(tables.slots.values().map(|s| s.backend));
        ids.services.skip_ahead();
        ids.backends.skip_ahead();
        ids.maglev = Tables::restore(tables);
        ids.policy = PolicyIds::restore(tables);
        ids
    }

    /// The number of a Service port in one family.
    pub(crate) fn service(&mut self, port: ServicePort) -> ServiceId {
        self.services.get(port.key())
    }

    /// The number of a backend of a service.
    pub(crate) fn backend(&mut self, service: ServiceId, addr: Addr, port: u16) -> BackendId {
        self.backends.get((service, addr, port))
    }

    /// Gives up the number of a Service port.
    pub(crate) fn release_service(&mut self, port: &ServicePort) {
        self.services.release(&port.key());
    }

    /// Gives up the numbers of a service's backends, but for those to `keep` and those that a former agent left and that
    /// were not asked for yet. Returns them.
    pub(crate) fn release_backends(
        &mut self,
        service: ServiceId,
        keep: impl Fn(BackendId) -> bool,
    ) -> Vec<BackendId> {
        let first = (service, Addr::UNSPECIFIED, 0);
        let last = (service, Addr { bytes: [u8::MAX; 16] }, u16::MAX);
        self.backends.release_range(first..=last, keep)
    }

    /// Keeps the numbers of services and backends in less memory, after many came at once.
    pub(crate) fn compact(&mut self) {
        self.services.compact();
        self.backends.compact();
    }

    /// The services that have a backend at one of these addresses.
    pub(crate) fn services_with_backend_at(&self, addresses: &BTreeSet<Addr>) -> BTreeSet<ServiceId> {
        let all = self.backends.keys().filter(|(_, addr, _)| addresses.contains(addr));
        all.map(|(service, _, _)| *service).collect()
    }

    /// The number of the Maglev table of these backends, and its content; `fill` makes that if it is not known.
    pub(crate) fn maglev(
        &mut self,
        backends: Vec<BackendId>,
        fill: impl FnOnce() -> Vec<MaglevPart>,
    ) -> (MaglevId, Arc<[MaglevPart]>) {
        self.maglev.get(backends, fill)
    }

    /// Gives up the tables that were not asked for since the last call.
    pub(crate) fn forget_unused_maglev(&mut self) {
        self.maglev.forget_unused();
    }

    /// The numbers of policy.
    pub(crate) fn policy(&mut self) -> &mut PolicyIds {
        &mut self.policy
    }

    /// Gives up the numbers of policy that were not asked for since the last call.
    pub(crate) fn forget_unused_policy(&mut self) {
        self.policy.forget_unused();
    }

    /// Gives up all numbers that were not asked for since the last call.
    pub(crate) fn forget_unused(&mut self) {
        self.services.forget_unused();
        self.backends.forget_unused();
        self.policy.forget_unused();
    }
}

#[cfg(test)]
mod tests;
