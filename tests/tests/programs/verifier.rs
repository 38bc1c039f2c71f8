//! The programs' cost in the kernel's verifier.

use lbr_agent::dataplane::OBJECT;
use lbr_tests::bench::verifier::{BAR, costs};

/// The kernel's limit is twice the bar: a later verifier that explores more states of the same code must not reject
/// lbr.
#[test]
fn every_program_is_below_the_bar() {
    let costs = costs(OBJECT).unwrap();
    assert!(costs.len() >= 14, "{costs:?}");
    let above: Vec<_> = costs.iter().filter(|cost| cost.processed > BAR).collect();
    assert!(above.is_empty(), "above {BAR} processed instructions: {above:?}");
}
