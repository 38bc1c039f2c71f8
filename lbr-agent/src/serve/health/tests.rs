use super::*;

/// A clock that the test sets.
struct Clock(Moment);

impl Clock {
    /// 2026-01-31T08:15:30.25Z.
    fn start() -> Self {
        Self(Moment { clock: Instant::now(), wall: wall(1_769_847_330, 250_000_000) })
    }

    /// So many milliseconds after the start.
    fn at(&self, milliseconds: u64) -> Moment {
        let passed = Duration::from_millis(milliseconds);
        Moment { clock: self.0.clock + passed, wall: self.0.wall + passed }
    }
}

fn wall(seconds: u64, nanoseconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
}

fn health() -> Health {
    Health::new(TIMEOUT, true)
}

/// A state that was in force, with a node, 1.75 seconds after the start.
fn in_force(clock: &Clock) -> Health {
    let mut health = health();
    health.queued(clock.at(0));
    health.synced(clock.at(1000));
    health.node(Some(NodeState::default()));
    health.applied(clock.at(1750));
    health
}

#[test]
fn times_are_printed_as_go_prints_them() {
    for (seconds, nanoseconds, expected) in [
        (0, 0, "1970-01-01T00:00:00Z"),
        (1_769_847_330, 0, "2026-01-31T08:15:30Z"),
        (1_769_847_330, 250_000_000, "2026-01-31T08:15:30.25Z"),
        (1_769_847_330, 1_000, "2026-01-31T08:15:30.000001Z"),
        (1_769_847_330, 123_456_789, "2026-01-31T08:15:30.123456789Z"),
        (1_769_847_330, 123_456_780, "2026-01-31T08:15:30.12345678Z"),
    ] {
        let at = Moment { clock: Instant::now(), wall: wall(seconds, nanoseconds) };
        assert_eq!(go_time(Some(at)), expected);
    }
    assert_eq!(go_time(None), "0001-01-01T00:00:00Z");
}

#[test]
fn before_anything_happened_it_is_healthy_and_has_no_status() {
    let (clock, health) = (Clock::start(), health());
    let expected = r#"{"lastUpdated":"2026-01-31T08:15:30.25Z","currentTime":"2026-01-31T08:15:30.25Z","nodeEligible":true,"healthy":true}"#;
    assert_eq!(health.healthz(clock.at(0)), Report { is_ok: true, body: expected.to_owned() });
    let expected =
        r#"{"lastUpdated":"2026-01-31T08:15:30.25Z","currentTime":"2026-01-31T08:15:30.25Z","healthy":true}"#;
    assert_eq!(health.livez(clock.at(0)), Report { is_ok: true, body: expected.to_owned() });
}

