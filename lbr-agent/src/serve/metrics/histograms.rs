//! Durations, with kube-proxy's names and buckets.

use std::time::Duration;

use lbr_common::addr::Family;
use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, HistogramVec, exponential_buckets};

/// All histograms.
#[derive(Debug)]
pub(crate) struct Histograms {
    sync: HistogramVec,
    programming: HistogramVec,
    compile: Histogram,
}

impl Histograms {
    /// Empty histograms.
    pub(crate) fn new() -> prometheus::Result<Self> {
        let options = |name: &str, help: &str, buckets| HistogramOpts::new(name, help).buckets(buckets);
        let sync = options(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "How long it took to bring the maps up to date, compiling included. Both IP families are written at once.",
            exponential_buckets(0.001, 2.0, 15)?,
        );
        let programming = options(
            "kubeproxy_network_programming_duration_seconds",
            "Time from a change of the cluster, as recorded in EndpointSlices, until it is in force on this node.",
            programming_buckets(),
        );
        let compile = options(
            "lbr_compile_duration_seconds",
            "How long it took to compute the content of the maps.",
            exponential_buckets(0.000_1, 2.0, 15)?,
        );
        let histograms = Self {
            sync: HistogramVec::new(sync, &["ip_family"])?,
            programming: HistogramVec::new(programming, &["ip_family"])?,
            compile: Histogram::with_opts(compile)?,
        };
        // Present from the start.
        for family in Family::ALL {
            histograms.sync.get_metric_with_label_values(&[family.name()])?;
            histograms.programming.get_metric_with_label_values(&[family.name()])?;
        }
        Ok(histograms)
    }

    pub(in crate::serve) fn wrote(&self, family: Family, took: Duration) {
        self.sync.with_label_values(&[family.name()]).observe(took.as_secs_f64());
    }

    pub(in crate::serve) fn programmed(&self, family: Family, took: Duration) {
        self.programming.with_label_values(&[family.name()]).observe(took.as_secs_f64());
    }

    pub(in crate::serve) fn compiled(&self, took: Duration) {
        self.compile.observe(took.as_secs_f64());
    }

    pub(in crate::serve) fn families(&self) -> Vec<MetricFamily> {
        [self.sync.collect(), self.programming.collect(), self.compile.collect()].concat()
    }
}

/// 0.25, 0.5, each second to 59, each five to 115, each thirty to 300: Kubernetes' SLO is computed from these buckets.
fn programming_buckets() -> Vec<f64> {
    let seconds = (1..60).chain((60..120).step_by(5)).chain((120..=300).step_by(30));
    [0.25, 0.5].into_iter().chain(seconds.map(f64::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_kube_proxy() {
        let buckets = programming_buckets();
        assert_eq!(buckets.len(), 2 + 59 + 12 + 7);
        assert_eq!(buckets[..4], [0.25, 0.5, 1.0, 2.0]);
        assert_eq!(buckets[59..63], [58.0, 59.0, 60.0, 65.0]);
        assert_eq!(buckets[71..], [110.0, 115.0, 120.0, 150.0, 180.0, 210.0, 240.0, 270.0, 300.0][1 - 1..]);
        let histograms = Histograms::new().unwrap();
        let sync = &histograms.sync.collect()[0];
        let bounds: Vec<f64> =
            sync.get_metric()[0].get_histogram().get_bucket().iter().map(|b| b.upper_bound()).collect();
        assert_eq!((bounds.len(), bounds[0], bounds[14]), (15, 0.001, 16.384));
    }
}
