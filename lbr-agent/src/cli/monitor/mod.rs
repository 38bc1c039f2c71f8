//! `lbr monitor`: denials as they happen.

mod clock;
mod line;

use std::io::{ErrorKind, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use lbr_common::maps::{self, MapSpec};
use lbr_common::policy::Event;
use tokio::signal::unix::{SignalKind, signal};

use self::clock::Clock;
use self::line::{Filter, Line};
use super::args::MonitorArgs;
use crate::dataplane::{Events, Pinned};
use crate::desired::Desired;

/// The maps that hold names.
const NAMES: &[MapSpec] = &[maps::POD_NAMES, maps::SET_MEMBERS, maps::POLICIES];

/// Maximum age of names: a storm of denials should not read all pods' names again and again.
const NAMES_AGE: Duration = Duration::from_secs(1);

/// Prints events until SIGINT or SIGTERM, or until the output has no reader any more.
pub fn monitor(args: &MonitorArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: &MonitorArgs) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let pinned = Pinned::open(&args.bpffs)?;
    let clock = Clock::start()?;
    let mut filter = Filter { since: clock.begin(), audit: args.audit, missed: 0 };
    let mut events = pinned.events()?;
    let mut names = Names { pinned, tables: Desired::default(), read: None };
    loop {
        let batch = tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            batch = next(&mut events) => batch?,
        };
        let wanted: Vec<Event> = batch.into_iter().filter_map(|event| filter.pass(event)).collect();
        if wanted.is_empty() {
            continue;
        }
        let tables = names.now()?;
        for event in &wanted {
            let line = Line::new(tables, event, clock.local(event.time)?);
            let text = if args.json { serde_json::to_string(&line)? } else { line.to_string() };
            if !write(&text)? {
                return Ok(());
            }
        }
    }
}

async fn next(events: &mut Events) -> anyhow::Result<Vec<Event>> {
    events.take().await.context("wait for events")
}

/// Whether the output still has a reader.
fn write(line: &str) -> anyhow::Result<bool> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(true),
    }
}

/// Names from the maps, read again when they are too old.
struct Names {
    pinned: Pinned,
    tables: Desired,
    read: Option<Instant>,
}

impl Names {
    fn now(&mut self) -> anyhow::Result<&Desired> {
        if self.read.is_none_or(|read| read.elapsed() >= NAMES_AGE) {
            self.tables = self.pinned.tables_of(NAMES)?;
            self.read = Some(Instant::now());
        }
        Ok(&self.tables)
    }
}
