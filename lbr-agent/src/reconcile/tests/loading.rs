//! Programs that are not loaded yet: what is written before.

use super::*;

/// A service, and these links.
fn with_links(links: &[u32], uplinks: &[u32]) -> Desired {
    let mut desired = services(&[(1, &[1])]);
    desired.links = links.iter().map(|&link| (link, Link::default())).collect();
    desired.uplinks = uplinks.iter().map(|&link| (link, Uplink::default())).collect();
    desired
}

#[test]
fn without_a_former_agent_everything_but_links_is_written_while_programs_load() {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_loading(false);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let desired = with_links(&[5], &[2]);
    let outcome = r.apply(desired.clone(), true, &mut fake);
    assert!(!outcome.is_converged() && outcome.problems.is_empty() && !outcome.waits_for_programs);
    assert_eq!(fake.in_force(), services(&[(1, &[1])]));
    r.plug(&desired.links, &mut fake);
    assert!(fake.attached().is_empty());

    fake.attach_programs().unwrap();
    converge(&mut r, &mut fake, &desired);
    assert_eq!(fake.attached(), [5].into());
}

#[test]
fn a_former_agents_programs_serve_while_programs_load() {
    let mut fake = Fake::new(0).with_faults(0);
    fake.set_tables(Desired { frontends: Default::default(), ..with_links(&[5], &[2]) });
    fake.set_loading(false);
    let mut r = Reconciler::load(&mut fake).unwrap();
    let desired = with_links(&[5], &[2]);
    let outcome = r.apply(desired.clone(), true, &mut fake);
    assert!(!outcome.waits_for_programs && outcome.problems.is_empty());
    assert_eq!(fake.in_force(), desired);
    assert!(!outcome.is_converged(), "the links need the new programs");

    // A link that is gone holds nothing up.
    let outcome = r.apply(with_links(&[], &[2]), true, &mut fake);
    assert!(!outcome.waits_for_programs);
    fake.attach_programs().unwrap();
    converge(&mut r, &mut fake, &desired);
}

#[test]
fn beside_a_former_agents_links_a_new_one_waits_with_everything_for_its_programs() {
    for (links, uplinks) in [(&[5, 6][..], &[2][..]), (&[5], &[2, 3])] {
        let mut fake = Fake::new(0).with_faults(0);
        let former = Desired { links: with_links(&[5], &[]).links, ..Desired::default() };
        let former = Desired { uplinks: with_links(&[], &[2]).uplinks, ..former };
        fake.set_tables(former.clone());
        fake.set_loading(false);
        let mut r = Reconciler::load(&mut fake).unwrap();
        let desired = with_links(links, uplinks);
        let outcome = r.apply(desired.clone(), true, &mut fake);
        assert!(outcome.waits_for_programs && outcome.pending > 0 && outcome.problems.is_empty());
        assert_eq!(fake.in_force(), former);
        fake.attach_programs().unwrap();
        converge(&mut r, &mut fake, &desired);
    }
}
