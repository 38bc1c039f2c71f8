//! Policy in maps that are too small, that fail, or that are not to be touched yet.

use lbr_common::addr::Addr;
use lbr_common::id::ClassId;
use lbr_common::policy::{Allow, Block, Policy, Ports, Prefix, VerdictKey, class, policy_flags};
use lbr_common::text::{Member, MemberKey, PodName, PolicyRecord, Text};

use crate::dataplane::fake::Fake;
use crate::desired::{Desired, EndpointPolicy};
use crate::reconcile::Reconciler;
use crate::table::Outcome;

const ISOLATED: u32 = policy_flags::POD | policy_flags::ISOLATED_IN;

fn pod(last: u8) -> Addr {
    Addr::v4([10, 244, 0, last])
}

fn with_set(set: u32) -> EndpointPolicy {
    EndpointPolicy { ifindex: 5, policy: Policy { set: set.into(), flags: ISOLATED, ..Policy::default() } }
}

/// Pods, each with a set of its own: (last byte of its address, set, entries of the set in both maps).
fn tables(pods: &[(u8, u32, u32)]) -> Desired {
    let mut tables = Desired::default();
    for &(last, set, size) in pods {
        tables.endpoints.insert(pod(last), with_set(set));
        let (name, policy, set) = (format!("p{set}"), set.into(), set.into());
        for n in 0..size {
            let key = VerdictKey { set, class: n.into(), ..VerdictKey::default() };
            tables.verdicts.insert(key, Allow::default());
            let port = (n as u16).to_be_bytes();
            tables
                .port_class
                .insert(Prefix { data: Ports { set, port, ..Ports::default() }, len: Ports::FULL }, n.into());
        }
        tables.set_members.insert(MemberKey { set, number: 0 }, Member { policy, ..Member::default() });
        let record =
            PolicyRecord { namespace: Text::new("ns"), name: Text::new(&name), ..Default::default() };
        tables.policies.insert(policy, record);
    }
    tables
}

fn start(fake: &mut Fake, tables: &Desired) -> Reconciler {
    let mut reconciler = Reconciler::load(fake).unwrap();
    assert!(reconciler.apply(tables.clone(), true, fake).is_converged());
    reconciler
}

/// Map and place of each.
fn problems(outcome: &Outcome) -> Vec<[String; 2]> {
    outcome.problems.iter().map(|p| [p.map.to_owned(), p.place()]).collect()
}

#[test]
fn a_set_without_room_keeps_the_last_one_or_closes() {
    for map in ["verdicts", "port_class"] {
        let mut fake = Fake::new(0).with_faults(0);
        let before = tables(&[(1, 1, 3), (2, 2, 3)]);
        let mut reconciler = start(&mut fake, &before);
        fake.set_max_entries(map, 8);
        // Pod 1 gets another set, pod 2 stays as it is, pod 3 is isolated for the first time, pod 4 has a small one.
        let after = tables(&[(1, 11, 5), (2, 2, 3), (3, 13, 5), (4, 14, 2)]);
        let outcome = reconciler.apply(after.clone(), true, &mut fake);
        assert_eq!(problems(&outcome), [[map, "NetworkPolicy ns/p11"], [map, "NetworkPolicy ns/p13"]]);
        assert!(outcome.pending > 0, "{map}");
        let seen = fake.in_force();
        let sets: Vec<_> = seen.endpoints.values().map(|e| (e.policy.set.id, e.policy.flags)).collect();
        assert_eq!(sets, [(1, ISOLATED), (2, ISOLATED), (0, ISOLATED), (14, ISOLATED)], "{map}");
        let entries = |set: u32| seen.verdicts.keys().filter(|key| key.set.id == set).count();
        assert_eq!([1, 2, 11, 13, 14].map(entries), [3, 3, 0, 0, 2], "{map}");
        let generation = fake.generation();
        reconciler.apply(after.clone(), true, &mut fake);
        assert_eq!(fake.generation(), generation, "trying again changes nothing");

        fake.set_max_entries(map, 100);
        assert!(reconciler.apply(after.clone(), true, &mut fake).is_converged(), "{map}");
        assert_eq!(fake.in_force(), after, "{map}");
    }
}

