//! Every scenario: the content of the maps, and the verdicts of the shipped program.

use lbr_agent::dataplane::Pinned;
use lbr_agent::desired::Desired;
use lbr_tests::scenario::{Order, Real, Scenario, Step, run};

fn load(name: &str) -> Scenario {
    let files = Scenario::files("services").unwrap();
    let file = files.iter().find(|f| f.file_stem().is_some_and(|stem| stem == name)).unwrap();
    Scenario::load(file).unwrap()
}

fn scenario(name: &str) {
    // Each scenario has an order of its own, which does not change.
    let seed = name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    for order in [Order::Given, Order::Shuffled(seed)] {
        play(&load(name), order);
    }
}

/// The agent is killed and started again after each step.
pub(crate) fn scenario_with_restarts(name: &str) {
    let mut scenario = load(name);
    let restart = || Step { restart: true, ..Step::default() };
    scenario.steps = scenario.steps.into_iter().flat_map(|step| [step, restart()]).collect();
    play(&scenario, Order::Given);
}

fn play(scenario: &Scenario, order: Order) {
    let mut real = Real::load(&scenario.name).unwrap();
    run(scenario, order, &mut real).unwrap_or_else(|e| panic!("{order:?}: {e:#}"));
    // By the pins, as `lbr show` would.
    let pinned = Pinned::open(real.pins()).unwrap();
    assert_eq!(pinned.tables().unwrap(), Desired::default(), "{order:?}");
    assert_eq!(pinned.flows().unwrap(), [], "{order:?}: flows that no verdict asked for");
    real.expect_attached(&[]).unwrap();
    let mut pins = std::fs::read_dir(real.pins().join("attached")).unwrap();
    assert!(pins.next().is_none(), "{order:?}: a pinned link is left");
}

lbr_tests::scenario_tests!(scenario);
