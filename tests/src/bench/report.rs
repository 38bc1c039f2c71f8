//! Results, for people and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Config, Metric};

/// All rounds of one configuration and metric.
#[derive(Clone, Debug)]
pub struct Outcome {
    config: Config,
    services: u32,
    metric: Metric,
    values: Vec<f64>,
    ratios: Vec<f64>,
}

/// Median and range of some rounds.
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
    pub(super) fn new(config: Config, services: u32, metric: Metric) -> Self {
        Self { config, services, metric, values: Vec::new(), ratios: Vec::new() }
    }

    /// One round: this value, and that of `direct`.
    pub(super) fn add(&mut self, value: f64, direct: f64) {
        self.values.push(value);
        self.ratios.push(value / direct);
    }

    /// For programs.
    pub fn json(outcomes: &[Self]) -> Value {
        let result = |o: &Self| {
            json!({
                "config": o.config.to_string(),
                "services": o.services,
                "metric": o.metric.to_string(),
                "ratio_to_direct": Summary::of(&o.ratios).json(("rounds", o.ratios.len().into())),
                "absolute": Summary::of(&o.values).json(("unit", o.metric.unit().into())),
            })
        };
        json!({ "results": outcomes.iter().map(result).collect::<Vec<_>>() })
    }

    /// For people.
    pub fn table(outcomes: &[Self]) -> String {
        let mut text = format!(
            "{:<11} {:<9} {:>8}  {:>14}  {:>9}  {:<15}\n",
            "metric", "config", "Services", "median", "to direct", "lowest..highest"
        );
        let mut order: Vec<&Self> = outcomes.iter().collect();
        order.sort_by_key(|o| (o.metric, o.config, o.services));
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
            let _ = writeln!(
                text,
                "{:<11} {:<9} {:>8}  {figure:>14}  {:>9.3}  {:.3}..{:.3}",
                o.metric, o.config, o.services, ratio.median, ratio.min, ratio.max
            );
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
        let mut outcome = Outcome::new(Config::Lbr, 10_000, Metric::TcpCrr);
        outcome.add(110.0, 100.0);
        outcome.add(90.0, 100.0);
        let value = &Outcome::json(&[outcome])["results"][0];
        assert_eq!(value["config"], "lbr");
        assert_eq!((&value["services"], &value["metric"]), (&json!(10_000), &json!("tcp_crr")));
        assert_eq!(value["ratio_to_direct"], json!({"median": 1.0, "min": 0.9, "max": 1.1, "rounds": 2}));
        assert_eq!(value["absolute"]["median"], 100.0);
    }
}
