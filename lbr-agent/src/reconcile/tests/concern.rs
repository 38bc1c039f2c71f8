//! Which flows each change concerns.

use lbr_common::epoch::Place;
use lbr_common::id::ClassId;
use lbr_common::policy::{Block, Prefix, policy_flags};
use lbr_common::service::{SourceRange, frontend_flags};

use super::*;
use crate::dataplane::Concerned;

const NODE: Addr = Addr::v4([192, 0, 2, 1]);
const OUTSIDE: Addr = Addr::v4([203, 0, 113, 9]);

fn pod(last: u8) -> Addr {
    Addr::v4([10, 244, 0, last])
}

fn at_node(port: u16) -> FrontendKey {
    FrontendKey { addr: NODE, port, ..key(1) }
}

fn whole(addr: Addr) -> FrontendKey {
    FrontendKey { addr, ..FrontendKey::default() }
}

fn isolated(set: u32) -> EndpointPolicy {
    let flags = policy_flags::POD | policy_flags::ISOLATED_IN;
    EndpointPolicy { ifindex: 5, policy: Policy { set: set.into(), flags, ..Policy::default() } }
}

fn block(len: u32) -> Prefix<Block> {
    let mut data = Block::of(&OUTSIDE);
    data.addr[14..].fill(0);
    Prefix { data, len: Block::FAMILY_BITS + 96 + len }
}

fn range(service: u32) -> Prefix<SourceRange> {
    let data = SourceRange { service: service.into(), client: OUTSIDE.bytes };
    Prefix { data, len: SourceRange::FULL }
}

/// Two Services with two backends, at ClusterIPs and at ports of the node; a pod, a link, an uplink.
fn cluster() -> Desired {
    let mut desired = services(&[(1, &[1, 2]), (2, &[1, 2])]);
    let wildcard = |flags| Frontend { flags: frontend_flags::WILDCARD | flags, ..Frontend::default() };
    for n in [1, 2] {
        desired.frontends.insert(whole(key(n).addr), wildcard(0));
        let service = ServiceId::from(u32::from(n));
        let frontend = Frontend { service, count: 2, ..Frontend::default() };
        desired.frontends.insert(at_node(30_000 + u16::from(n)), frontend);
    }
    let host = frontend_flags::HOST | frontend_flags::PASS_UNMATCHED;
    desired.frontends.insert(whole(NODE), wildcard(host));
    desired.source_ranges.insert(range(2), 0);
    desired.endpoints.insert(pod(1), isolated(1));
    desired.link_policy.insert(5, policy_flags::POD);
    desired.ip_class.insert(pod(7), ClassId { id: 2 });
    desired.cidr_class.insert(block(24), ClassId { id: 3 });
    desired.links = [(5, Link::default()), (6, Link::default())].into();
    desired.uplinks = [(2, Uplink::default())].into();
    desired
}

/// The flows that a change concerns, which is made under faults.
fn concerned(change: impl FnOnce(&mut Desired)) -> Vec<Concerned> {
    let mut fake = Fake::new(7).with_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let mut desired = cluster();
    converge(&mut r, &mut fake, &desired);
    assert!(fake.take_concerned().iter().any(|flows| *flows == Concerned::all()), "an agent's start");
    converge(&mut r, &mut fake, &desired);
    assert_eq!(fake.take_concerned(), [], "nothing has changed");
    change(&mut desired);
    fake.set_faults(30);
    converge(&mut r, &mut fake, &desired);
    fake.take_concerned()
}