#[test]
fn an_address_without_room_has_no_class_and_holds_nothing_up() {
    let mut fake = Fake::new(0).with_faults(0);
    let mut before = tables(&[(1, 1, 1)]);
    before.ip_class.insert(pod(8), 2.into());
    let mut reconciler = start(&mut fake, &before);
    fake.set_max_entries("ip_class", 1);
    let mut after = tables(&[(1, 2, 1)]);
    after.ip_class = [(pod(8), 3.into()), (pod(9), 3.into())].into();
    let outcome = reconciler.apply(after.clone(), true, &mut fake);
    assert_eq!(problems(&outcome), [["ip_class", "10.244.0.9"]]);
    let seen = fake.in_force();
    assert_eq!(seen.ip_class, [(pod(8), 3.into())].into());
    assert_eq!(seen.endpoints, after.endpoints);
    let generation = fake.generation();
    reconciler.apply(after.clone(), true, &mut fake);
    assert_eq!(fake.generation(), generation, "trying again changes nothing");
    fake.set_max_entries("ip_class", 2);
    assert!(reconciler.apply(after.clone(), true, &mut fake).is_converged());
    assert_eq!(fake.in_force(), after);
}

#[test]
fn blocks_change_all_together_or_not_at_all() {
    let block = |len: u32| Prefix { data: Block { family: 6, addr: [0; 16] }, len: Block::FAMILY_BITS + len };
    let mut fake = Fake::new(0).with_faults(0);
    let before =
        Desired { cidr_class: [(block(8), 2.into()), (block(12), 3.into())].into(), ..Desired::default() };
    let mut reconciler = start(&mut fake, &before);
    fake.set_max_entries("cidr_class", 3);
    let blocks = [(8, 4), (12, 3), (16, 5), (24, 6)].map(|(len, id)| (block(len), ClassId { id }));
    let wanted = Desired { cidr_class: blocks.into(), ..Desired::default() };
    let outcome = reconciler.apply(wanted.clone(), true, &mut fake);
    assert_eq!(problems(&outcome), [["cidr_class", "ipBlock ::/16 and 1 more"]]);
    assert!(!outcome.is_converged());
    assert_eq!(fake.in_force().cidr_class, before.cidr_class);
    fake.set_max_entries("cidr_class", 4);
    assert!(reconciler.retry(true, &mut fake).is_converged());
    assert_eq!(fake.in_force(), wanted);
}

#[test]
fn isolated_pods_come_first_where_addresses_lack_room() {
    let mut fake = Fake::new(0).with_faults(0);
    let with_flags = |flags| EndpointPolicy { ifindex: 5, policy: Policy { flags, ..Policy::default() } };
    let pending = with_flags(policy_flags::PENDING);
    let before = Desired { endpoints: [(pod(8), pending), (pod(9), pending)].into(), ..Desired::default() };
    let mut reconciler = start(&mut fake, &before);
    fake.set_max_entries("endpoints", 3);
    let mut wanted = tables(&[(7, 1, 1)]);
    wanted.endpoints.extend(before.endpoints.clone());
    wanted.endpoints.insert(pod(1), with_flags(policy_flags::POD));
    let outcome = reconciler.apply(wanted.clone(), true, &mut fake);
    assert_eq!(problems(&outcome), [["endpoints", "10.244.0.1"]]);
    assert_eq!(fake.in_force().endpoints.keys().copied().collect::<Vec<_>>(), [pod(7), pod(9)]);
    // What was not known has made room.
    let outcome = reconciler.retry(true, &mut fake);
    assert_eq!(problems(&outcome), [["endpoints", "10.244.0.8"]]);
    assert_eq!(fake.in_force().endpoints.keys().copied().collect::<Vec<_>>(), [pod(1), pod(7), pod(9)]);
    fake.set_max_entries("endpoints", 4);
    assert!(reconciler.retry(true, &mut fake).is_converged());
    assert_eq!(fake.in_force(), wanted);
}

