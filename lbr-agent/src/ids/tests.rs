use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, scope};
use lbr_common::text::Text;
use lbr_common::tuple::proto;

use super::pool::RESTART_GAP;
use super::*;
use crate::model::ObjectName;

fn port_of(port: &str, proto: u8, family: Family) -> ServicePort {
    ServicePort { name: name(port), proto, family }
}

fn name(port: &str) -> ServiceName {
    ServiceName { namespace: Text::new("default"), name: Text::new("web"), port: Text::new(port) }
}

fn service(ids: &mut Ids, port: &str) -> u32 {
    ids.service(port_of(port, proto::TCP, Family::V4)).id
}

fn backend_of(ids: &mut Ids, service: u32, addr: Addr, port: u16) -> u32 {
    ids.backend(service.into(), addr, port).id
}

fn key(last: u8, port: u16) -> FrontendKey {
    let addr = Addr::v4([10, 96, 0, last]);
    FrontendKey { addr, port, proto: proto::TCP, ..FrontendKey::default() }
}

fn pod(last: u8) -> Addr {
    Addr::v4([10, 244, 0, last])
}

fn backend(service: u32, last: u8) -> Backend {
    Backend { addr: pod(last), port: 8080, proto: proto::TCP, service: service.into(), ..Backend::default() }
}

fn tables(
    frontends: &[(FrontendKey, u32)],
    services: &[(u32, &str)],
    backends: &[(u32, Backend)],
) -> Desired {
    Desired {
        frontends: frontends
            .iter()
            .map(|&(k, service)| (k, Frontend { service: service.into(), ..Frontend::default() }))
            .collect(),
        services: services.iter().map(|&(id, port)| (id.into(), name(port))).collect(),
        backends: backends.iter().map(|&(id, backend)| (id.into(), backend)).collect(),
        ..Desired::default()
    }
}

/// Service 7, of port `http`.
fn one(backends: &[(u32, Backend)]) -> Desired {
    tables(&[(key(1, 80), 7)], &[(7, "http")], backends)
}

#[test]
fn a_number_is_stable_and_given_up_after_disuse() {
    let mut ids = Ids::new();
    let (a, b) = (service(&mut ids, "a"), service(&mut ids, "b"));
    assert_eq!((a, b), (1, 2));
    ids.forget_unused();
    assert_eq!(service(&mut ids, "b"), b);
    ids.forget_unused();
    assert_eq!(service(&mut ids, "a"), 3, "given up, and not used again soon");
    assert_eq!(ids.services.taken.len(), 2);
}

#[test]
fn families_and_protocols_have_numbers_of_their_own() {
    let mut ids = Ids::new();
    let all = [(proto::TCP, Family::V4), (proto::TCP, Family::V6), (proto::UDP, Family::V4)];
    assert_eq!(all.map(|(proto, family)| ids.service(port_of("a", proto, family)).id), [1, 2, 3]);
}

#[test]
fn backends_of_two_services_differ() {
    let mut ids = Ids::new();
    assert_ne!(backend_of(&mut ids, 1, pod(1), 80), backend_of(&mut ids, 2, pod(1), 80));
    assert_eq!(backend_of(&mut ids, 1, pod(1), 80), backend_of(&mut ids, 1, pod(1), 80));
}

#[test]
fn counting_wraps_past_zero_and_what_is_taken() {
    let mut ids = Ids::new();
    assert_eq!(service(&mut ids, "a"), 1);
    ids.services.last = u32::MAX;
    assert_eq!(service(&mut ids, "b"), 2);
}

#[test]
fn restored_numbers_wait_for_their_first_use() {
    let mut ids = Ids::restore(&one(&[(9, backend(7, 1))]));
    ids.forget_unused();
    assert_eq!(service(&mut ids, "http"), 7);
    ids.forget_unused();
    ids.forget_unused();
    assert_ne!(service(&mut ids, "http"), 7, "used once, then as any other");
    assert_eq!(backend_of(&mut ids, 7, pod(1), 8080), 9, "still waiting");
    assert!(backend_of(&mut ids, 7, pod(2), 8080) > 9 + RESTART_GAP);
}

