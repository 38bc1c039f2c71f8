//! Entries of whole addresses: after those of their ports.

use lbr_common::service::FrontendKey;
use lbr_common::service::frontend_flags;

use super::*;
use crate::dataplane::Hints;
use crate::dataplane::{Table, Tables};

/// Adds the entries of whole addresses.
fn with_addresses(mut desired: Desired) -> Desired {
    let addresses: Vec<_> =
        desired.frontends.keys().map(|k| FrontendKey { port: 0, proto: 0, ..*k }).collect();
    let refuse = Frontend { flags: frontend_flags::WILDCARD, ..Frontend::default() };
    desired.frontends.extend(addresses.into_iter().map(|key| (key, refuse)));
    desired
}

/// Records which frontends are written.
struct Noting {
    fake: Fake,
    frontends: NotingTable,
}

struct NotingTable {
    fake: Fake,
    written: Vec<FrontendKey>,
}

impl Table<FrontendKey, Frontend> for NotingTable {
    fn name(&self) -> &'static str {
        "frontends"
    }

    fn max_entries(&self) -> u32 {
        100
    }

    fn entries(&self) -> Result<Vec<(FrontendKey, Frontend)>, WriteError> {
        Ok(self.fake.in_force().frontends.into_iter().collect())
    }

    fn insert(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), WriteError> {
        self.written.push(*key);
        self.fake.tables().frontends.insert(key, value)
    }

    fn remove(&mut self, key: &FrontendKey) -> Result<(), WriteError> {
        self.fake.tables().frontends.remove(key)
    }
}

impl Dataplane for Noting {
    fn tables(&mut self) -> Tables<'_> {
        Tables { frontends: &mut self.frontends, ..self.fake.tables() }
    }

    fn generation(&mut self) -> Result<u32, WriteError> {
        Ok(self.fake.generation())
    }

    fn set_generation(&mut self, generation: u32) -> Result<(), WriteError> {
        self.fake.set_generation(generation)
    }

    fn set_hints(&mut self, hints: Hints) -> Result<(), WriteError> {
        self.fake.set_hints(hints)
    }

    fn raise_epoch(&mut self, flows: &Concerned) -> Result<(), WriteError> {
        self.fake.raise_epoch(flows)
    }

    fn abort_sockets(&mut self, backends: &BTreeMap<BackendId, Backend>) -> std::io::Result<usize> {
        self.fake.abort_sockets(backends)
    }
}

#[test]
fn an_address_is_refused_as_a_whole_only_after_its_ports_are_there() {
    let fake = Fake::new(0).with_faults(0);
    let frontends = NotingTable { fake: fake.clone(), written: Vec::new() };
    let mut noting = Noting { fake, frontends };
    let mut r = Reconciler::load(&mut noting).unwrap();
    let desired = with_addresses(services(&[(1, &[1]), (2, &[1])]));
    assert!(r.apply(desired, true, &mut noting).is_converged());
    let ports: Vec<_> = noting.frontends.written.iter().map(|key| key.port).collect();
    assert_eq!(ports, [80, 80, 0, 0]);
}

#[test]
fn a_port_without_room_for_its_address_is_not_added() {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_max_entries("frontends", 5);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let desired = with_addresses(services(&[(1, &[1]), (2, &[1]), (3, &[1])]));
    let outcome = r.apply(desired.clone(), true, &mut fake);
    let problems: Vec<_> = outcome.problems.iter().map(|p| (p.map, p.place())).collect();
    let expected = ["Service s3 port (unnamed)", "10.96.0.3"].map(|place| ("frontends", place.to_owned()));
    assert_eq!(problems, expected);
    let fitting = with_addresses(services(&[(1, &[1]), (2, &[1])]));
    assert_eq!(fake.in_force().frontends, fitting.frontends);

    fake.set_max_entries("frontends", 6);
    converge(&mut r, &mut fake, &desired);
}
