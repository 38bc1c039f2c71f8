//! The numbers of services and backends: stable as long as they exist, not soon used for anything else.
//!
//! Flows carry these numbers, and a number that is still in a map means "still an endpoint of that service".
//! A number that changed hands would tell a flow that its backend lives when it does not.

use std::collections::{BTreeMap, BTreeSet};

use lbr_common::addr::Addr;
use lbr_common::service::{FrontendKey, frontend_flags};

use crate::desired::Desired;

/// After a restart, counting goes on this far above the highest number found: the flows of what was removed
/// just before may still carry numbers that no map shows any more.
const RESTART_GAP: u32 = 1 << 16;

/// Numbers for services (by the key of their first frontend) and backends (by service, address and port).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    services: Pool<FrontendKey>,
    backends: Pool<(u32, Addr, u16)>,
}

impl Ids {
    /// No number is in use.
    pub fn new() -> Self {
        Self::default()
    }

    /// The numbers that a former agent left in the maps. What contradicts itself there is not adopted: it
    /// gets a new number, and the old one is not used again.
    ///
    /// A number that was adopted waits for its first use however long that takes, so that a first compile
    /// of a state that is not complete yet does not give it up.
    pub fn restore(tables: &Desired) -> Self {
        let mut ids = Self::default();

        // All frontends of one service have the same port, protocol and family: that is what a service is.
        let mut shapes = BTreeMap::new();
        let frontends = || tables.frontends.iter().filter(|(_, f)| f.flags & frontend_flags::ADDRESS == 0);
        for (key, frontend) in frontends() {
            let shape = (key.port, key.proto, key.addr.is_v4());
            let known = shapes.entry(frontend.service).or_insert(Some(shape));
            if *known != Some(shape) {
                *known = None;
            }
        }
        shapes.remove(&0);
        let shape_of = |service: u32| shapes.get(&service).copied().flatten();

        // The first frontend of a service is not marked in the maps: any of them may claim the number.
        for (key, frontend) in frontends() {
            if shape_of(frontend.service).is_some() {
                ids.services.adopt(*key, frontend.service);
            }
        }
        for (&id, backend) in &tables.backends {
            let fits = |(_, proto, v4)| backend.proto == proto && backend.addr.is_v4() == v4;
            if id != 0 && shape_of(backend.service).is_some_and(fits) {
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
        ids
    }

    /// The number of the service whose first frontend this is.
    pub(super) fn service(&mut self, first: FrontendKey) -> u32 {
        self.services.get(first)
    }

    /// The number of a backend of a service.
    pub(super) fn backend(&mut self, service: u32, addr: Addr, port: u16) -> u32 {
        self.backends.get((service, addr, port))
    }

    /// Gives up what was not asked for since the last call.
    pub(super) fn forget_unused(&mut self) {
        self.services.forget_unused();
        self.backends.forget_unused();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Adopted at start, not asked for yet.
    Waiting,
    /// Asked for since the last [`Pool::forget_unused`].
    Now,
    /// Asked for before it.
    Before,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pool<K> {
    ids: BTreeMap<K, (u32, Use)>,
    /// Numbers that may not be given to a new key.
    taken: BTreeSet<u32>,
    /// Numbers asked for since the last `forget_unused`: each may have one key only.
    asked: BTreeSet<u32>,
    /// The number given out last.
    last: u32,
}

// Derived, it would ask for a default key.
impl<K> Default for Pool<K> {
    fn default() -> Self {
        Self { ids: BTreeMap::new(), taken: BTreeSet::new(), asked: BTreeSet::new(), last: 0 }
    }
}

impl<K: Ord> Pool<K> {
    fn get(&mut self, key: K) -> u32 {
        if let Some((id, used)) = self.ids.get_mut(&key)
            && (*used == Use::Now || self.asked.insert(*id))
        {
            *used = Use::Now;
            return *id;
        }
        let id = self.next();
        self.asked.insert(id);
        self.ids.insert(key, (id, Use::Now));
        id
    }

    fn next(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && self.taken.insert(self.last) {
                return self.last;
            }
        }
    }

    fn forget_unused(&mut self) {
        let Self { ids, taken, asked, .. } = self;
        ids.retain(|_, (id, used)| match used {
            Use::Now => {
                *used = Use::Before;
                true
            }
            // Another key may have claimed the number meanwhile.
            Use::Waiting => !asked.contains(id),
            Use::Before => {
                taken.remove(id);
                false
            }
        });
        asked.clear();
    }

    /// Restores one number. The first key wins if a key has several.
    fn adopt(&mut self, key: K, id: u32) {
        self.ids.entry(key).or_insert((id, Use::Waiting));
    }

    fn avoid(&mut self, ids: impl Iterator<Item = u32>) {
        self.taken.extend(ids.filter(|&id| id != 0));
    }

    fn skip_ahead(&mut self) {
        if let Some(highest) = self.taken.last() {
            self.last = highest.wrapping_add(RESTART_GAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use lbr_common::service::{Backend, Frontend, Slot, SlotKey};
    use lbr_common::tuple::proto;

    use super::*;

    fn key(last: u8, port: u16) -> FrontendKey {
        let addr = Addr::v4([10, 96, 0, last]);
        FrontendKey { addr, port, proto: proto::TCP, ..FrontendKey::default() }
    }

    fn pod(last: u8) -> Addr {
        Addr::v4([10, 244, 0, last])
    }

    fn backend(service: u32, last: u8) -> Backend {
        Backend { addr: pod(last), port: 8080, proto: proto::TCP, service, ..Backend::default() }
    }

    fn tables(frontends: &[(FrontendKey, u32)], backends: &[(u32, Backend)]) -> Desired {
        Desired {
            frontends: frontends
                .iter()
                .map(|&(k, service)| (k, Frontend { service, ..Frontend::default() }))
                .collect(),
            backends: backends.iter().copied().collect(),
            ..Desired::default()
        }
    }

    #[test]
    fn a_number_is_stable_and_given_up_after_disuse() {
        let mut ids = Ids::new();
        let (a, b) = (ids.service(key(1, 80)), ids.service(key(2, 80)));
        assert_eq!((a, b), (1, 2));
        ids.forget_unused();
        assert_eq!(ids.service(key(2, 80)), b);
        ids.forget_unused();
        assert_eq!(ids.service(key(1, 80)), 3, "given up, and not used again soon");
        assert_eq!(ids.services.taken.len(), 2);
    }

    #[test]
    fn backends_of_two_services_differ() {
        let mut ids = Ids::new();
        assert_ne!(ids.backend(1, pod(1), 80), ids.backend(2, pod(1), 80));
        assert_eq!(ids.backend(1, pod(1), 80), ids.backend(1, pod(1), 80));
    }

    #[test]
    fn counting_wraps_past_zero_and_what_is_taken() {
        let mut ids = Ids::new();
        assert_eq!(ids.service(key(1, 80)), 1);
        ids.services.last = u32::MAX;
        assert_eq!(ids.service(key(2, 80)), 2);
    }

    #[test]
    fn restored_numbers_wait_for_their_first_use() {
        let mut ids = Ids::restore(&tables(&[(key(1, 80), 7)], &[(9, backend(7, 1))]));
        ids.forget_unused();
        assert_eq!(ids.service(key(1, 80)), 7);
        ids.forget_unused();
        ids.forget_unused();
        assert_ne!(ids.service(key(1, 80)), 7, "used once, then as any other");
        assert_eq!(ids.backend(7, pod(1), 8080), 9, "still waiting");
        assert!(ids.backend(7, pod(2), 8080) > 9 + RESTART_GAP);
    }

    #[test]
    fn any_frontend_claims_a_restored_number_but_only_one() {
        let restored = Ids::restore(&tables(&[(key(1, 80), 7), (key(2, 80), 7)], &[]));
        let mut ids = restored.clone();
        assert_eq!(ids.service(key(2, 80)), 7);
        assert_ne!(ids.service(key(1, 80)), 7);
        let mut ids = restored;
        assert_eq!(ids.service(key(1, 80)), 7);
        ids.forget_unused();
        assert_ne!(ids.service(key(2, 80)), 7);
    }

    #[test]
    fn contradictions_are_not_adopted() {
        let other_port = (key(2, 81), 7);
        let mut ids = Ids::restore(&tables(&[(key(1, 80), 7), other_port], &[(9, backend(7, 1))]));
        assert_ne!(ids.service(key(1, 80)), 7);
        assert_ne!(ids.backend(7, pod(1), 8080), 9, "its service was not adopted");

        let udp = Backend { proto: proto::UDP, ..backend(7, 2) };
        let mut ids = Ids::restore(&tables(
            &[(key(1, 80), 7)],
            &[(3, backend(7, 1)), (4, backend(7, 1)), (5, udp), (6, backend(8, 1)), (0, backend(7, 3))],
        ));
        assert_eq!(ids.backend(7, pod(1), 8080), 3, "the first of two");
        assert_ne!(ids.backend(7, pod(2), 8080), 5);
        assert_ne!(ids.backend(8, pod(1), 8080), 6);
        assert_ne!(ids.backend(7, pod(3), 8080), 0);
    }

    #[test]
    fn numbers_that_are_not_adopted_are_not_used_either() {
        let mut tables = tables(&[], &[(2, backend(3, 1))]);
        tables.slots.insert(SlotKey { service: 1, slot: 0 }, Slot { backend: u32::MAX - RESTART_GAP });
        tables.frontends.insert(key(1, 80), Frontend { service: 0, ..Frontend::default() });
        let mut ids = Ids::restore(&tables);
        assert_eq!(ids.backends.taken, [2, u32::MAX - RESTART_GAP].into());
        assert_eq!(ids.services.taken, [1, 3].into());
        assert_eq!(ids.backend(1, pod(1), 80), 1, "wrapped");
        assert_eq!(ids.backend(1, pod(2), 80), 3);
        assert_ne!(ids.service(key(1, 80)), 0);
    }
}