#[test]
fn a_number_is_restored_whatever_the_addresses_are() {
    let node_port = FrontendKey { addr: Addr::v4([192, 0, 2, 1]), ..key(1, 30_080) };
    let by_wire = FrontendKey { scope: scope::EXTERNAL, ..node_port };
    let loopback = FrontendKey { addr: Addr::v4([127, 0, 0, 1]), scope: scope::HOST_LOCAL, ..node_port };
    let unspecified = FrontendKey { addr: Addr::v4([0; 4]), ..loopback };
    for frontends in [
        vec![key(1, 80), node_port, by_wire, loopback, unspecified],
        // Its cluster IP was another Service's already.
        vec![node_port],
        vec![unspecified],
    ] {
        let frontends: Vec<_> = frontends.into_iter().map(|key| (key, 7)).collect();
        let mut ids = Ids::restore(&tables(&frontends, &[(7, "http")], &[(9, backend(7, 1))]));
        assert_eq!(
            (service(&mut ids, "http"), backend_of(&mut ids, 7, pod(1), 8080)),
            (7, 9),
            "{frontends:?}"
        );
    }
    let v6 = FrontendKey { addr: Addr::UNSPECIFIED, scope: scope::HOST_LOCAL, ..node_port };
    let mut ids = Ids::restore(&tables(&[(v6, 7)], &[(7, "http")], &[]));
    assert_ne!(service(&mut ids, "http"), 7);
    assert_eq!(ids.service(port_of("http", proto::TCP, Family::V6)).id, 7);
}

#[test]
fn one_name_has_one_number() {
    let twice = tables(&[(key(1, 80), 7), (key(2, 80), 8)], &[(7, "http"), (8, "http")], &[]);
    let mut ids = Ids::restore(&twice);
    assert_eq!(service(&mut ids, "http"), 7);
    assert!(service(&mut ids, "other") > 8 + RESTART_GAP);
}

#[test]
fn contradictions_are_not_adopted() {
    let udp = FrontendKey { proto: proto::UDP, ..key(2, 80) };
    let both = tables(&[(key(1, 80), 7), (udp, 7)], &[(7, "http")], &[(9, backend(7, 1))]);
    let mut ids = Ids::restore(&both);
    assert_ne!(service(&mut ids, "http"), 7);
    assert_ne!(backend_of(&mut ids, 7, pod(1), 8080), 9, "its service was not adopted");

    let udp = Backend { proto: proto::UDP, ..backend(7, 2) };
    let mut ids = Ids::restore(&one(&[
        (3, backend(7, 1)),
        (4, backend(7, 1)),
        (5, udp),
        (6, backend(8, 1)),
        (0, backend(7, 3)),
    ]));
    assert_eq!(backend_of(&mut ids, 7, pod(1), 8080), 3, "the first of two");
    assert_ne!(backend_of(&mut ids, 7, pod(2), 8080), 5);
    assert_ne!(backend_of(&mut ids, 8, pod(1), 8080), 6);
    assert_ne!(backend_of(&mut ids, 7, pod(3), 8080), 0);

    let mut ids = Ids::restore(&tables(&[(key(1, 80), 7)], &[], &[(9, backend(7, 1))]));
    assert_ne!(backend_of(&mut ids, 7, pod(1), 8080), 9, "whose it was is not known");
}

#[test]
fn numbers_that_are_not_adopted_are_not_used_either() {
    let mut tables = tables(&[], &[], &[(2, backend(3, 1))]);
    tables.slots.insert(
        SlotKey { service: 1.into(), ..SlotKey::default() },
        Slot { backend: (u32::MAX - RESTART_GAP).into() },
    );
    tables.frontends.insert(key(1, 80), Frontend::default());
    let mut ids = Ids::restore(&tables);
    assert_eq!(ids.backends.taken, [2, u32::MAX - RESTART_GAP].map(BackendId::from).into());
    assert_eq!(ids.services.taken, [1, 3].map(ServiceId::from).into());
    assert_eq!(backend_of(&mut ids, 1, pod(1), 80), 1, "wrapped");
    assert_eq!(backend_of(&mut ids, 1, pod(2), 80), 3);
    assert_ne!(service(&mut ids, "http"), 0);
}

#[test]
fn equal_hashes_are_not_equal_content() {
    use lbr_common::policy::class;
    use lbr_common::text::{ClassRecord, Member, MemberKey};

    let mut ids = PolicyIds::default();
    let first = ids.class(vec![1], 5);
    let (second, again) = (ids.class(vec![2], 5), ids.class(vec![1], 5));
    assert_eq!((first, second, again), (class::FIRST, class::FIRST.next(), class::FIRST));

    let mut tables = Desired::default();
    for id in [0, 1, 7, 9, u32::MAX] {
        tables.classes.insert(id.into(), ClassRecord { hash: 5, ..ClassRecord::default() });
    }
    for (number, hash) in [(0, 6), (1, 8)] {
        tables.set_members.insert(MemberKey { set: 4.into(), number }, Member { hash, ..Member::default() });
    }
    let mut ids = PolicyIds::restore(&tables);
    assert_eq!(ids.class(vec![1], 5).id, 7, "the first number that is one");
    assert_eq!(ids.class(vec![1], 5).id, 7, "and it stays");
    assert!(ids.class(vec![2], 5).id > 9 + RESTART_GAP);
    assert!(ids.set(vec![1], 6).id > 4 + RESTART_GAP, "made of what two sets left");
}

