//! Metrics whose values are read on request.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Labels and a value.
pub(in crate::serve) type Sample = (Vec<(&'static str, String)>, f64);

/// A value that goes up and down.
pub(in crate::serve) fn gauge(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = Sample>,
) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_gauge(gauge);
        metric
    };
    family(name, help, MetricType::GAUGE, samples.into_iter().map(metric).collect())
}

/// A value that only goes up.
pub(in crate::serve) fn counter(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = Sample>,
) -> MetricFamily {
    let metric = |(labels, value)| {
        let mut counter = Counter::default();
        counter.set_value(value);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_counter(counter);
        metric
    };
    family(name, help, MetricType::COUNTER, samples.into_iter().map(metric).collect())
}

/// A value without labels.
pub(in crate::serve) fn one(value: f64) -> [Sample; 1] {
    [(Vec::new(), value)]
}

/// Counts, as metrics have them. Exact to 2^53.
pub(in crate::serve) fn number(count: u64) -> f64 {
    count as f64
}

fn pairs(labels: Vec<(&'static str, String)>) -> Vec<LabelPair> {
    let pair = |(name, value): (&str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    };
    labels.into_iter().map(pair).collect()
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
