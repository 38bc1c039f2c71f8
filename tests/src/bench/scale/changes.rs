//! Changes of endpoints: one at a time, and many in each second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use lbr_common::service::Frontend;

use super::agent::{Agent, Maps};
use super::objects::{Change, Cluster};
use crate::apiserver::Server;
use crate::interrupt;

/// Time for the agent to finish its work after a change is in force.
const PAUSE: Duration = Duration::from_millis(20);
/// Time between two looks at the maps.
const LOOK: Duration = Duration::from_micros(100);
/// The longest time that a change may take.
const LONGEST: Duration = Duration::from_secs(60);
/// One of so many sustained changes is timed.
const SAMPLE: u32 = 5;

/// What changes cost.
pub(super) struct Cost {
    /// From the server's answer to the writer until the change is in force, in ascending order.
    pub(super) times: Vec<Duration>,
    /// CPU time of the agent for each change.
    pub(super) cpu: Duration,
    /// The same as a share of one CPU.
    pub(super) share: f64,
    /// Changes in each second.
    pub(super) rate: f64,
}

/// A change that is timed.
struct Timed {
    change: Change,
    service: Frontend,
    begin: Instant,
}

impl Timed {
    fn new(change: Change, maps: &Maps) -> Result<Self> {
        let service = maps.service(change.service)?;
        ensure!(!maps.leads_to(&service, change.new)?, "{} is there already", change.new);
        Ok(Self { change, service, begin: Instant::now() })
    }

    /// The time that it took, if it is in force.
    fn took(&self, maps: &Maps) -> Result<Option<Duration>> {
        let took = self.begin.elapsed();
        ensure!(took < LONGEST, "{} is not in force after {LONGEST:?}", self.change.new);
        Ok(maps.leads_to(&self.service, self.change.new)?.then_some(took))
    }
}

/// Changes with these numbers, each after the one before is in force and the agent rests.
pub(super) fn one_by_one(
    numbers: std::ops::Range<u32>,
    cluster: Cluster,
    server: &Server,
    agent: &Agent,
    maps: &Maps,
) -> Result<Cost> {
    let (count, mut times) = (numbers.len(), Vec::new());
    let (before, began) = (agent.cpu_time()?, Instant::now());
    for number in numbers {
        interrupt::check()?;
        let mut timed = Timed::new(cluster.change(number), maps)?;
        server.put(timed.change.object.take())?;
        times.push(loop {
            match timed.took(maps)? {
                Some(took) => break took,
                None => std::thread::sleep(LOOK),
            }
        });
        std::thread::sleep(PAUSE);
    }
    cost(times, count, agent.cpu_time()? - before, began.elapsed())
}

/// So many changes in each second, for a time, from this number on.
pub(super) fn sustained(
    first: u32,
    rate: u32,
    time: Duration,
    cluster: Cluster,
    server: &Server,
    agent: &Agent,
    maps: &Maps,
) -> Result<Cost> {
    let (mut times, mut waiting) = (Vec::new(), VecDeque::<Timed>::new());
    let (before, began) = (agent.cpu_time()?, Instant::now());
    let mut sent = 0;
    while began.elapsed() < time || !waiting.is_empty() {
        interrupt::check()?;
        let is_due = began.elapsed() >= Duration::from_secs(1) * sent / rate;
        if is_due && began.elapsed() < time {
            let mut change = cluster.change(first + sent);
            let object = change.object.take();
            if sent % SAMPLE == 0 {
                waiting.push_back(Timed::new(change, maps)?);
            }
            server.put(object)?;
            sent += 1;
        } else {
            std::thread::sleep(LOOK);
        }
        while let Some(took) = waiting.front().map(|timed| timed.took(maps)).transpose()?.flatten() {
            times.push(took);
            waiting.pop_front();
        }
    }
    cost(times, sent as usize, agent.cpu_time()? - before, began.elapsed())
}

/// Endpoints go on changing while an agent is replaced, and a Service comes while none runs. Returns the time from the start
/// of the new process until the Service is in force.
pub(super) fn replaced(
    first: u32,
    rate: u32,
    cluster: Cluster,
    server: &Server,
    maps: &Maps,
    start: impl FnOnce() -> Result<Agent>,
) -> Result<(Agent, Duration)> {
    let new = cluster.one_more();
    for object in new.objects {
        server.put(object)?;
    }
    let began = Instant::now();
    let agent = start()?;
    let mut sent = 0;
    loop {
        interrupt::check()?;
        let took = began.elapsed();
        if let Ok(service) = maps.service(new.ip)
            && maps.leads_to(&service, new.last)?
        {
            return Ok((agent, took));
        }
        ensure!(took < LONGEST, "{} is not in force after {LONGEST:?}", new.ip);
        if took >= Duration::from_secs(1) * sent / rate {
            server.put(cluster.change(first + sent).object)?;
            sent += 1;
        }
        std::thread::sleep(LOOK);
    }
}

fn cost(mut times: Vec<Duration>, count: usize, cpu: Duration, whole: Duration) -> Result<Cost> {
    times.sort();
    let changes = u32::try_from(count).context("too many changes")?.max(1);
    let seconds = whole.as_secs_f64();
    Ok(Cost {
        times,
        cpu: cpu / changes,
        share: cpu.as_secs_f64() / seconds,
        rate: f64::from(changes) / seconds,
    })
}
