use lbr_common::addr::Addr;

use super::*;

/// Backends 10.0.0.1 and following; ids count from `first`.
fn targets(numbers: impl Iterator<Item = u8>, first: u32) -> Vec<(Target, BackendId)> {
    let target = |n| ((Addr::v4([10, 0, 0, n]), 8080), BackendId { id: first + u32::from(n) });
    numbers.map(target).collect()
}

fn counts(slots: &[BackendId]) -> BTreeMap<BackendId, u32> {
    let mut counts = BTreeMap::new();
    slots.iter().for_each(|id| *counts.entry(*id).or_insert(0) += 1);
    counts
}

#[test]
fn every_slot_is_filled_and_all_have_the_same_share() {
    for n in [1u8, 2, 3, 10, 100] {
        for salt in [1, 2] {
            let slots = slots(salt, &targets(1..=n, 0));
            assert_eq!(slots.len(), maglev::SLOTS as usize);
            let counts = counts(&slots);
            assert_eq!(counts.len(), usize::from(n));
            let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            assert!(*least > 0 && most - least <= 1, "{n} backends: {least} to {most} slots");
        }
    }
}

#[test]
fn few_other_slots_move_when_a_backend_goes() {
    for n in [10u8, 100] {
        for gone in [1, n / 2, n] {
            let before = slots(7, &targets(1..=n, 0));
            let after = slots(7, &targets((1..=n).filter(|i| *i != gone), 0));
            let others: Vec<_> =
                before.iter().zip(&after).filter(|(old, _)| old.id != u32::from(gone)).collect();
            let moved = others.iter().filter(|(old, new)| old != new).count();
            let percent = 100.0 * moved as f64 / others.len() as f64;
            println!(
                "1 of {n} removed ({gone}): {moved} of {} other slots moved, {percent:.2} %",
                others.len()
            );
            assert!(percent <= 1.0, "1 of {n} removed: {percent:.2} % of the other slots moved");
        }
    }
}

#[test]
fn ids_make_no_difference() {
    let here = slots(7, &targets(1..=20, 0));
    let there = slots(7, &targets(1..=20, 1_000));
    assert!(here.iter().zip(&there).all(|(a, b)| a.id + 1_000 == b.id));
    assert_ne!(here, slots(8, &targets(1..=20, 0)), "Services have tables of their own");
}

#[test]
fn without_backends_there_is_nothing() {
    assert!(slots(7, &[]).iter().all(|id| id.is_none()));
}