/// A number that only one of the maps still has.
const LEFT: u32 = 9;

#[test]
fn numbers_of_services_that_any_map_shows_are_not_used_again() {
    let frontend = Frontend { service: LEFT.into(), ..Frontend::default() };
    for (map, tables) in [
        ("frontends", Desired { frontends: [(key(1, 80), frontend)].into(), ..Desired::default() }),
        ("services", Desired { services: [(LEFT.into(), Default::default())].into(), ..Desired::default() }),
    ] {
        assert_eq!(service(&mut Ids::restore(&tables), "http"), LEFT + RESTART_GAP + 1, "{map}");
    }
}

#[test]
fn numbers_of_policy_that_any_map_shows_are_not_used_again() {
    use lbr_common::policy::{Allow, Block, Policy, Ports, Prefix, VerdictKey};
    use lbr_common::text::{ClassRecord, Member, MemberKey, PolicyRecord, RuleKey, RuleText, Text};

    use crate::desired::EndpointPolicy;

    let fresh = LEFT + RESTART_GAP + 1;
    let name = || ObjectName::new("a", "new");
    let policy = |tables: &Desired| PolicyIds::restore(tables).policy(&name()).id;
    let set = |tables: &Desired| PolicyIds::restore(tables).set(vec![1], 1).id;
    let class = |tables: &Desired| PolicyIds::restore(tables).class(vec![1], 1).id;
    let made = |change: &dyn Fn(&mut Desired)| {
        let mut tables = Desired::default();
        change(&mut tables);
        tables
    };
    let allow = |policy: u32| Allow { policy: policy.into(), rule: 0 };
    let verdict = |key: VerdictKey, policy| made(&|d| _ = d.verdicts.insert(key, allow(policy)));
    let member = made(&|d| {
        let member = Member { policy: LEFT.into(), ..Member::default() };
        d.set_members.insert(MemberKey { set: LEFT.into(), number: 0 }, member);
    });
    let ports = Prefix { data: Ports { set: LEFT.into(), ..Ports::default() }, len: 0 };
    let endpoint = |policy| made(&|d| _ = d.endpoints.insert(pod(1), EndpointPolicy { ifindex: 0, policy }));

    let rule = RuleKey { policy: LEFT.into(), direction: 0, rule: 0 };
    assert_eq!(policy(&made(&|d| _ = d.policies.insert(LEFT.into(), PolicyRecord::default()))), fresh);
    assert_eq!(policy(&made(&|d| _ = d.rules.insert(rule, RuleText::default()))), fresh);
    assert_eq!(policy(&verdict(VerdictKey::default(), LEFT)), fresh);
    assert_eq!(policy(&member), fresh);
    let record =
        PolicyRecord { namespace: Text::new("a"), name: Text::new("new"), ..PolicyRecord::default() };
    assert_eq!(policy(&made(&|d| _ = d.policies.insert(0.into(), record))), 1, "0 is no number");

    assert_eq!(set(&verdict(VerdictKey { set: LEFT.into(), ..VerdictKey::default() }, 0)), fresh);
    assert_eq!(set(&made(&|d| _ = d.port_class.insert(ports, 1.into()))), fresh);
    assert_eq!(set(&member), fresh);
    assert_eq!(set(&endpoint(Policy { set: LEFT.into(), ..Policy::default() })), fresh);
    assert_eq!(set(&endpoint(Policy { audit: LEFT.into(), ..Policy::default() })), fresh);

    assert_eq!(class(&verdict(VerdictKey { class: LEFT.into(), ..VerdictKey::default() }, 0)), fresh);
    assert_eq!(class(&made(&|d| _ = d.ip_class.insert(pod(1), LEFT.into()))), fresh);
    let block = Prefix { data: Block::default(), len: 0 };
    assert_eq!(class(&made(&|d| _ = d.cidr_class.insert(block, LEFT.into()))), fresh);
    assert_eq!(class(&made(&|d| _ = d.classes.insert(LEFT.into(), ClassRecord::default()))), fresh);
}

#[test]
fn numbers_of_policy_are_given_up_after_disuse() {
    let mut ids = Ids::new();
    let name = ObjectName::new("a", "p");
    let all = |ids: &mut Ids| {
        let ids = ids.policy();
        let parts = [ids.body(&[1]), ids.term(&[1])];
        [&parts[..], &[ids.policy(&name).id, ids.set(vec![1], 1).id, ids.class(vec![1], 1).id]].concat()
    };
    let before = all(&mut ids);
    ids.forget_unused();
    assert_eq!(all(&mut ids), before);
    ids.forget_unused();
    ids.forget_unused();
    let after = all(&mut ids);
    assert!(
        before.iter().zip(after.clone()).all(|(&before, after)| after == before + 1),
        "{before:?} {after:?}"
    );
}
