//! The cost of a NodePort for a client outside: to a backend on the node that it asks, and to one on another node.
//!
//! Everything is compared with `direct`: the same client and the backend's own address, forwarded both ways by the
//! same node, which is a plain Linux router in this case. Every configuration has a bed of its own, with both
//! backends.

mod rig;
mod services;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::rig::Rig;
use super::Metric;
use super::load::Cpus;
use super::report::{Column, Outcome};
use super::rounds::{alternate, progress};
use crate::interrupt;

/// The configurations that are compared with `direct` by default.
pub const CONFIGS: &str = "nftables,lbr,lbr:native";

/// The way to the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Config {
    /// Routes; no Service anywhere.
    Direct,
    /// The nftables rules that kube-proxy would write.
    Nftables,
    /// lbr, with this value of its flag `--xdp`, or without the flag.
    Lbr(Option<String>),
}

impl FromStr for Config {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("lbr:")) {
            ("direct", _) => Ok(Self::Direct),
            ("nftables", _) => Ok(Self::Nftables),
            ("lbr", _) => Ok(Self::Lbr(None)),
            (_, Some(mode)) if !mode.is_empty() => Ok(Self::Lbr(Some(mode.to_owned()))),
            _ => Err("one of direct, nftables, lbr, lbr:XDP".to_owned()),
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Nftables => f.write_str("nftables"),
            Self::Lbr(None) => f.write_str("lbr"),
            Self::Lbr(Some(xdp)) => write!(f, "lbr:{xdp}"),
        }
    }
}

/// The place of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the node that the client asks.
    Here,
    /// On another node.
    There,
}

impl Place {
    const ALL: [Self; 2] = [Self::Here, Self::There];

    fn name(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::There => "there",
        }
    }
}

/// The extent of a benchmark.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Each round measures everything once.
    pub rounds: usize,
    /// Duration of one measurement.
    pub time: Duration,
    /// The configurations that are compared with `direct`, which is always measured.
    pub configs: Vec<Config>,
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// The CPUs of both ends; any CPUs if absent.
    pub cpus: Option<Cpus>,
}

/// Sets everything up, measures, and removes everything.
pub fn run(plan: &Plan) -> Result<Vec<Outcome>> {
    let others = plan.configs.iter().filter(|config| **config != Config::Direct).cloned();
    let mut rigs = Vec::new();
    for config in std::iter::once(Config::Direct).chain(others) {
        interrupt::check()?;
        progress(&format!("setting up: {config}"));
        rigs.push(Rig::new(&config, plan.cpus).with_context(|| format!("set up {config}"))?);
    }
    let cells: Vec<(&Rig, Place)> =
        Place::ALL.iter().flat_map(|place| rigs.iter().map(move |rig| (rig, *place))).collect();
    let column = |(number, (rig, place)): (usize, &(&Rig, Place))| Column {
        config: rig.config().to_string(),
        with: ("backend", place.name().into()),
        // The first configuration for the same place.
        base: number - number % rigs.len(),
    };
    let columns: Vec<Column> = cells.iter().enumerate().map(column).collect();
    alternate(plan.rounds, &plan.metrics, &columns, |which, metric| {
        let (rig, place) = cells[which];
        rig.measure(place, metric, plan.time)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_read_as_they_are_printed() {
        for text in CONFIGS.split(',').chain(["direct", "lbr:native"]) {
            assert_eq!(text.parse::<Config>().unwrap().to_string(), text);
        }
        assert_eq!("lbr:off".parse(), Ok(Config::Lbr(Some("off".to_owned()))));
        assert!("lbr:".parse::<Config>().is_err() && "ipvs".parse::<Config>().is_err());
    }
}
