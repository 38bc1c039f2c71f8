//! Each way to reuse a number is found.

use lbr_agent::desired::EndpointPolicy;
use lbr_common::addr::Addr;
use lbr_common::policy::{Policy, Prefix};
use lbr_common::text::{Member, MemberKey};

use super::*;

const POD: Addr = Addr::v4([10, 0, 0, 1]);
const SET: PolicySetId = PolicySetId { id: 5 };
const PEER: Addr = Addr::v4([10, 0, 0, 2]);

/// Set 5 allows class 7 and TCP 80 (port class 1).
fn tables() -> Desired {
    let mut tables = Desired::default();
    let policy = Policy { set: SET, ..Policy::default() };
    tables.endpoints.insert(POD, EndpointPolicy { ifindex: 0, policy });
    tables.ip_class.insert(PEER, 7.into());
    tables.port_class.insert(port(80), 1.into());
    tables.verdicts.insert(key(7, 1), allow(1, 0));
    tables
}

fn port(port: u16) -> Prefix<Ports> {
    let data = Ports { set: SET, direction: 0, proto: proto::TCP, port: port.to_be_bytes() };
    Prefix { data, len: Ports::FULL }
}

fn key(class: u32, ports: u32) -> VerdictKey {
    VerdictKey { set: SET, direction: direction::INGRESS, class: class.into(), ports: ports.into() }
}

fn allow(policy: u32, rule: u32) -> Allow {
    Allow { policy: policy.into(), rule }
}

fn after<T>(change: impl Fn(&mut Desired) -> T) -> Option<String> {
    let mut after = tables();
    change(&mut after);
    unsafe_change(&tables(), &after)
}

#[test]
fn new_numbers_are_safe() {
    assert_eq!(after(|_| {}), None);
    assert_eq!(after(|t| *t = Desired::default()), None);
    let another_class = |t: &mut Desired| {
        t.ip_class.insert(PEER, 8.into());
        t.verdicts.insert(key(8, 1), allow(2, 0));
    };
    assert_eq!(after(another_class), None);
}

#[test]
fn another_rule_under_the_same_key_is_found() {
    assert!(after(|t| t.verdicts.insert(key(7, 1), allow(1, 1))).is_some());
    assert!(after(|t| t.port_class.insert(port(80), 2.into())).is_some());
}

#[test]
fn more_and_less_in_the_same_set_is_found() {
    for class in [7, class::ANY.id, class::NONE.id] {
        assert!(after(|t| t.verdicts.insert(key(class, OTHER_PORTS.id), allow(1, 0))).is_some(), "{class}");
    }
    assert!(after(|t| t.verdicts.clear()).is_some());
    assert!(after(|t| t.port_class.insert(port(81), 1.into())).is_some());
    assert!(after(|t| t.port_class.clear()).is_some());
}

#[test]
fn a_number_with_another_hash_is_found() {
    let mut numbers = Numbers::default();
    let with_hash = |hash| {
        let mut tables = tables();
        let member = Member { hash, ..Member::default() };
        tables.set_members.insert(MemberKey { set: SET, number: 0 }, member);
        tables
    };
    assert_eq!(numbers.reused(&with_hash(1)), None);
    assert_eq!(numbers.reused(&Desired::default()), None);
    assert_eq!(numbers.reused(&with_hash(1)), None);
    assert!(numbers.reused(&with_hash(2)).is_some());
}
