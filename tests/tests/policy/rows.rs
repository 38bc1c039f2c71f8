//! A test for each row of the truth tables that has a file in `tests/scenarios/policies`.

use std::collections::BTreeSet;

use crate::case::File;
use crate::stage;

macro_rules! policy_rows {
    ($($row:ident)*) => {
        const ROWS: &[&str] = &[$(stringify!($row)),*];

        $(#[test]
        fn $row() {
            play(stringify!($row));
        })*
    };
}

policy_rows! {
    a1 a2 a3 a4 a5 a6 a7
    b1 b2 b3 b4 b5 b6 b7 b8 b9 b10 b11 b12 b13 b14 b15 b16 b17
    c1 c2 c3 c4 c5 c6 c7 c8 c9 c11 c12 c13 c14 c15 c20 c21
}

/// Runs all cases of a row, and reports all failures at the end.
fn play(row: &str) {
    let file = File::all().and_then(|files| File::load(&files[row])).unwrap();
    // One case, by a part of its name: LBR_CASE="egress only" cargo test ...
    let only = std::env::var("LBR_CASE").unwrap_or_default();
    let failed: Vec<String> = stage::with(|world| {
        let chosen = file.cases.iter().filter(|case| case.name.contains(&only));
        let played = chosen.map(|case| (case, world.play(case)));
        let failed = played.filter_map(|(case, done)| Some((case, done.err()?)));
        failed.map(|(case, error)| format!("{} {:?}: {error:#}", file.row, case.name)).collect()
    });
    assert!(failed.is_empty(), "{} of {} cases\n{}", failed.len(), file.cases.len(), failed.join("\n"));
}

/// Every file has a test, every row has at least three cases, and every line of probes can be parsed.
#[test]
fn every_row_has_three_cases() {
    let files = File::all().unwrap();
    let (named, tested): (BTreeSet<&str>, BTreeSet<&str>) =
        (files.keys().map(String::as_str).collect(), ROWS.iter().copied().collect());
    assert_eq!(named, tested);
    for (row, path) in &files {
        let file = File::load(path).unwrap();
        assert_eq!(file.row.to_lowercase(), *row, "{}", path.display());
        assert!(file.cases.len() >= 3, "{row}: {} cases", file.cases.len());
        let names: BTreeSet<&str> = file.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), file.cases.len(), "{row}: two cases have one name");
        for case in &file.cases {
            let lines = case.lines().unwrap();
            assert!(!lines.is_empty(), "{row} {:?}", case.name);
        }
    }
}
