//! Random clusters, each with many connections.

use std::collections::BTreeMap;

use lbr_agent::source::manifest::parse;
use lbr_common::tuple::Tuple;
use lbr_tests::oracle::{Answer, Case, Mismatch, check, shrink::shrink};

use crate::parallel::{first_seed, for_seeds, no_panic, setting};

const SETS: u64 = 100_000;
const TUPLES: usize = 100;

#[test]
fn every_verdict_is_that_of_the_specification() {
    for_seeds(setting("LBR_ORACLE_SETS", SETS), |seed| {
        let case = Case::random(seed);
        let found = compare(&case, &case.tuples(seed, TUPLES)).err()?;
        let tuples: Vec<_> = found.tuple.into_iter().collect();
        let tuples = if tuples.is_empty() { case.tuples(seed, TUPLES) } else { tuples };
        let small = shrink(&case, |case| compare(case, &tuples).is_err());
        let what = compare(&small, &tuples).err().unwrap_or(found).what;
        Some(format!("{what}\n{}", small.yaml()))
    });
}

fn compare(case: &Case, tuples: &[Tuple]) -> Result<(), Mismatch> {
    no_panic(|| {
        let tables = case.tables().map_err(|e| Mismatch { tuple: None, what: format!("{e:#}") })?;
        check(case, &tables, tuples)
    })
}

/// The comparison skips the reader of files, which is slow.
#[test]
fn files_are_read_as_the_objects_in_them() {
    for_seeds(500, |seed| {
        let case = Case::random(seed);
        let text = case.yaml();
        let parsed = parse("case.yaml", &text);
        let mut read: Vec<_> = parsed.objects.into_iter().map(|o| o.object).collect();
        read.extend(parsed.held.into_iter().filter_map(|held| held.partial?.over(None)));
        let mut converted = case.converted().unwrap();
        read.sort_by_key(|object| object.reference());
        converted.sort_by_key(|object| object.reference());
        (read != converted).then(|| format!("{:?}\n{text}", parsed.rejected))
    });
}

/// Cases without variety would agree with anything.
#[test]
fn every_answer_occurs_often() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut different_when_audited = 0;
    for seed in first_seed()..first_seed() + 1000 {
        let case = Case::random(seed);
        for tuple in case.tuples(seed, TUPLES) {
            let expected = case.expected(&tuple);
            different_when_audited += usize::from(expected.egress != expected.audited_egress);
            for answer in [expected.egress, expected.ingress] {
                let name = match answer {
                    Answer::NoPod => "no pod",
                    Answer::Exempt => "exempt",
                    Answer::NotIsolated => "not isolated",
                    Answer::Allowed(_) => "allowed",
                    Answer::Denied => "denied",
                };
                *counts.entry(name).or_default() += 1;
            }
        }
    }
    println!("{counts:?}, {different_when_audited} different when audited");
    assert!(counts.len() == 5 && counts.values().all(|&n| n > 2000), "{counts:?}");
    assert!(
        counts["allowed"] > 10_000 && different_when_audited > 2000,
        "{different_when_audited}: {counts:?}"
    );
}
