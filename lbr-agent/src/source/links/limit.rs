//! How soon an event is followed by a look. Pure: the caller passes the time.
//!
//! Pods cause events at will. Each link has a few looks at once, and then one in each [`PERIOD`]. A link that uses up
//! its looks delays no other.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// The time between two looks for the events of one link, in the long run.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// Looks of each link.
#[derive(Debug)]
pub(super) struct Limit {
    /// How many looks a link may have at once.
    burst: u32,
    links: BTreeMap<u32, Looks>,
}

#[derive(Clone, Copy, Debug)]
struct Looks {
    /// When the last look would be due without a burst.
    last: Instant,
    /// A look is due.
    waits: bool,
}

impl Limit {
    pub(super) fn new(burst: u32) -> Self {
        Self { burst, links: BTreeMap::new() }
    }

    /// When to look because of an event of a link, not before `soonest`. `None`: a look is due already.
    pub(super) fn event(&mut self, link: u32, soonest: Instant) -> Option<Instant> {
        let looks = self.links.entry(link).or_insert(Looks { last: soonest, waits: false });
        if std::mem::replace(&mut looks.waits, true) {
            return None;
        }
        let ahead = PERIOD * self.burst.saturating_sub(1);
        let due = looks.last.checked_sub(ahead).map_or(soonest, |first| first.max(soonest));
        looks.last = looks.last.max(soonest) + PERIOD;
        Some(due)
    }

    /// Records that everything due has been looked at. Forgets links that have all their looks again.
    pub(super) fn looked(&mut self, now: Instant) {
        self.links.retain(|_, looks| looks.last > now);
        self.links.values_mut().for_each(|looks| looks.waits = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(15);

    /// The looks of a link whose events never end, within a time.
    fn flood(limit: &mut Limit, link: u32, begin: Instant, lasts: Duration) -> Vec<Duration> {
        let (mut looks, mut now, mut due) = (Vec::new(), begin, None);
        while now < begin + lasts {
            due = due.or(limit.event(link, now + SOON));
            if due.is_some_and(|at| at <= now) {
                looks.push(now - begin);
                limit.looked(now);
                due = None;
            }
            now += Duration::from_millis(1);
        }
        looks
    }

    #[test]
    fn a_flood_has_its_burst_and_then_one_look_in_each_period() {
        let begin = Instant::now();
        let mut limit = Limit::new(4);
        let looks = flood(&mut limit, 5, begin, PERIOD * 10);
        assert!((12..=15).contains(&looks.len()), "{looks:?}");
        assert!(looks[3] < Duration::from_millis(100) && looks[4] > Duration::from_millis(800), "{looks:?}");
        let slow = looks[4..].windows(2).all(|pair| pair[1] - pair[0] >= PERIOD - SOON);
        assert!(slow, "{looks:?}");
    }

    #[test]
    fn another_link_does_not_wait_for_the_one_that_floods() {
        let begin = Instant::now();
        let mut limit = Limit::new(4);
        flood(&mut limit, 5, begin, PERIOD * 10);
        let now = begin + PERIOD * 10;
        assert!(limit.event(5, now).is_none_or(|due| due > now));
        assert_eq!(limit.event(6, now), Some(now));
        assert_eq!(limit.event(6, now), None, "it waits for that one");
        limit.looked(now);
        assert_eq!(limit.event(6, now + SOON), Some(now + SOON));
        // A link that is silent for a while has its whole burst again.
        limit.looked(now + PERIOD * 20);
        assert_eq!(limit.links.len(), 0);
    }
}