#[test]
fn a_pod_that_got_the_address_of_another_does_not_get_its_set() {
    let mut fake = Fake::new(0).with_faults(0);
    let name = |name: &str| PodName { namespace: Text::new("ns"), name: Text::new(name) };
    let mut before = tables(&[(1, 1, 3)]);
    before.pod_names.insert(pod(1), name("old"));
    let mut reconciler = start(&mut fake, &before);
    fake.set_max_entries("verdicts", 4);
    let mut after = tables(&[(1, 2, 3)]);
    after.pod_names.insert(pod(1), name("new"));
    for _ in 0..3 {
        reconciler.apply(after.clone(), true, &mut fake);
        assert_eq!(fake.in_force().endpoints[&pod(1)], with_set(0));
        fake.set_max_entries("verdicts", 2);
    }
    fake.set_max_entries("verdicts", 3);
    assert!(reconciler.retry(true, &mut fake).is_converged());
    assert_eq!(fake.in_force(), after);
}

#[test]
fn before_everything_is_listed_policy_stays_as_it_is() {
    let mut fake = Fake::new(0).with_faults(0);
    let before = tables(&[(1, 1, 2)]);
    start(&mut fake, &before);
    let generation = fake.generation();
    // The agent starts again, and has seen one pod so far.
    let mut reconciler = Reconciler::load(&mut fake).unwrap();
    reconciler.apply(tables(&[(2, 9, 1)]), false, &mut fake);
    assert_eq!((fake.in_force(), fake.generation()), (before, generation));
    let after = tables(&[(2, 9, 1)]);
    assert!(reconciler.apply(after.clone(), true, &mut fake).is_converged());
    assert_eq!(fake.in_force(), after);
}

/// Wherever an agent ends, the next one brings what it wants into force and nothing else.
#[test]
fn what_a_dead_agent_had_prepared_comes_into_force_only_if_it_is_wanted() {
    for seed in 0..50 {
        let mut fake = Fake::new(seed).with_faults(0);
        let before = tables(&[(1, 1, 1), (2, 2, 1)]);
        let mut reconciler = start(&mut fake, &before);
        fake.set_faults(20);
        // One round, which ends at the first write that fails.
        let half = tables(&[(1, 3, 1), (2, 2, 1)]);
        reconciler.apply(half.clone(), true, &mut fake);
        fake.set_faults(0);
        let mut another = Reconciler::load(&mut fake).unwrap();
        let seen = fake.in_force().endpoints;
        assert!(seen == before.endpoints || seen == half.endpoints, "seed {seed}");
        let wanted = tables(&[(1, 1, 1), (2, 4, 1)]);
        assert!(another.apply(wanted.clone(), true, &mut fake).is_converged(), "seed {seed}");
        assert_eq!(fake.in_force(), wanted, "seed {seed}");
    }
}

#[test]
fn nothing_is_left_when_nothing_is_wanted() {
    let mut fake = Fake::new(3).with_faults(20);
    let mut reconciler = Reconciler::load(&mut fake).unwrap();
    for wanted in [tables(&[(1, 1, 3), (2, 2, 2)]), Desired::default()] {
        while !reconciler.apply(wanted.clone(), true, &mut fake).is_converged() {}
        assert_eq!(fake.in_force(), wanted);
    }
}

/// An agent that ends between the generation and the removals leaves entries whose value in force is that of an absent one.
/// The next agent must not take it for a number.
#[test]
fn an_entry_that_says_nothing_is_not_actual() {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_tables(Desired {
        endpoints: [(pod(1), EndpointPolicy::default())].into(),
        link_policy: [(5, 0)].into(),
        ip_class: [(pod(1), class::ABSENT)].into(),
        ..Desired::default()
    });
    assert_eq!(Reconciler::load(&mut fake).unwrap().actual(), Desired::default());
}
