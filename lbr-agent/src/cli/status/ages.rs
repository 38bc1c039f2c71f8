//! Ages of times in reports, for people.

use jiff::Timestamp;

/// Seconds from a time of a report to `now`; 0 for the future, as after the clock was set.
pub(super) fn seconds(time: &str, now: Timestamp) -> Option<f64> {
    let time: Timestamp = time.parse().ok()?;
    Some((now.as_millisecond() - time.as_millisecond()).max(0) as f64 / 1000.0)
}

/// `2026-01-31T08:15:30Z (5m ago)`
pub(super) fn ago(time: &str, now: Timestamp) -> String {
    match seconds(time, now) {
        Some(age) => format!("{} ({} ago)", to_seconds(time), short(age)),
        None => time.to_owned(),
    }
}

fn to_seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}

/// `45s`, `12m`, `3h20m`, `5d4h`: as kubectl has it.
pub(super) fn short(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0..2) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, ..) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, expected) in [
            (0.4, "0s"),
            (119.0, "119s"),
            (120.0, "2m"),
            (3_599.0, "59m"),
            (3_660.0, "1h1m"),
            (90_000.0, "1d1h"),
        ] {
            assert_eq!(short(seconds), expected);
        }
    }

    #[test]
    fn a_time_in_the_future_has_no_age() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        assert_eq!(seconds("2026-01-01T00:00:07.500Z", now), Some(2.5));
        assert_eq!(seconds("2026-01-02T00:00:00Z", now), Some(0.0));
        assert_eq!(seconds("yesterday", now), None);
        assert_eq!(ago("2026-01-01T00:00:07.500Z", now), "2026-01-01T00:00:07Z (2s ago)");
        assert_eq!(ago("yesterday", now), "yesterday");
    }
}
