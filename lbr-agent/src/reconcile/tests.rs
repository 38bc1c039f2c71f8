mod addresses;
mod concern;
mod loading;
mod sockets;

use std::sync::{Arc, Mutex};

use lbr_common::addr::Addr;
use lbr_common::id::{BackendId, ServiceId};
use lbr_common::link::{Uplink, link_flags};
use lbr_common::maglev::{self, MaglevKey, MaglevPart};
use lbr_common::policy::Policy;
use lbr_common::service::FrontendKey;
use lbr_common::service::{Backend, Frontend, Slot, SlotKey};
use lbr_common::text::{ServiceName, Text};
use lbr_common::tuple::proto;

use super::*;
use crate::dataplane::fake::Fake;
use crate::desired::EndpointPolicy;

fn key(service: u8) -> FrontendKey {
    let addr = Addr::v4([10, 96, 0, service]);
    FrontendKey { addr, port: 80, proto: proto::TCP, ..FrontendKey::default() }
}

/// Service `n` with id `n` and these endpoints (the last byte of their address). Backend ids are `100 * n + endpoint`.
fn add(desired: &mut Desired, n: u8, endpoints: &[u8]) {
    let service = ServiceId::from(u32::from(n));
    let count = u32::try_from(endpoints.len()).unwrap();
    desired.frontends.insert(key(n), Frontend { service, count, ..Frontend::default() });
    let name = ServiceName { name: Text::new(&format!("s{n}")), ..ServiceName::default() };
    desired.services.insert(service, name);
    for (slot, &e) in (0..).zip(endpoints) {
        let backend = BackendId { id: service.id * 100 + u32::from(e) };
        desired.slots.insert(SlotKey { service, slot, ..SlotKey::default() }, Slot { backend });
        let addr = Addr::v4([10, 244, 0, e]);
        let value = Backend { addr, port: 8080, proto: proto::TCP, service, sets: 1, ..Backend::default() };
        desired.backends.insert(backend, value);
    }
}

fn services(of: &[(u8, &[u8])]) -> Desired {
    let mut desired = Desired::default();
    for (n, endpoints) in of {
        add(&mut desired, *n, endpoints);
    }
    desired
}

fn converge(r: &mut Reconciler, fake: &mut Fake, desired: &Desired) {
    let mut outcome = r.apply(desired.clone(), true, fake);
    for _ in 0..100 {
        if outcome.is_converged() {
            break;
        }
        outcome = r.retry(true, fake);
    }
    assert!(outcome.is_converged(), "{outcome:?}");
    assert_eq!(fake.in_force(), *desired);
    assert_eq!(r.actual(), *desired);
}

/// Leads these services to tables that their backends fill in turn.
fn with_tables(mut desired: Desired, tables: &[(u8, u32)]) -> Desired {
    for &(n, table) in tables {
        let of_service = desired.backends.iter().filter(|(_, b)| b.service.id == u32::from(n));
        let backends: Vec<BackendId> = of_service.map(|(id, _)| *id).collect();
        for part in 0..maglev::PARTS {
            let first = part * maglev::PART;
            let slots = first..maglev::SLOTS.min(first + maglev::PART);
            let slots: Vec<_> = slots.map(|slot| backends[slot as usize % backends.len()]).collect();
            let key = MaglevKey { table: table.into(), part };
            desired.maglev.insert(key, MaglevPart::new(&slots));
        }
        desired.frontends.get_mut(&key(n)).unwrap().maglev = table.into();
    }
    desired
}

/// After every write, the fake checks that each table of a frontend is complete.
#[test]
fn tables_change_as_a_whole_under_faults() {
    let mut fake = Fake::new(3).with_faults(10);
    let mut r = Reconciler::load(&mut fake).unwrap();
    for step in [
        with_tables(services(&[(1, &[1, 2]), (2, &[1])]), &[(1, 5)]),
        with_tables(services(&[(1, &[2, 3]), (2, &[1])]), &[(1, 6), (2, 7)]),
        with_tables(services(&[(1, &[2, 3, 4]), (2, &[2])]), &[(2, 8)]),
        services(&[(1, &[2]), (2, &[1])]),
        services(&[]),
    ] {
        converge(&mut r, &mut fake, &step);
    }
}

/// A table that does not fit holds up only its own service, which goes on as before.
#[test]
fn a_table_without_room_holds_up_no_other_service() {
    let mut fake = Fake::new(3).with_faults(0);
    fake.set_max_entries(lbr_common::maps::MAGLEV.name, maglev::PARTS);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let before = with_tables(services(&[(1, &[1, 2]), (2, &[1])]), &[(1, 5)]);
    converge(&mut r, &mut fake, &before);
    let wanted = with_tables(services(&[(1, &[2, 3]), (2, &[1, 4])]), &[(1, 6)]);
    let outcome = r.apply(wanted.clone(), true, &mut fake);
    assert!(!outcome.is_converged());
    assert!(outcome.problems.iter().all(|p| p.map == lbr_common::maps::MAGLEV.name), "{outcome:?}");
    let tables = fake.in_force();
    assert_eq!(tables.frontends[&key(1)], before.frontends[&key(1)]);
    assert_eq!(tables.frontends[&key(2)], wanted.frontends[&key(2)]);
    assert!(tables.backends.contains_key(&101.into()), "the table in force leads there");
}

