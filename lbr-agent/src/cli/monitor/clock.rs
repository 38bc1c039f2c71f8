//! Converts the kernel's time stamps to wall-clock time.

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

const SECOND: i64 = 1_000_000_000;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// `CLOCK_MONOTONIC_COARSE`, which the programs use: the fine clock is some milliseconds ahead.
    monotonic: i64,
    /// Nanoseconds since 1970.
    real: i64,
}

impl Clock {
    pub(super) fn start() -> anyhow::Result<Self> {
        Ok(Self {
            monotonic: read(ClockId::CLOCK_MONOTONIC_COARSE)?,
            real: read(ClockId::CLOCK_REALTIME_COARSE)?,
        })
    }

    /// The moment of [`Self::start`], as events carry it.
    pub(super) fn begin(&self) -> u64 {
        u64::try_from(self.monotonic).unwrap_or(0)
    }

    /// Local time of an event: `2026-01-31 08:15:30.250`.
    pub(super) fn local(&self, event: u64) -> anyhow::Result<String> {
        // Reads both clocks anew: a monitor may run for days, and the wall clock may be set meanwhile.
        let now = Self::start()?;
        let real = now.real - (now.monotonic - i64::try_from(event)?);
        let seconds = libc::time_t::from(real.div_euclid(SECOND));
        let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
        // SAFETY: both pointers lead to values that live across the call, and `tm` may be all zeros.
        let parts = unsafe {
            let filled = libc::localtime_r(&raw const seconds, parts.as_mut_ptr());
            filled.as_ref().map(|_| parts.assume_init())
        };
        let t = parts.context("local time of an event")?;
        Ok(format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
            t.tm_year + 1900,
            t.tm_mon + 1,
            t.tm_mday,
            t.tm_hour,
            t.tm_min,
            t.tm_sec,
            real.rem_euclid(SECOND) / 1_000_000
        ))
    }
}

fn read(clock: ClockId) -> anyhow::Result<i64> {
    let now = clock_gettime(clock)?;
    Ok(now.tv_sec() * SECOND + now.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_second_ago_is_a_second_earlier_on_the_wall() {
        let clock = Clock::start().unwrap();
        let text = |ago: i64| {
            let event = u64::try_from(clock.monotonic - ago).unwrap();
            clock.local(event).unwrap()
        };
        let seconds = |text: &str| text[17..19].parse::<i64>().unwrap();
        let (now, before) = (text(0), text(SECOND));
        assert_eq!(now.len(), "2026-01-31 08:15:30.250".len());
        let passed = (seconds(&now) - seconds(&before)).rem_euclid(60);
        assert!((0..=2).contains(&passed) && now > before, "{before} {now}");
    }
}
