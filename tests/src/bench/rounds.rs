//! The rounds: every configuration in turn, repeatedly.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::load::Cpus;
use super::report::{Column, Measured, Outcome};
use super::rig::Rig;
use super::{Config, Metric};
use crate::interrupt;

/// The extent of a benchmark.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Each round measures everything once.
    pub rounds: usize,
    /// Duration of one measurement.
    pub time: Duration,
    /// Numbers of Services.
    pub services: Vec<u32>,
    /// The configurations that are compared with `direct`, which is always measured.
    pub configs: Vec<Config>,
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// The CPUs of both ends; any CPUs if absent.
    pub cpus: Option<Cpus>,
}

/// Sets everything up, measures, and removes everything.
pub fn run(plan: &Plan) -> Result<Vec<Outcome>> {
    let packets = plan.metrics.iter().find(|metric| metric.counts_packets());
    ensure!(packets.is_none(), "packets are counted by node-port only: {}", packets.map_or("", |m| m.name()));
    let mut rigs = vec![set_up(plan, Config::Direct, 0)?];
    for config in plan.configs.iter().filter(|c| **c != Config::Direct) {
        for services in &plan.services {
            rigs.push(set_up(plan, *config, *services)?);
        }
    }
    let column = |rig: &Rig| Column {
        config: rig.config.to_string(),
        with: ("services", rig.services.into()),
        base: 0,
    };
    let columns: Vec<Column> = rigs.iter().map(column).collect();
    alternate(plan.rounds, &plan.metrics, &columns, |which, metric| {
        Ok(Measured { value: rigs[which].measure(metric, plan.time)?, lost: None })
    })
}

/// Measures each metric of each column (by its number) once in every round.
pub(super) fn alternate(
    rounds: usize,
    metrics: &[Metric],
    columns: &[Column],
    mut measure: impl FnMut(usize, Metric) -> Result<Measured>,
) -> Result<Vec<Outcome>> {
    ensure!(rounds > 0, "at least one round is needed");
    let outcome = |column: &Column, metric: &Metric| Outcome::new(column.clone(), *metric);
    let mut outcomes: Vec<Outcome> =
        columns.iter().flat_map(|column| metrics.iter().map(move |m| outcome(column, m))).collect();
    let total = rounds * metrics.len() * columns.len();
    let mut done = 0;
    for round in 0..rounds {
        for (row, metric) in metrics.iter().enumerate() {
            let mut found = vec![Measured { value: 0.0, lost: None }; columns.len()];
            // The order rotates: a CPU warms up, or is slowed down, in the course of a round.
            for step in 0..columns.len() {
                interrupt::check()?;
                let which = (step + round + row) % columns.len();
                let what = format!("{}: {metric}", columns[which]);
                progress(&format!("[{done}/{total}] round {}: {what}", round + 1));
                found[which] = measure(which, *metric).with_context(|| what)?;
                done += 1;
            }
            for (which, measured) in found.iter().enumerate() {
                let direct = found[columns[which].base].value;
                outcomes[which * metrics.len() + row].add(*measured, direct);
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

/// Shows progress in one line, which replaces the last one.
pub(super) fn progress(text: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        // Errors do not matter here.
        let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_column_is_compared_with_its_own_base() {
        let column = |place: &'static str, base| Column {
            config: "any".to_owned(),
            with: ("backend", place.into()),
            base,
        };
        let columns = [column("a", 0), column("a", 0), column("b", 2), column("b", 2)];
        let values = [10.0, 5.0, 100.0, 20.0];
        let outcomes = alternate(3, &[Metric::UdpRr], &columns, |which, _| {
            Ok(Measured { value: values[which], lost: None })
        });
        let report = Outcome::json(&outcomes.unwrap());
        let ratios: Vec<f64> =
            (0..4).filter_map(|n| report["results"][n]["ratio_to_direct"]["median"].as_f64()).collect();
        assert_eq!(ratios, [1.0, 0.5, 1.0, 0.2]);
        assert_eq!(report["results"][0]["ratio_to_direct"]["rounds"], json!(3));
    }
}
