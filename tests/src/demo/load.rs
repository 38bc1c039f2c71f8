//! Requests that continue while the demo changes objects.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

use crate::interrupt;
use crate::probe::Client;

/// One new connection after another, each with one request, without retries.
#[derive(Debug)]
pub(super) struct Load {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    spread: BTreeMap<String, usize>,
    last: BTreeMap<String, Instant>,
    total: usize,
    failures: Vec<String>,
}

impl Load {
    pub(super) fn start(client: Client, target: SocketAddr) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            while !lock(&shared).stop {
                let answer = client.tcp(target);
                let mut state = lock(&shared);
                state.total += 1;
                match answer {
                    Ok(identity) => {
                        state.last.insert(identity.name.clone(), Instant::now());
                        *state.spread.entry(identity.name).or_default() += 1;
                    }
                    Err(error) => state.failures.push(format!("{error:#}")),
                }
                drop(state);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { state, thread: Some(thread) }
    }

    /// Waits until a backend has had no request for a while (`here` false), or has one again (true). Returns the time
    /// from now to the last, or the first, request.
    pub(super) fn wait(&self, name: &str, here: bool) -> Result<Duration> {
        const SILENCE: Duration = Duration::from_millis(500);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            interrupt::check()?;
            let last = lock(&self.state).last.get(name).copied().filter(|last| *last > begin);
            match (here, last) {
                (true, Some(first)) => return Ok(first - begin),
                (false, last) if last.unwrap_or(begin).elapsed() > SILENCE => {
                    return Ok(last.map_or(Duration::ZERO, |last| last - begin));
                }
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        bail!("{name} is {} after 10 seconds", if here { "not asked" } else { "still asked" })
    }

    /// The spread over the next `time`.
    pub(super) fn sample(&self, time: Duration) -> Result<BTreeMap<String, usize>> {
        lock(&self.state).spread.clear();
        let begin = Instant::now();
        while begin.elapsed() < time {
            interrupt::check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(lock(&self.state).spread.clone())
    }

    /// Ends it: the number of requests, and the errors of those that failed.
    pub(super) fn stop(mut self) -> Result<(usize, Vec<String>)> {
        lock(&self.state).stop = true;
        let thread = self.thread.take().ok_or_else(|| anyhow!("stopped already"))?;
        thread.join().map_err(|_| anyhow!("the requests' thread panicked"))?;
        let mut state = lock(&self.state);
        Ok((state.total, std::mem::take(&mut state.failures)))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        lock(&self.state).stop = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
