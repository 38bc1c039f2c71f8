//! A cluster that changes, step by step, under one agent.

use std::fmt::Write as _;

use anyhow::Result;
use lbr_agent::cluster::Change;
use lbr_agent::dataplane::fake::Fake;
use lbr_agent::desired::Desired;
use lbr_agent::model::ObjectName;
use lbr_agent::model::{Kind, ObjectRef};
use lbr_common::tuple::Tuple;
use serde_json::Value;

use super::change::{Numbers, unsafe_change};
use super::random::Random;
use super::verdict::text;
use super::{Agent, Case, Mismatch, check, convert, generate, steps, yaml};

/// Attempts to shrink, at most: each replays a whole history.
const ATTEMPTS: usize = 2000;

/// The states of a cluster, one after the other.
#[derive(Clone, Debug)]
pub struct History {
    /// The moments.
    pub moments: Vec<Moment>,
}

/// A cluster at one moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// All objects.
    pub case: Case,
    /// A new agent takes over before it sees this state, with the numbers in the maps.
    pub restart: bool,
}

/// A failure, and its moment.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Index of the moment.
    pub step: usize,
    /// The failure.
    pub mismatch: Mismatch,
}

impl History {
    /// A history that depends only on the seed and its length; with new agents, if requested.
    pub fn random(seed: u64, length: usize, restarts: bool) -> Self {
        let mut random = Random(seed);
        let mut case = generate::case(&mut random, false);
        let mut moments = vec![Moment { case: case.clone(), restart: false }];
        for _ in 0..length {
            // One event in most cases, sometimes several at once.
            for _ in 0..random.pick(&[1, 1, 1, 2, 4]) {
                steps::step(&mut random, &mut case);
            }
            moments.push(Moment { case: case.clone(), restart: restarts && random.chance(15) });
        }
        Self { moments }
    }

    /// Replays the history to an agent. After each step all verdicts must be those of the
    /// specification, and the step must have been safe. `also` is checked in addition.
    pub fn replay(&self, seed: u64, tuples: usize, also: Option<Tuple>) -> Result<(), Failure> {
        let first = |mismatch| Failure { step: 0, mismatch };
        let mut player = Player::start(Fake::new(seed).with_faults(0)).map_err(first)?;
        for (step, moment) in self.moments.iter().enumerate() {
            let mut asked = moment.case.tuples(seed.wrapping_add(step as u64), tuples);
            asked.extend(also);
            let failure = |mismatch| Failure { step, mismatch };
            if moment.restart {
                player = Player::start(player.fake).map_err(failure)?;
            }
            player.play(&moment.case, &asked).map_err(failure)?;
        }
        Ok(())
    }

    /// A shorter history for which `fails` still holds.
    pub fn shrink(&self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut small = self.clone();
        let mut attempts = 0;
        let mut fails = |history: &Self| {
            attempts += 1;
            attempts <= ATTEMPTS && fails(history)
        };
        loop {
            let before = (small.moments.len(), small.objects());
            for i in (0..small.moments.len()).rev() {
                let mut shorter = small.clone();
                shorter.moments.remove(i);
                if fails(&shorter) {
                    small = shorter;
                }
            }
            let mut references: Vec<_> =
                small.moments.iter().flat_map(|m| m.case.objects.iter().map(reference)).collect();
            references.sort();
            references.dedup();
            for gone in references {
                let mut without = small.clone();
                for moment in &mut without.moments {
                    moment.case.objects.retain(|object| reference(object) != gone);
                }
                if without.moments.iter().all(|m| generate::is_valid(&m.case)) && fails(&without) {
                    small = without;
                }
            }
            if before == (small.moments.len(), small.objects()) {
                return small;
            }
        }
    }

    /// Each moment as manifests: the first one whole, the others as changes.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        let nothing = Case::default();
        let mut before = &nothing;
        for (i, Moment { case, restart }) in self.moments.iter().enumerate() {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# moment {i}{}", if *restart { ", after a restart" } else { "" });
            if case.node != before.node {
                let _ = writeln!(text, "# links {:?}", case.node.links);
            }
            for gone in gone(before, case) {
                let _ = writeln!(text, "# gone: {} {}/{}", text_of(gone, "kind"), name(gone).0, name(gone).1);
            }
            case.objects.iter().filter(|o| !before.objects.contains(o)).for_each(|o| text.push_str(&yaml(o)));
            before = case;
        }
        text
    }

    fn objects(&self) -> usize {
        self.moments.iter().map(|m| m.case.objects.len()).sum()
    }
}

/// An agent and its maps, and the numbers in them so far.
struct Player {
    agent: Agent,
    fake: Fake,
    tables: Desired,
    numbers: Numbers,
}

impl Player {
    /// Takes over the maps.
    fn start(mut fake: Fake) -> Result<Self, Mismatch> {
        let agent = Agent::start(&mut fake).map_err(other)?;
        let (tables, mut numbers) = (fake.in_force(), Numbers::default());
        // A number that is in no map any more may be reused: no packet can see it.
        numbers.reused(&tables);
        Ok(Self { agent, fake, tables, numbers })
    }

    fn play(&mut self, case: &Case, tuples: &[Tuple]) -> Result<(), Mismatch> {
        self.agent.take(case, &mut self.fake).map_err(other)?;
        self.agent.compile(&mut self.fake).map_err(other)?;
        let tables = self.agent.engine.desired();
        check(case, &tables, tuples)?;
        let unsafe_change = unsafe_change(&self.tables, &tables);
        if let Some(what) = unsafe_change.or_else(|| self.numbers.reused(&tables)) {
            return Err(Mismatch::other(what));
        }
        let outcome = self.agent.engine.write(&mut self.fake);
        if !outcome.is_converged() {
            return Err(Mismatch::other(format!("not in force: {outcome:?}")));
        }
        self.tables = tables;
        Ok(())
    }
}

fn other(error: anyhow::Error) -> Mismatch {
    Mismatch::other(format!("{error:#}"))
}

/// The changes that a source would send.
pub fn changes(before: &Case, after: &Case) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for object in gone(before, after) {
        let (namespace, name) = name(object);
        let name = ObjectName::new(namespace.to_owned(), name.to_owned());
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text_of(object, "kind"));
        changes.extend(kind.map(|kind| Change::Delete(ObjectRef { kind, name })));
    }
    for object in after.objects.iter().filter(|object| !before.objects.contains(object)) {
        changes.push(Change::Apply(convert(object)?.0));
    }
    Ok(changes)
}

fn gone<'a>(before: &'a Case, after: &'a Case) -> impl Iterator<Item = &'a Value> {
    let is_there = |gone: &Value| after.objects.iter().any(|object| reference(object) == reference(gone));
    before.objects.iter().filter(move |object| !is_there(object))
}

/// Kind, namespace and name.
pub(super) fn reference(object: &Value) -> (String, String, String) {
    let (namespace, name) = name(object);
    (text_of(object, "kind").to_owned(), namespace.to_owned(), name.to_owned())
}

fn name(object: &Value) -> (&str, &str) {
    (text(&object["metadata"]["namespace"]), text(&object["metadata"]["name"]))
}

fn text_of<'a>(object: &'a Value, field: &str) -> &'a str {
    text(&object[field])
}