#[test]
fn a_healthy_proxy() {
    let clock = Clock::start();
    let health = in_force(&clock);
    let expected = concat!(
        r#"{"lastUpdated":"2026-01-31T08:15:40.25Z","currentTime":"2026-01-31T08:15:40.25Z","#,
        r#""nodeEligible":true,"healthy":true,"status":{"#,
        r#""IPv4":{"lastUpdated":"2026-01-31T08:15:32Z","healthy":true},"#,
        r#""IPv6":{"lastUpdated":"2026-01-31T08:15:32Z","healthy":true}}}"#
    );
    assert_eq!(health.healthz(clock.at(10_000)), Report { is_ok: true, body: expected.to_owned() });
    let expected = expected.replace(r#""nodeEligible":true,"#, "");
    assert_eq!(health.livez(clock.at(10_000)), Report { is_ok: true, body: expected });
}

#[test]
fn a_late_change_makes_both_unhealthy() {
    let clock = Clock::start();
    let mut health = in_force(&clock);
    health.queued(clock.at(2000));
    let expected = concat!(
        r#"{"lastUpdated":"2026-01-31T08:15:32Z","currentTime":"2026-01-31T08:16:32.25Z","#,
        r#""nodeEligible":true,"healthy":false,"status":{"#,
        r#""IPv4":{"lastUpdated":"2026-01-31T08:15:32Z","healthy":false},"#,
        r#""IPv6":{"lastUpdated":"2026-01-31T08:15:32Z","healthy":false}}}"#
    );
    assert_eq!(health.healthz(clock.at(62_000)), Report { is_ok: false, body: expected.to_owned() });
    let expected = expected.replace(r#""nodeEligible":true,"#, "");
    assert_eq!(health.livez(clock.at(62_000)), Report { is_ok: false, body: expected });
}

#[test]
fn a_change_is_late_after_twice_the_sync_period_and_not_before() {
    let clock = Clock::start();
    let mut health = in_force(&clock);
    health.queued(clock.at(2000));
    assert!(health.is_healthy(clock.at(61_999)));
    assert!(!health.is_healthy(clock.at(62_000)));
}

#[test]
fn the_oldest_change_counts_until_all_is_in_force() {
    let clock = Clock::start();
    let mut health = in_force(&clock);
    health.queued(clock.at(2000));
    health.queued(clock.at(50_000));
    assert!(!health.is_healthy(clock.at(62_000)));
    health.applied(clock.at(63_000));
    assert!(health.is_healthy(clock.at(63_000)));
    health.queued(clock.at(64_000));
    assert!(health.is_healthy(clock.at(123_999)));
    assert!(!health.is_healthy(clock.at(124_000)));
}

#[test]
fn a_long_silence_is_no_illness() {
    let clock = Clock::start();
    let health = in_force(&clock);
    let month = 30 * 24 * 3_600_000;
    assert!(health.healthz(clock.at(month)).is_ok && health.livez(clock.at(month)).is_ok);
}

#[test]
fn what_waits_for_the_first_lists_is_not_late() {
    let clock = Clock::start();
    let mut health = health();
    health.queued(clock.at(0));
    assert!(health.is_healthy(clock.at(1_000_000)), "an API server that cannot be reached");
    health.synced(clock.at(1_000_000));
    health.synced(clock.at(1_030_000));
    assert!(health.is_healthy(clock.at(1_059_999)));
    assert!(!health.is_healthy(clock.at(1_060_000)), "nothing was ever written");
    let body = health.livez(clock.at(1_060_000)).body;
    assert!(
        body.starts_with(r#"{"lastUpdated":"0001-01-01T00:00:00Z","#) && !body.contains("status"),
        "{body}"
    );
}

#[test]
fn only_healthz_asks_for_the_node() {
    let clock = Clock::start();
    let leaves = NodeState { is_deleting: true, is_to_be_deleted: false };
    let tainted = NodeState { is_deleting: false, is_to_be_deleted: true };
    for node in [None, Some(leaves), Some(tainted)] {
        let mut health = in_force(&clock);
        health.node(node);
        let expected = concat!(
            r#"{"lastUpdated":"2026-01-31T08:15:32Z","currentTime":"2026-01-31T08:15:40.25Z","#,
            r#""nodeEligible":false,"healthy":true,"status":{"#,
            r#""IPv4":{"lastUpdated":"2026-01-31T08:15:32Z","healthy":true},"#,
            r#""IPv6":{"lastUpdated":"2026-01-31T08:15:32Z","healthy":true}}}"#
        );
        assert_eq!(
            health.healthz(clock.at(10_000)),
            Report { is_ok: false, body: expected.to_owned() },
            "{node:?}"
        );
        assert!(health.livez(clock.at(10_000)).is_ok, "{node:?}");
        health.node(Some(NodeState::default()));
        assert!(health.healthz(clock.at(10_000)).is_ok, "{node:?}");
    }
}

#[test]
fn a_folder_need_not_describe_nodes_but_may() {
    let mut health = Health::new(TIMEOUT, false);
    health.node(None);
    assert!(health.is_node_eligible());
    health.node(Some(NodeState::default()));
    health.node(None);
    assert!(!health.is_node_eligible(), "it was described, and is gone");
}

#[test]
fn a_clock_that_is_set_back_makes_nothing_late() {
    let clock = Clock::start();
    let mut health = in_force(&clock);
    health.queued(clock.at(2000));
    let now = Moment { wall: wall(0, 0), ..clock.at(3000) };
    assert!(health.is_healthy(now));
    let now = Moment { wall: clock.at(0).wall + TIMEOUT * 100, ..clock.at(3000) };
    assert!(health.is_healthy(now));
}
