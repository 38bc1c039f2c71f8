//! A change of policy is one switch: at every moment, also between two writes of which the second fails, programs see
//! either all of the old policies or all of the new ones.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::sync::{Arc, Mutex};

use lbr_agent::compile::compile;
use lbr_agent::dataplane::fake::Fake;
use lbr_agent::desired::Desired;
use lbr_agent::ids::Ids;
use lbr_agent::policy::judge::{Side, judge};
use lbr_agent::reconcile::Reconciler;
use lbr_common::tuple::Tuple;
use lbr_tests::oracle::history::{History, Moment};

const HISTORIES: u64 = 60;
const STEPS: usize = 12;
const TUPLES: usize = 40;
/// More rounds than any series of faults takes.
const ROUNDS: usize = 200;

/// The decisions of the programs about some connections: for each end with enforced policies, one answer.
type Answers = Vec<[Option<bool>; 2]>;

fn answers(tables: &Desired, tuples: &[Tuple]) -> Answers {
    // No packet depends on the rule that allows it, or on the isolation of a pod that is gone.
    let answer = |side: Side| match side {
        Side::NoPod => None,
        side => Some(side.passes()),
    };
    tuples.iter().map(|tuple| judge(tables, tuple)).map(|j| [answer(j.egress), answer(j.ingress)]).collect()
}

/// The answers before a step, those after it, and what was seen in between.
#[derive(Default)]
struct Watched {
    tuples: Vec<Tuple>,
    old: Answers,
    new: Answers,
    is_new: bool,
    looks: usize,
    wrong: Option<String>,
}

impl Watched {
    fn look(&mut self, tables: &Desired) {
        self.looks += 1;
        let seen = answers(tables, &self.tuples);
        // Once the new answers are seen, the old ones do not come back.
        let is_old = seen == self.old && !self.is_new;
        self.is_new |= seen == self.new && self.old != self.new;
        if !is_old && seen != self.new {
            let differs = |i: &usize| seen[*i] != self.old[*i] || seen[*i] != self.new[*i];
            let first =
                (0..seen.len()).find(differs).map(|i| (self.tuples[i], self.old[i], seen[i], self.new[i]));
            self.wrong.get_or_insert(format!("look {}: (connection, old, seen, new): {first:?}", self.looks));
        }
    }
}

/// One step of an agent: writes until everything is in force.
fn step(moment: &Moment, ids: &mut Ids, fake: &mut Fake, watched: &Arc<Mutex<Watched>>, seed: u64) -> bool {
    let store = moment.case.store().unwrap();
    let tables = compile(store.state(), &moment.case.node, ids);
    let tuples = moment.case.tuples(seed, TUPLES);
    {
        let mut w = watched.lock().unwrap();
        w.old = answers(&fake.in_force(), &tuples);
        w.new = answers(&tables, &tuples);
        w.is_new = false;
        w.tuples = tuples;
    }
    let changes = { watched.lock().map(|w| w.old != w.new).unwrap() };
    let mut reconciler = Reconciler::load(fake).unwrap();
    for _ in 0..ROUNDS {
        if reconciler.apply(tables.clone(), true, fake).is_converged() {
            return changes;
        }
    }
    unreachable!("does not converge");
}

fn play(faults: u32) {
    let (mut changes, mut looks) = (0, 0);
    for seed in 0..HISTORIES {
        let mut fake = Fake::new(seed).with_faults(faults);
        let watched = Arc::new(Mutex::new(Watched::default()));
        let eye = Arc::clone(&watched);
        fake.observe(move |tables| eye.lock().unwrap().look(tables));
        let mut ids = Ids::new();
        for (number, moment) in History::random(seed, STEPS, true).moments.iter().enumerate() {
            if moment.restart {
                ids = Ids::restore(&Reconciler::load(&mut fake).unwrap().actual());
            }
            changes += usize::from(step(moment, &mut ids, &mut fake, &watched, seed + number as u64));
            let w = watched.lock().unwrap();
            assert!(
                w.wrong.is_none(),
                "seed {seed}, step {number}: {}",
                w.wrong.as_deref().unwrap_or_default()
            );
            assert_eq!(answers(&fake.in_force(), &w.tuples), w.new, "seed {seed}, step {number}");
            looks = looks.max(w.looks);
        }
    }
    // Otherwise the run proves nothing.
    assert!(changes > 200 && looks > 100, "{changes} steps changed an answer, {looks} looks");
}

#[test]
fn a_change_is_one_switch() {
    play(0);
}

#[test]
fn a_change_is_one_switch_whatever_fails() {
    play(20);
}
