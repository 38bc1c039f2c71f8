//! A client that never pauses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lbr_tests::probe::Client;

/// New connections one after another; none may fail.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<usize>>,
}

impl Load {
    /// Connects to each of these in turn, by TCP and UDP.
    pub(crate) fn start(client: Client, to: [SocketAddr; 2]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !told.load(Ordering::Relaxed) {
                for to in to {
                    client.tcp(to).with_context(|| format!("connection {count}"))?;
                    client.udp(to).with_context(|| format!("datagram {count}"))?;
                    count += 2;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(count)
        });
        Self { stop, thread }
    }

    /// Stops, and returns the number of requests.
    pub(crate) fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the load panicked"))?
    }
}
