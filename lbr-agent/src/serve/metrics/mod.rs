//! `/metrics`: kube-proxy's names where they have a meaning here, and lbr's own.
//!
//! Numbers of the agent come from the [`Observer`], those of the programs from the pinned maps at each scrape.

mod agent;
mod family;
pub(super) mod histograms;
mod kernel;
mod process;
#[cfg(test)]
mod tests;

use std::time::Instant;

use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;

pub(super) use self::family::{counter, gauge, number};
pub use self::kernel::KernelMaps;
use super::observer::Observer;

/// Collects all metrics.
#[derive(Debug)]
pub struct Exporter {
    observer: Observer,
    maps: KernelMaps,
}

impl Exporter {
    /// For this agent and its maps.
    pub fn new(observer: Observer, maps: KernelMaps) -> Self {
        Self { observer, maps }
    }

    /// The metrics in Prometheus' text format.
    pub fn text(&self) -> anyhow::Result<String> {
        let figures = self.observer.snapshot();
        let mut families = self.observer.histograms().families();
        families.extend(agent::families(&figures, self.observer.silence()));
        families.extend(kernel::families(&self.maps.read(Instant::now()), &figures.entries));
        families.extend(process::families());
        families.push(build_info());
        encode(families)
    }
}

pub(super) fn encode(mut families: Vec<MetricFamily>) -> anyhow::Result<String> {
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(TextEncoder::new().encode_to_string(&families)?)
}

fn build_info() -> MetricFamily {
    let labels = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    gauge("lbr_build_info", "Always 1; the version of the agent.", [(labels, 1.0)])
}
