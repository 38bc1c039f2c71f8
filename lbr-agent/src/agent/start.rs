//! How long the parts of a start took. They overlap: the kernel verifies the programs while objects are listed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Programs that the kernel still verifies.
pub struct Loading {
    /// Is told when the kernel has done so.
    pub loaded: oneshot::Receiver<()>,
    /// Gets the kernel ids of the programs as soon as they have replaced those of a former agent.
    pub then: Box<dyn FnOnce(BTreeMap<String, u32>) -> anyhow::Result<()> + Send>,
}

impl fmt::Debug for Loading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Loading")
    }
}

/// Waits for the programs. `None`: for ever.
pub(super) async fn loaded(loading: &mut Option<Loading>) {
    match loading {
        // Without a sender, attaching reports why.
        Some(loading) => drop((&mut loading.loaded).await),
        None => std::future::pending().await,
    }
}

/// The parts of a start, until the agent is ready.
#[derive(Debug)]
pub(super) struct Start {
    began: Instant,
    listed: Option<Duration>,
    loaded: Option<Duration>,
    compiled: Duration,
    written: Duration,
    in_force: Option<Duration>,
}

impl Start {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            listed: None,
            loaded: None,
            compiled: Duration::ZERO,
            written: Duration::ZERO,
            in_force: None,
        }
    }

    /// Every kind has been listed and decoded.
    pub(super) fn listed(&mut self) {
        self.listed.get_or_insert_with(|| self.began.elapsed());
    }

    /// The programs are loaded, and have replaced those of a former agent.
    pub(super) fn loaded(&mut self) {
        self.loaded.get_or_insert_with(|| self.began.elapsed());
    }

    /// Adds a round. `in_force`: Services and policies wait for nothing.
    pub(super) fn round(&mut self, compiled: Duration, written: Duration, in_force: bool) {
        self.compiled += compiled;
        self.written += written;
        if in_force {
            self.in_force.get_or_insert_with(|| self.began.elapsed());
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: Option<Duration>| Shown(part.unwrap_or_default());
        write!(
            f,
            "in {}: list {}, load {}, compile {}, write {}; Services and policies in force after {}",
            Shown(self.began.elapsed()),
            part(self.listed),
            part(self.loaded),
            Shown(self.compiled),
            Shown(self.written),
            part(self.in_force)
        )
    }
}

/// A duration to the millisecond.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_that_of_its_first_time() {
        let began = Instant::now() - Duration::from_secs(10);
        let mut start = Start::new(began);
        let ms = Duration::from_millis;
        start.listed();
        start.round(ms(100), ms(20), false);
        start.loaded();
        start.round(ms(10), ms(3), true);
        (start.listed, start.loaded, start.in_force) = (Some(ms(1_500)), Some(ms(2_000)), Some(ms(2_250)));
        start.listed();
        start.loaded();
        start.round(ms(0), ms(0), true);
        let text = start.to_string();
        assert!(text.starts_with("in 10.0"), "{text}");
        let parts = ": list 1.500 s, load 2.000 s, compile 0.110 s, write 0.023 s; Services and policies in force after \
                     2.250 s";
        assert!(text.ends_with(parts), "{text}");
    }
}
