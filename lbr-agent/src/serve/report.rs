//! What the agent last reported, for `lbr status`: who it is, what it reads, and what is in force. It stays beside the pins
//! when the agent ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::observer::Observer;
use crate::dataplane::write_report;
use crate::source::manifest::Contact;

/// How often the agent looks whether its report has changed.
const LOOK: Duration = Duration::from_secs(1);

/// How often it reports without a change, so that one that hangs can be told from one that has nothing to do.
pub const REPORT: Duration = Duration::from_secs(10);

/// Longer texts are cut: a report has to fit into 4,095 bytes.
const MAX_TEXT: usize = 800;

/// A report. Times are RFC 3339 in UTC. Fields of other versions are left out, or have their default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Version of the agent.
    pub version: String,
    /// SHA-256 of the kernel object that it loaded.
    pub object: String,
    /// Kernel ids of the programs that it loaded, by name.
    pub programs: BTreeMap<String, u32>,
    /// Name of the node.
    pub node: String,
    /// Process id of the agent, in its own PID namespace.
    pub process: u32,
    /// Name of its pod, if it runs in one.
    pub pod: Option<String>,
    /// When its programs were in place.
    pub started: String,
    /// When this report was written.
    pub written: String,
    /// When the agent ended, if it was not killed.
    pub stopped: Option<String>,
    /// What it reads.
    pub source: Source,
    /// Whether every kind of object has been listed.
    pub synced: bool,
    /// When the last change came in.
    pub changed: Option<String>,
    /// When everything was last in force.
    pub applied: Option<String>,
    /// Map entries that differ from the desired state.
    pub pending: usize,
    /// Writes of the last round that failed or had no room.
    pub problems: usize,
    /// Accepted objects by kind.
    pub objects: BTreeMap<String, usize>,
}

/// What an agent reads.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// `folder` or `api-server`.
    pub kind: String,
    /// The folder, or the URL.
    pub place: String,
    /// Seconds for which it could not be read when the report was written; 0 if all was well.
    pub silent_seconds: f64,
}

impl Report {
    /// Reads a report of any version.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Writes reports until the process ends. Clones share one state.
#[derive(Clone, Debug)]
pub struct Reporter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bpffs: PathBuf,
    about: Report,
    observer: Observer,
    /// The folder, if that is the source.
    folder: Option<Arc<Contact>>,
    /// `None`: the agent has stopped, and its last report stays.
    last: Mutex<Option<Last>>,
}

#[derive(Debug, Default)]
struct Last {
    report: Report,
    at: Option<Instant>,
}

impl Reporter {
    /// Writes the first report, and starts the thread that writes the others. `about`: what does not change.
    pub fn start(
        observer: &Observer,
        folder: Option<Arc<Contact>>,
        bpffs: PathBuf,
        mut about: Report,
    ) -> anyhow::Result<Self> {
        about.started = now();
        about.source.place = cut(about.source.place);
        let last = Mutex::new(Some(Last::default()));
        let reporter = Self(Arc::new(Shared { bpffs, about, observer: observer.clone(), folder, last }));
        reporter.look();
        let own = reporter.clone();
        let thread = std::thread::Builder::new().name("report".to_owned());
        thread
            .spawn(move || {
                while own.look() {
                    std::thread::sleep(LOOK);
                }
            })
            .context("start a thread")?;
        Ok(reporter)
    }

    /// Writes the last report.
    pub fn stop(&self) {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        let report = Report { stopped: Some(now()), ..self.report() };
        self.write(&report);
        *last = None;
    }

    /// Writes a report if there is something to report. False after [`Self::stop`].
    fn look(&self) -> bool {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = last.as_mut() else { return false };
        let report = self.report();
        if !is_same(&report, &last.report) || last.at.is_none_or(|at| at.elapsed() >= REPORT) {
            self.write(&report);
            *last = Last { report, at: Some(Instant::now()) };
        }
        true
    }

    fn report(&self) -> Report {
        let figures = self.0.observer.snapshot();
        let about = self.0.about.clone();
        let folder = self.0.folder.as_ref().map(|folder| folder.silent_for());
        let silent = folder.or_else(|| self.0.observer.silence()).unwrap_or_default();
        Report {
            written: now(),
            source: Source { silent_seconds: silent.as_secs_f64(), ..about.source },
            synced: figures.is_synced,
            changed: figures.queued.map(time),
            applied: figures.applied.map(time),
            pending: figures.pending,
            problems: figures.problems,
            objects: figures.objects.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            ..about
        }
    }

    /// A report that cannot be written costs nothing else.
    fn write(&self, report: &Report) {
        let written = serde_json::to_string(report)
            .map_err(std::io::Error::other)
            .and_then(|text| write_report(&self.0.bpffs, &text));
        if let Err(error) = written {
            tracing::debug!("report for `lbr status`: {error}");
        }
    }
}

/// Whether two reports differ in their times only.
fn is_same(a: &Report, b: &Report) -> bool {
    let is_silent = |report: &Report| report.source.silent_seconds > 0.0;
    let timeless = |report: &Report| Report {
        written: String::new(),
        source: Source { silent_seconds: 0.0, ..report.source.clone() },
        ..report.clone()
    };
    is_silent(a) == is_silent(b) && timeless(a) == timeless(b)
}

fn now() -> String {
    time(SystemTime::now())
}

/// RFC 3339 to the millisecond.
fn time(at: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(at).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn cut(text: String) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::super::health::Moment;
    use super::super::observer::Note;
    use super::*;

    #[test]
    fn a_report_is_written_at_once_after_a_change_and_at_the_end() {
        let dir = std::env::temp_dir().join(format!("lbr-report-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let read =
            || Report::parse(&std::fs::read_link(dir.join("report")).unwrap().to_string_lossy()).unwrap();
        let observer = Observer::new(Origin::ApiServer(Box::new(|| Duration::from_secs(7)))).unwrap();
        let source = Source { kind: "api-server".into(), place: "x".repeat(10_000), ..Source::default() };
        let about = Report { node: "n1".into(), process: 5, source, ..Report::default() };
        let reporter = Reporter::start(&observer, None, dir.clone(), about).unwrap();
        let first = read();
        observer.queued(Note::default(), Moment::now());
        let (is_there, second) = (reporter.look(), read());
        let unchanged = (reporter.look(), read());
        reporter.stop();
        let (is_gone, last) = (!reporter.look(), read());
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!((first.node.as_str(), first.process, first.source.silent_seconds), ("n1", 5, 7.0));
        assert!(first.changed.is_none() && first.stopped.is_none() && first.started <= first.written);
        assert!(first.source.place.len() < 1_000);
        assert!(is_there && second.changed.is_some());
        assert_eq!(unchanged, (true, second));
        assert!(is_gone && last.stopped.is_some());
    }

    #[test]
    fn reports_of_other_versions_are_read() {
        let report = Report::parse(r#"{"version": "9", "later": {"a": 1}}"#).unwrap();
        assert_eq!((report.version.as_str(), report.synced), ("9", false));
        assert_eq!(Report::parse("version 1, process 2"), None);
    }
}
