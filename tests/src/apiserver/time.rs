//! Times as Kubernetes writes them.

use std::time::SystemTime;

/// Now, in RFC 3339 and whole seconds.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    text(since.as_secs())
}

fn text(seconds: u64) -> String {
    let (mut day, second) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while day >= year_days(year) {
        day -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while day >= month_days(year, month) {
        day -= month_days(year, month);
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

fn year_days(year: u64) -> u64 {
    365 + u64::from(leap(year))
}

fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_as_date_prints_them() {
        assert_eq!(super::text(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::text(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(super::text(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(super::text(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