#[test]
fn a_change_concerns_what_it_is_about() {
    type Change = fn(&mut Desired);
    let (first, second) = (Place::service(1.into()), Place::service(2.into()));
    let changes: [(&str, Change, Vec<Place>, Vec<Place>); 14] = [
        (
            "a backend goes",
            |d| {
                add(d, 1, &[1]);
                d.backends.remove(&102.into());
                d.slots.remove(&SlotKey { service: 1.into(), slot: 1, ..SlotKey::default() });
                d.frontends.get_mut(&at_node(30_001)).unwrap().count = 1;
            },
            vec![first],
            vec![second, Place::address(&pod(2)), Place::address(&NODE), Place::address(&key(1).addr)],
        ),
        (
            "a backend changes",
            |d| d.backends.get_mut(&201.into()).unwrap().ifindex = 9,
            vec![second],
            vec![first],
        ),
        ("a range comes", |d| _ = d.source_ranges.insert(range(1), 0), vec![first], vec![second]),
        ("a range goes", |d| _ = d.source_ranges.remove(&range(2)), vec![second], vec![first]),
        (
            "a port of the node goes",
            |d| _ = d.frontends.remove(&at_node(30_002)),
            vec![second, Place::port(&NODE, 30_002)],
            vec![first, Place::address(&NODE), Place::port(&NODE, 30_001)],
        ),
        (
            "a frontend's Service changes",
            |d| d.frontends.get_mut(&at_node(30_002)).unwrap().service = 1.into(),
            vec![first, second, Place::port(&NODE, 30_002)],
            vec![Place::address(&NODE)],
        ),
        (
            "an address becomes a Service's",
            |d| {
                let frontend = Frontend { service: 1.into(), count: 2, ..Frontend::default() };
                d.frontends.insert(FrontendKey { addr: OUTSIDE, ..key(1) }, frontend);
            },
            vec![first, Place::address(&OUTSIDE)],
            vec![second],
        ),
        (
            "the node's address as a whole changes",
            |d| d.frontends.get_mut(&whole(NODE)).unwrap().flags &= !frontend_flags::PASS_UNMATCHED,
            vec![first, second, Place::address(&NODE)],
            vec![Place::address(&pod(1))],
        ),
        (
            "a pod's set",
            |d| _ = d.endpoints.insert(pod(1), isolated(2)),
            vec![Place::address(&pod(1))],
            vec![first],
        ),
        (
            "a pod goes",
            |d| _ = d.endpoints.remove(&pod(1)),
            vec![Place::address(&pod(1))],
            vec![Place::link(5)],
        ),
        (
            "a peer's class",
            |d| _ = d.ip_class.insert(pod(7), ClassId { id: 4 }),
            vec![Place::address(&pod(7))],
            vec![Place::address(&pod(1))],
        ),
        (
            "the policy of a link",
            |d| _ = d.link_policy.remove(&5),
            vec![Place::link(5)],
            vec![Place::link(6)],
        ),
        ("a link goes", |d| _ = d.links.remove(&6), vec![Place::link(6)], vec![Place::link(5), first]),
        (
            "an uplink changes",
            |d| d.uplinks.get_mut(&2).unwrap().v4 = NODE,
            vec![Place::link(2)],
            vec![first],
        ),
    ];
    for (what, change, concerns, leaves) in changes {
        let flows = concerned(change);
        let is_concerned = |place: Place| flows.iter().any(|flows| flows.has(place));
        for place in concerns {
            assert!(is_concerned(place), "{what}: {place:?} is not among {flows:?}");
        }
        for place in leaves.into_iter().chain([Place::address(&Addr::v4([198, 51, 100, 77]))]) {
            assert!(!is_concerned(place), "{what}: {place:?} is among {flows:?}");
        }
    }
}

/// What the programs ask about sources only.
#[test]
fn blocks_of_services_concern_every_flow() {
    let flows = concerned(|d| _ = d.service_cidrs.insert(block(16), 0));
    assert!(flows.contains(&Concerned::all()), "{flows:?}");
}

/// A block that gets another class concerns flows by the sets that ask about it; but not while the sets that are in force are
/// others than desired.
#[test]
fn blocks_of_policies_concern_every_flow_while_room_is_missing() {
    let change = |d: &mut Desired| _ = d.cidr_class.insert(block(24), ClassId { id: 9 });
    assert!(concerned(change).iter().all(|flows| !flows.has(Place::address(&OUTSIDE))));
    let mut fake = Fake::new(7).with_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let mut desired = cluster();
    converge(&mut r, &mut fake, &desired);
    fake.set_max_entries(lbr_common::maps::IP_CLASS.name, 1);
    desired.ip_class.insert(pod(8), ClassId { id: 2 });
    assert!(!r.apply(desired.clone(), true, &mut fake).is_converged());
    fake.take_concerned();
    change(&mut desired);
    r.apply(desired.clone(), true, &mut fake);
    assert!(fake.take_concerned().contains(&Concerned::all()));
}
