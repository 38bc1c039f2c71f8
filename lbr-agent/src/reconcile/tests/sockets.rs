//! Sockets that are connected to a removed backend: when they are looked for.

use lbr_common::service::FrontendKey;

use super::*;

/// The same services for UDP.
fn for_datagrams(mut desired: Desired) -> Desired {
    let frontends = std::mem::take(&mut desired.frontends).into_iter();
    desired.frontends = frontends.map(|(key, f)| (FrontendKey { proto: proto::UDP, ..key }, f)).collect();
    desired.backends.values_mut().for_each(|backend| backend.proto = proto::UDP);
    desired
}

#[test]
fn a_removed_backend_for_udp_is_looked_for_and_nothing_else() {
    let mut fake = Fake::new(0).with_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let mut looks = |step: &str, desired: Desired| {
        let before = fake.looks_at_sockets();
        assert!(r.apply(desired, true, &mut fake).is_converged(), "{step}");
        fake.looks_at_sockets() - before
    };
    let udp = |endpoints: &[u8]| for_datagrams(services(&[(1, endpoints)]));
    assert_eq!(looks("a former agent may have ended in between", udp(&[1])), 1);
    assert_eq!(looks("nothing changed", udp(&[1])), 0);
    assert_eq!(looks("one more", udp(&[1, 2])), 0);
    let mut draining = udp(&[1, 2]);
    draining.backends.get_mut(&101.into()).unwrap().flags = 1;
    assert_eq!(looks("another flag", draining), 0);
    assert_eq!(looks("one less", udp(&[2])), 1);
    let mut replaced = udp(&[2]);
    replaced.backends.get_mut(&102.into()).unwrap().addr = Addr::v4([10, 244, 0, 9]);
    assert_eq!(looks("the same id with another address", replaced), 1);
    assert_eq!(looks("all", Desired::default()), 1);
    assert_eq!(looks("TCP", services(&[(1, &[1, 2])])), 0);
    assert_eq!(looks("TCP, one less", services(&[(1, &[2])])), 0);
}

#[test]
fn nothing_is_looked_for_before_the_sources_have_listed_everything() {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_tables(for_datagrams(services(&[(1, &[1])])));
    let mut r = Reconciler::load(&mut fake).unwrap();
    r.apply(Desired::default(), false, &mut fake);
    assert_eq!(fake.looks_at_sockets(), 0);
    r.retry(true, &mut fake);
    assert_eq!(fake.looks_at_sockets(), 1);
}

#[test]
fn a_failure_is_told_holds_nothing_up_and_is_tried_again() {
    let mut fake = Fake::new(0).with_faults(0);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let (two, one) = (for_datagrams(services(&[(1, &[1, 2])])), for_datagrams(services(&[(1, &[1])])));
    r.apply(two, true, &mut fake);
    fake.set_aborts(false);
    let outcome = r.apply(one.clone(), true, &mut fake);
    assert!(outcome.is_converged() && outcome.problems.is_empty(), "{outcome:?}");
    assert!(outcome.abort_failed.is_some());
    assert_eq!(fake.in_force(), one);
    fake.set_aborts(true);
    let before = fake.looks_at_sockets();
    assert!(r.apply(one.clone(), true, &mut fake).abort_failed.is_none());
    r.apply(one, true, &mut fake);
    assert_eq!(fake.looks_at_sockets(), before + 1);
}