#[test]
fn converges_step_by_step_under_faults() {
    for seed in 0..50 {
        let mut fake = Fake::new(seed).with_faults(30);
        let mut r = Reconciler::load(&mut fake).unwrap();
        for step in [
            services(&[(1, &[1]), (2, &[])]),
            services(&[(1, &[1, 2, 3]), (2, &[1])]),
            services(&[(1, &[2]), (2, &[7, 8, 9])]),
            services(&[(1, &[4, 5, 6])]),
            services(&[]),
        ] {
            converge(&mut r, &mut fake, &step);
        }
    }
}

#[test]
fn counts_what_was_done() {
    let mut fake = Fake::new(0).with_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let outcome = r.apply(services(&[(1, &[1, 2])]), true, &mut fake);
    assert_eq!((outcome.writes, outcome.removals, outcome.pending), (6, 0, 0));
    let epoch = fake.epoch();
    let outcome = r.apply(services(&[(1, &[1])]), true, &mut fake);
    assert_eq!((outcome.writes, outcome.removals, outcome.pending), (1, 2, 0));
    assert_eq!(fake.epoch(), epoch + 1);
    let outcome = r.apply(services(&[(1, &[1])]), true, &mut fake);
    assert_eq!((outcome.writes, outcome.removals), (0, 0));
    assert_eq!(fake.epoch(), epoch + 1, "no backend was removed");
}

/// When a packet finds the first new Service, its flows are judged by the new policies already.
#[test]
fn the_epoch_is_raised_before_services_are_written_and_again_if_they_need_it() {
    let mut fake = Fake::new(0).with_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    converge(&mut r, &mut fake, &services(&[(1, &[1, 2])]));
    let isolated = |mut desired: Desired, flags| {
        let policy = Policy { flags, ..Policy::default() };
        desired.endpoints.insert(Addr::v4([10, 244, 0, 9]), EndpointPolicy { ifindex: 0, policy });
        desired
    };
    for (step, desired, expected) in [
        ("policy and a new Service", isolated(services(&[(1, &[1, 2]), (2, &[1])]), 1), 2),
        ("policy only", isolated(services(&[(1, &[1, 2]), (2, &[1])]), 2), 1),
        ("policy, and a backend goes", isolated(services(&[(1, &[1]), (2, &[1])]), 1), 2),
        ("nothing", isolated(services(&[(1, &[1]), (2, &[1])]), 1), 0),
    ] {
        let before = fake.epoch();
        let seen = Arc::new(Mutex::new(None));
        let (into, watched, backends) = (seen.clone(), fake.clone(), fake.in_force().backends);
        fake.observe_epoch(move |tables, epoch| {
            if tables.backends != backends {
                into.lock().unwrap().get_or_insert(epoch);
            }
        });
        converge(&mut r, &mut fake, &desired);
        assert_eq!(watched.epoch() - before, expected, "{step}");
        if let Some(first) = *seen.lock().unwrap() {
            assert_eq!(first, before + 1, "{step}: the epoch at the first change of a backend");
        }
    }
}

/// A new pod's link gets its programs, and nothing else changes.
#[test]
fn plugging_attaches_new_links_only() {
    let link = |flags| Link { flags, master: 0 };
    let mut fake = Fake::new(0).with_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let mut desired = services(&[(1, &[1])]);
    desired.links = [(5, link(link_flags::PEER)), (6, link(link_flags::PEER))].into();
    desired.uplinks = [(2, Uplink::default())].into();
    converge(&mut r, &mut fake, &desired);
    let (operations, epoch) = (fake.operations(), fake.epoch());

    // The change of 5, the removal of 6 and the former uplink 2 wait for the next round.
    let changed: BTreeMap<u32, Link> = [(2, link(0)), (5, link(0)), (7, link(0))].into();
    assert_eq!(r.plug(&changed, &mut fake).writes, 1);
    assert_eq!((fake.operations(), fake.epoch()), (operations + 1, epoch));
    assert_eq!(fake.attached(), [5, 6, 7].into());
    assert_eq!(r.plug(&changed, &mut fake).writes, 0, "it is there");

    // The next round retries what failed.
    fake.set_faults(100);
    assert_eq!(r.plug(&[(8, link(0))].into(), &mut fake).problems.len(), 1);
    fake.set_faults(0);
    desired.links = [(5, link(0)), (7, link(0)), (8, link(0))].into();
    converge(&mut r, &mut fake, &desired);
    assert_eq!(fake.attached(), [5, 7, 8].into());
}

