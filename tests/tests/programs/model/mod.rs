//! Random packets of honest hosts and of an attacker, against a model that knows which host opened what.
//!
//! A sequence is a list of numbers; each step follows from its number and from the model's state. So any part of a
//! sequence is a sequence too, and a failing one is shortened by leaving steps out.
//!
//! - `cast` has the hosts, and the way of a packet through the programs.
//! - `talk` has the conversations, and what their ends send.
//! - `attacker` sends everything else.

mod attacker;
mod cast;
mod events;
mod open;
mod talk;

use std::time::{Duration, Instant};

use lbr_tests::testrun::say;

use self::cast::Cast;
use self::talk::Talks;
use super::random::Random;
use super::world::{nets, number};

/// Steps of the longest sequences. Others have a half, a third and so on down to a tenth of it: 44 on average.
const STEPS: usize = 150;
/// For how long the test runs as part of the suite.
const TIME: Duration = Duration::from_secs(8);
/// As many it plays in any case: on a slow machine (software emulation) too the rare kinds of events must happen.
const LEAST: u64 = 300;

/// A sequence takes milliseconds. If the machine was suspended meanwhile, flows may have expired.
const PAUSE: Duration = Duration::from_secs(10);

/// A sequence's rule was broken.
type Broken = Result<(), String>;

/// The model, on one family of addresses.
struct Model {
    cast: Cast,
    talks: Talks,
}

impl Model {
    fn play(&mut self, steps: &[u64]) -> Broken {
        self.cast.reset();
        self.talks = Talks::default();
        for (at, step) in steps.iter().enumerate() {
            let mut random = Random(*step);
            let done = match random.below(20) {
                0..4 => self.open(&mut random),
                4..12 => self.go_on(&mut random),
                12..18 => self.attack(&mut random),
                _ => self.happen(&mut random),
            };
            done.map_err(|broken| format!("step {at}: {broken}"))?;
        }
        Ok(())
    }

    /// The shortest part of a failing sequence that was found to fail too.
    fn shrink(&mut self, mut steps: Vec<u64>) -> Vec<u64> {
        let mut size = steps.len() / 2;
        while size > 0 {
            let (before, mut from) = (steps.len(), 0);
            while from < steps.len() {
                let mut fewer = steps.clone();
                fewer.drain(from..(from + size).min(steps.len()));
                if self.play(&fewer).is_err() {
                    steps = fewer;
                } else {
                    from += size;
                }
            }
            size = if size == 1 && steps.len() < before { 1 } else { size / 2 };
        }
        steps
    }
}

fn steps(seed: u64) -> Vec<u64> {
    let mut random = Random(seed);
    let count = STEPS / (1 + random.below(10));
    (0..count).map(|_| (random.below(1 << 32) as u64) << 32 | random.below(1 << 32) as u64).collect()
}

/// `LBR_SEQUENCES=1000000` plays that many, from seed `LBR_SEED` on (1); without it, as many as [`TIME`] allows.
#[test]
fn conversations_hold_whatever_an_attacker_sends() {
    let (first, count) = (number("LBR_SEED").unwrap_or(1), number("LBR_SEQUENCES"));
    let begin = Instant::now();
    let (mut played, mut packets) = (0, 0);
    let mut told = Instant::now();
    let mut model: Option<(usize, Model)> = None;
    let mut seen = std::collections::BTreeMap::new();
    while count.map_or_else(|| begin.elapsed() < TIME || played < LEAST, |count| played < count) {
        let seed = first + played;
        // The family changes every hundred seeds: each has its own node, and a thread is in one node at a time.
        let family = (seed / 100) as usize % 2;
        if model.as_ref().is_some_and(|(of, _)| *of != family) {
            model = None;
        }
        let (_, model) = model.get_or_insert_with(|| {
            (family, Model { cast: Cast::new(nets()[family]), talks: Talks::default() })
        });
        let steps = steps(seed);
        let started = Instant::now();
        let mut outcome = model.play(&steps);
        if outcome.is_err() && started.elapsed() > PAUSE {
            say(&format!("sequence {seed} took {:?}: it is played again", started.elapsed()));
            outcome = model.play(&steps);
        }
        if let Err(broken) = outcome {
            let short = model.shrink(steps);
            let again = model.play(&short).err().unwrap_or_else(|| "not again".to_owned());
            let last = model.cast.log.join("\n");
            panic!(
                "LBR_SEED={seed} LBR_SEQUENCES=1: {broken}\n{} steps suffice: {again}\n{last}",
                short.len()
            );
        }
        played += 1;
        packets += std::mem::take(&mut model.cast.packets);
        for (what, count) in std::mem::take(&mut model.cast.seen) {
            *seen.entry(what).or_insert(0_u64) += count;
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            say(&format!("{played} sequences, {packets} packets, {:?}", begin.elapsed()));
        }
    }
    say(&format!("{played} sequences, {packets} packets, {:?}: {seen:?}", begin.elapsed()));
    // A run that meets only a few kinds proves nothing.
    if count.is_none() {
        for what in ["opened", "denied", "there", "back", "closed", "attack stopped", "attack passed"] {
            assert!(seen.get(what).copied().unwrap_or(0) >= 20, "{what}: {seen:?}");
        }
    }
}
