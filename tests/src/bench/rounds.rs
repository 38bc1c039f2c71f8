//! The rounds: everything in turn, again and again.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::load::Cpus;
use super::report::Outcome;
use super::rig::Rig;
use super::{Config, Metric};
use crate::interrupt;

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Each measures everything once.
    pub rounds: usize,
    /// Of one measurement.
    pub time: Duration,
    /// Numbers of Services.
    pub services: Vec<u32>,
    /// What is compared with `direct`, which is always there.
    pub configs: Vec<Config>,
    /// What is measured.
    pub metrics: Vec<Metric>,
    /// Where both ends run; anywhere if not given.
    pub cpus: Option<Cpus>,
}

/// Sets everything up, measures, and takes everything down.
pub fn run(plan: &Plan) -> Result<Vec<Outcome>> {
    ensure!(plan.rounds > 0, "at least one round is needed");
    let mut rigs = vec![set_up(plan, Config::Direct, 0)?];
    for config in plan.configs.iter().filter(|c| **c != Config::Direct) {
        for services in &plan.services {
            rigs.push(set_up(plan, *config, *services)?);
        }
    }
    let mut outcomes: Vec<Outcome> = rigs
        .iter()
        .flat_map(|rig| plan.metrics.iter().map(|m| Outcome::new(rig.config, rig.services, *m)))
        .collect();
    let total = plan.rounds * plan.metrics.len() * rigs.len();
    let mut done = 0;
    for round in 0..plan.rounds {
        for (column, metric) in plan.metrics.iter().enumerate() {
            let mut values = vec![0.0; rigs.len()];
            // Nobody always goes first: a CPU gets warm, or is slowed down, in the course of a round.
            for step in 0..rigs.len() {
                interrupt::check()?;
                let which = (step + round + column) % rigs.len();
                let rig = &rigs[which];
                let what = format!("{} with {} Services, {metric}", rig.config, rig.services);
                progress(&format!("[{done}/{total}] round {}: {what}", round + 1));
                values[which] = rig.measure(*metric, plan.time).with_context(|| what)?;
                done += 1;
            }
            for (which, value) in values.iter().enumerate() {
                outcomes[which * plan.metrics.len() + column].add(*value, values[0]);
            }
        }
    }
    progress("");
    Ok(outcomes)
}

fn set_up(plan: &Plan, config: Config, services: u32) -> Result<Rig> {
    interrupt::check()?;
    progress(&format!("setting up: {config} with {services} Services"));
    Rig::new(config, services, plan.cpus).with_context(|| format!("set up {config} with {services} Services"))
}

/// One line for whoever watches, in place of the last one.
fn progress(text: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        // Nothing depends on it.
        let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
    }
}
