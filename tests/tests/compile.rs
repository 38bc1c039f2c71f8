//! Every scenario, on a faulty data plane in memory: no root, no kernel.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use lbr_agent::dataplane::fake::Fake;
use lbr_tests::scenario::{Order, Scenario, run};

/// Seeds of faults and of shuffled orders.
const SEEDS: u64 = 5;

fn scenario(name: &str) {
    let files = Scenario::files("services").unwrap();
    let file = files.iter().find(|f| f.file_stem().is_some_and(|stem| stem == name)).unwrap();
    let scenario = Scenario::load(file).unwrap();
    for seed in 0..SEEDS {
        for order in [Order::Given, Order::Reversed, Order::Shuffled(seed)] {
            let mut fake = Fake::new(seed);
            let result = run(&scenario, order, &mut fake);
            result.unwrap_or_else(|e| panic!("{order:?}, seed {seed}: {e:#}"));
            assert!(fake.attached().is_empty(), "{order:?}, seed {seed}: programs are still attached");
        }
    }
}

lbr_tests::scenario_tests!(scenario);
