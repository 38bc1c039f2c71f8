use lbr_common::service::{Backend, Frontend, Slot, SlotKey};
use lbr_common::tuple::proto;

use super::pool::RESTART_GAP;
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

#[test]
fn equal_hashes_are_not_equal_content() {
    use lbr_common::policy::class;
    use lbr_common::text::{ClassRecord, Member, MemberKey};

    let mut ids = PolicyIds::default();
    let first = ids.class(vec![1], 5);
    assert_eq!((first, ids.class(vec![2], 5), ids.class(vec![1], 5)), (class::FIRST, 3, class::FIRST));

    let mut tables = Desired::default();
    for id in [0, 1, 7, 9, u32::MAX] {
        tables.classes.insert(id, ClassRecord { hash: 5, ..ClassRecord::default() });
    }
    for (number, hash) in [(0, 6), (1, 8)] {
        tables.set_members.insert(MemberKey { set: 4, number }, Member { hash, ..Member::default() });
    }
    let mut ids = PolicyIds::restore(&tables);
    assert_eq!(ids.class(vec![1], 5), 7, "the first number that is one");
    assert!(ids.class(vec![2], 5) > 9 + RESTART_GAP);
    assert!(ids.set(vec![1], 6) > 4 + RESTART_GAP, "made of what two sets left");
}
