//! Random histories: lbr's verdicts after every step, and whether the step was safe.

use lbr_tests::oracle::Mismatch;
use lbr_tests::oracle::history::{Failure, History};

use crate::parallel::{for_seeds, no_panic, setting};

const HISTORIES: u64 = 2000;
const STEPS: usize = 30;
const TUPLES: usize = 50;

#[test]
fn every_step_is_right_and_safe() {
    run(false);
}

/// A new agent must find the same numbers for the same content.
#[test]
fn every_step_is_right_and_safe_for_new_agents() {
    run(true);
}

fn run(restarts: bool) {
    for_seeds(setting("LBR_ORACLE_HISTORIES", HISTORIES), |seed| {
        let history = History::random(seed, STEPS, restarts);
        let found = replay(&history, seed, None).err()?;
        let also = found.mismatch.tuple;
        let small = history.shrink(|history| replay(history, seed, also).is_err());
        let found = replay(&small, seed, also).err().unwrap_or(found);
        Some(format!("at moment {}: {}\n{}", found.step, found.mismatch.what, small.yaml()))
    });
}

fn replay(history: &History, seed: u64, also: Option<lbr_common::tuple::Tuple>) -> Result<(), Failure> {
    let result = no_panic(|| Ok(history.replay(seed, TUPLES, also)));
    result.unwrap_or_else(|Mismatch { tuple, what }| {
        Err(Failure { step: 0, mismatch: Mismatch { tuple, what } })
    })
}
