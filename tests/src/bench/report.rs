//! Results, as a table and as JSON.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::Metric;

/// All rounds of one configuration and metric.
#[derive(Clone, Debug)]
pub struct Outcome {
    column: Column,
    metric: Metric,
    values: Vec<f64>,
    ratios: Vec<f64>,
    lost: Vec<f64>,
}

/// A configuration that is measured side by side with others in each round.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// Its configuration.
    pub(super) config: String,
    /// Its distinction from others of its kind: a name, and a value.
    pub(super) with: (&'static str, Value),
    /// The number of the column that it is compared with.
    pub(super) base: usize,
}

impl Column {
    /// The value as text.
    fn with_text(&self) -> String {
        self.with.1.as_str().map_or_else(|| self.with.1.to_string(), str::to_owned)
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} {}", self.config, self.with.0, self.with_text())
    }
}

/// The result of one measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Measured {
    /// In the unit of the metric.
    pub(super) value: f64,
    /// The share of sent packets that did not arrive, where that is counted.
    pub(super) lost: Option<f64>,
}

/// Median and range over some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Summary {
    /// Of at least one number.
    pub fn of(numbers: &[f64]) -> Self {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = ((sorted.len() - 1) / 2, sorted.len() / 2);
        let median = (sorted[low] + sorted[high]) / 2.0;
        Self { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }

    fn json(self, extra: (&str, Value)) -> Value {
        let mut value = json!({ "median": self.median, "min": self.min, "max": self.max });
        value[extra.0] = extra.1;
        value
    }
}

impl Outcome {
    pub(super) fn new(column: Column, metric: Metric) -> Self {
        Self { column, metric, values: Vec::new(), ratios: Vec::new(), lost: Vec::new() }
    }

    /// Adds one round: the measured value, and that of `direct`.
    pub(super) fn add(&mut self, measured: Measured, direct: f64) {
        self.values.push(measured.value);
        self.ratios.push(measured.value / direct);
        self.lost.extend(measured.lost);
    }

    /// The results as JSON.
    pub fn json(outcomes: &[Self]) -> Value {
        let result = |o: &Self| {
            let mut result = json!({
                "config": o.column.config,
                "metric": o.metric.to_string(),
                "ratio_to_direct": Summary::of(&o.ratios).json(("rounds", o.ratios.len().into())),
                "absolute": Summary::of(&o.values).json(("unit", o.metric.unit().into())),
            });
            let (name, value) = &o.column.with;
            result[name] = value.clone();
            if !o.lost.is_empty() {
                result["lost"] = Summary::of(&o.lost).json(("unit", "part of what was sent".into()));
            }
            result
        };
        json!({ "results": outcomes.iter().map(result).collect::<Vec<_>>() })
    }

    /// The results as a table.
    pub fn table(outcomes: &[Self]) -> String {
        let name = outcomes.first().map_or("", |o| o.column.with.0);
        let mut text = format!(
            "{:<11} {:<11} {name:>8}  {:>14}  {:>9}  {:<15}\n",
            "metric", "config", "median", "to direct", "lowest..highest"
        );
        let mut order: Vec<&Self> = outcomes.iter().collect();
        order.sort_by_key(|o| o.metric);
        let mut last = None;
        for o in order {
            if last.is_some_and(|metric| metric != o.metric) {
                text.push('\n');
            }
            last = Some(o.metric);
            let (absolute, ratio) = (Summary::of(&o.values), Summary::of(&o.ratios));
            let figure = match o.metric {
                Metric::TcpStream => format!("{:.2} Gbit/s", absolute.median / 1e9),
                _ => format!("{:.0} /s", absolute.median),
            };
            let (metric, config, with) = (o.metric, &o.column.config, o.column.with_text());
            let _ = write!(
                text,
                "{metric:<11} {config:<11} {with:>8}  {figure:>14}  {:>9.3}  {:.3}..{:.3}",
                ratio.median, ratio.min, ratio.max
            );
            if !o.lost.is_empty() {
                let _ = write!(text, "  {:.1} % lost", Summary::of(&o.lost).median * 100.0);
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Summary { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Summary::of(&[4.0, 1.0]).median, 2.5);
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let column = Column { config: "lbr".to_owned(), with: ("services", 10_000.into()), base: 0 };
        let mut outcome = Outcome::new(column, Metric::TcpCrr);
        outcome.add(Measured { value: 110.0, lost: None }, 100.0);
        outcome.add(Measured { value: 90.0, lost: None }, 100.0);
        let value = &Outcome::json(&[outcome])["results"][0];
        assert_eq!(value["config"], "lbr");
        assert_eq!((&value["services"], &value["metric"]), (&json!(10_000), &json!("tcp_crr")));
        assert_eq!(value["ratio_to_direct"], json!({"median": 1.0, "min": 0.9, "max": 1.1, "rounds": 2}));
        assert_eq!(value["absolute"]["median"], 100.0);
        assert_eq!(value["lost"], Value::Null);
    }

    #[test]
    fn loss_is_reported_where_it_is_counted() {
        let column = Column { config: "lbr".to_owned(), with: ("backend", "here".into()), base: 0 };
        let mut outcome = Outcome::new(column, Metric::UdpPps);
        outcome.add(Measured { value: 50.0, lost: Some(0.25) }, 100.0);
        let table = Outcome::table(&[outcome.clone()]);
        assert!(
            table.contains(" here ") && table.contains("0.500") && table.contains("25.0 % lost"),
            "{table}"
        );
        assert_eq!(Outcome::json(&[outcome])["results"][0]["lost"]["median"], 0.25);
    }
}
