//! A long-lived connection that measures stalls.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::client::read_line;
use super::{Client, Identity, WHO};

/// The statistics of a long-lived connection.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answers received.
    pub answers: usize,
    /// Answers that took longer than the limit.
    pub stalls: usize,
    /// The longest wait for an answer.
    pub worst: Duration,
    /// The server of the last answer.
    pub last: Option<Identity>,
    /// The error that ended the connection, if any.
    pub error: Option<String>,
}

/// Sends requests over one TCP connection, until stopped or dropped.
#[derive(Debug)]
pub struct LongLived {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Report>>,
}

impl LongLived {
    /// Connects and begins: one request every `interval`; an answer after more than `limit` is a stall.
    pub fn start(client: &Client, to: SocketAddr, interval: Duration, limit: Duration) -> Result<Self> {
        let mut stream = client.tcp_stream(to)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut report = Report::default();
            while !told.load(Ordering::Relaxed) {
                let begin = Instant::now();
                let answer = writeln!(stream, "{WHO}")
                    .map_err(Into::into)
                    .and_then(|()| read_line(&stream))
                    .and_then(|line| line.parse::<Identity>());
                let waited = begin.elapsed();
                report.worst = report.worst.max(waited);
                report.stalls += usize::from(waited > limit);
                match answer {
                    Ok(identity) => report.last = Some(identity),
                    Err(error) => {
                        report.error = Some(format!("{error:#}"));
                        return report;
                    }
                }
                report.answers += 1;
                std::thread::sleep(interval);
            }
            report
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it, and returns its statistics.
    pub fn stop(mut self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or_else(|| anyhow!("stopped already"))?;
        thread.join().map_err(|_| anyhow!("the connection's thread panicked"))
    }
}

impl Drop for LongLived {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