#[test]
fn the_epoch_is_raised_at_start_and_until_it_succeeds() {
    let mut fake = Fake::new(0).with_faults(100);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let outcome = r.retry(true, &mut fake);
    // The hints are written with it: a new agent does not know them either.
    assert_eq!((outcome.pending, outcome.problems.len()), (2, 2));
    fake.set_faults(0);
    assert!(r.retry(true, &mut fake).is_converged());
    assert_eq!(fake.epoch(), 1);
}

#[test]
fn before_everything_is_listed_only_what_is_new_is_written() {
    let mut fake = Fake::new(0).with_faults(0);
    let old = services(&[(1, &[1, 2]), (2, &[1])]);
    fake.set_tables(old.clone());
    let mut r = Reconciler::load(&mut fake).unwrap();

    let partial = services(&[(1, &[2]), (3, &[5])]);
    let outcome = r.apply(partial, false, &mut fake);
    assert_eq!(outcome.removals, 0);
    assert!(!outcome.is_converged());
    assert_eq!(fake.in_force(), services(&[(1, &[1, 2]), (2, &[1]), (3, &[5])]));

    let grown = services(&[(1, &[2]), (3, &[5, 6])]);
    r.apply(grown.clone(), false, &mut fake);
    assert_eq!(fake.in_force(), services(&[(1, &[1, 2]), (2, &[1]), (3, &[5, 6])]));
    converge(&mut r, &mut fake, &grown);
}

#[test]
fn a_service_that_does_not_fit_is_not_added_and_the_others_are() {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_max_entries("backends", 4);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let wanted = services(&[(1, &[1, 2]), (2, &[1, 2, 3]), (3, &[1])]);
    let outcome = r.apply(wanted.clone(), true, &mut fake);
    let [problem] = outcome.problems.as_slice() else { panic!("{outcome:?}") };
    assert_eq!((problem.map, problem.place().as_str()), ("backends", "Service s2 port (unnamed)"));
    assert!(matches!(problem.error, WriteError::Full { max_entries: 4, .. }));
    let mut without = services(&[(1, &[1, 2]), (3, &[1])]);
    without.services = wanted.services.clone();
    assert_eq!(fake.in_force(), without);

    fake.set_max_entries("backends", 6);
    converge(&mut r, &mut fake, &wanted);
}

#[test]
fn a_service_that_cannot_grow_keeps_what_it_has() {
    let mut fake = Fake::new(0).with_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    converge(&mut r, &mut fake, &services(&[(1, &[1, 2])]));
    fake.set_max_entries("slots", 3);
    let outcome = r.apply(services(&[(1, &[1, 2, 3, 4]), (2, &[1])]), true, &mut fake);
    assert_eq!(outcome.problems.len(), 1);
    let tables = fake.in_force();
    assert_eq!((tables.frontends[&key(1)].count, tables.frontends[&key(2)].count), (2, 1));
}

#[test]
fn a_link_that_could_not_be_attached_is_tried_again_or_removed() {
    let link = Link { flags: link_flags::PEER, master: 0 };
    let with_link = Desired { links: [(5, link)].into(), ..Desired::default() };
    let mut fake = Fake::new(0).with_faults(100);
    let mut r = Reconciler::load(&mut fake).unwrap();
    r.apply(with_link.clone(), false, &mut fake);
    assert!(fake.attached().is_empty());
    assert_eq!(fake.in_force().links.len(), 1, "the entry comes first");

    fake.set_faults(0);
    assert!(r.retry(false, &mut fake).is_converged());
    assert_eq!(fake.attached(), [5].into());

    fake.set_faults(100);
    r.apply(Desired::default(), false, &mut fake);
    fake.set_faults(0);
    r.apply(with_link.clone(), false, &mut fake);
    assert_eq!(fake.attached(), [5].into());

    let mut fake = Fake::new(0).with_faults(100);
    let mut r = Reconciler::load(&mut fake).unwrap();
    r.apply(with_link.clone(), false, &mut fake);
    fake.set_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    r.apply(with_link, false, &mut fake);
    assert_eq!(fake.attached(), [5].into(), "an agent that ended in between");

    assert!(r.apply(Desired::default(), false, &mut fake).is_converged());
    assert!(fake.attached().is_empty() && fake.in_force().links.is_empty());
}

#[test]
fn tables_that_contradict_themselves_are_put_right() {
    let mut fake = Fake::new(3);
    let mut broken = services(&[(1, &[1, 2])]);
    broken.backends.clear();
    broken.slots.remove(&SlotKey { service: 1.into(), ..SlotKey::default() });
    fake.set_tables(broken);
    let mut r = Reconciler::load(&mut fake).unwrap();
    fake.set_checked(false);
    converge(&mut r, &mut fake, &services(&[(1, &[1, 2, 3])]));
}
