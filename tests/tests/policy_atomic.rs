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
use lbr_common::addr::Addr;
use lbr_common::epoch::Place;
use lbr_common::maps::{self, MapSpec};
use lbr_common::tuple::Tuple;
use lbr_tests::oracle::history::{History, Moment};
use lbr_tests::oracle::{Agent, Case};

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

/// One step of an agent: writes until everything is in force. Returns whether an answer changes.
fn step(case: &Case, agent: &mut Agent, fake: &mut Fake, watched: &Arc<Mutex<Watched>>, seed: u64) -> bool {
    agent.take(case, fake).unwrap();
    agent.compile(fake).unwrap();
    let tables = agent.engine.desired();
    let tuples = case.tuples(seed, TUPLES);
    {
        let mut w = watched.lock().unwrap();
        w.old = answers(&fake.in_force(), &tuples);
        w.new = answers(&tables, &tuples);
        w.is_new = false;
        w.tuples = tuples;
    }
    let changes = { watched.lock().map(|w| w.old != w.new).unwrap() };
    for _ in 0..ROUNDS {
        if agent.engine.write(fake).is_converged() {
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
        let mut agent = Agent::start(&mut fake).unwrap();
        for (number, moment) in History::random(seed, STEPS, true).moments.iter().enumerate() {
            if moment.restart {
                agent = Agent::start(&mut fake).unwrap();
            }
            changes += usize::from(step(&moment.case, &mut agent, &mut fake, &watched, seed + number as u64));
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

/// Sizes of maps into which some clusters do not fit.
const SMALL: [(&MapSpec, u32); 4] =
    [(&maps::VERDICTS, 12), (&maps::PORT_CLASS, 10), (&maps::CIDR_CLASS, 4), (&maps::IP_CLASS, 8)];

/// A flow looks again only if a change concerns one of its ends, or a link: so each connection whose answer changes has such
/// an end. `rooms`: sometimes the maps are small.
fn concerns(faults: u32, rooms: bool) {
    let elsewhere = Place::address(&Addr::v4([203, 0, 113, 77]));
    let (mut changed, mut unconcerned, mut for_all, mut steps) = (0, 0, 0, 0);
    for seed in 0..HISTORIES {
        let mut fake = Fake::new(seed).with_faults(faults);
        let mut reconciler = Reconciler::load(&mut fake).unwrap();
        let mut ids = Ids::new();
        let history = History::random(seed, STEPS, false);
        let mut before: Option<&Moment> = None;
        for (number, moment) in (0..).zip(&history.moments) {
            let is_small = rooms && (seed + number) % 3 == 0;
            for (spec, small) in SMALL {
                let size = if is_small { small } else { u32::try_from(spec.max_entries).unwrap() };
                fake.set_max_entries(spec.name, size);
            }
            let mut tuples = moment.case.tuples(seed + number, 4 * TUPLES);
            tuples.extend(before.iter().flat_map(|before| before.case.tuples(seed + number, 4 * TUPLES)));
            let old = answers(&fake.in_force(), &tuples);
            let tables = compile(moment.case.store().unwrap().state(), &moment.case.node, &mut ids);
            for _ in 0..ROUNDS {
                if reconciler.apply(tables.clone(), true, &mut fake).is_converged() {
                    break;
                }
            }
            let new = answers(&fake.in_force(), &tuples);
            let concerned = fake.take_concerned();
            let is_concerned = |cell| concerned.iter().any(|flows| flows.has(cell));
            for ((tuple, old), new) in tuples.iter().zip(&old).zip(&new) {
                let looks = [tuple.src, tuple.dst].iter().any(|end| is_concerned(Place::address(end)));
                assert!(looks || old == new, "seed {seed}, step {number}: {tuple:?} was {old:?}, is {new:?}");
                changed += usize::from(old != new);
                unconcerned += usize::from(!looks);
            }
            // The first one is an agent's start.
            for_all += u64::from(before.is_some() && is_concerned(elsewhere));
            steps += u64::from(before.is_some());
            before = Some(moment);
        }
    }
    assert!(
        changed > 5_000 && unconcerned > 50_000,
        "{changed} answers changed, {unconcerned} flows were left"
    );
    assert!(rooms || for_all < steps / 50, "{for_all} of {steps} steps concern every flow");
}

#[test]
fn a_change_concerns_the_flows_whose_answer_it_changes() {
    concerns(0, false);
}

#[test]
fn a_change_concerns_the_flows_whose_answer_it_changes_whatever_fails() {
    concerns(20, true);
}
