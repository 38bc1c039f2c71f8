//! Objects from an API server: each kind is listed and watched, and the result is one stream of changes.
//!
//! ```text
//! watch.rs, one task for each kind ──> Seen ──> ledger.rs (pure) ──> Change
//! ```
//!
//! All of it runs on its own thread, so that reading a large list delays nothing else. lbr keeps asking an unreachable
//! API server, and keeps the last state.

mod connect;
mod events;
mod keep;
mod ledger;
mod raw;
mod watch;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;

pub use connect::ApiServer;
pub use events::Pace;
pub use watch::Contact;

use self::ledger::{Ledger, Seen};
use self::watch::Watch;
use crate::cluster::Change;
use crate::events::Events;
use crate::model::Kind;

/// Events that wait for the ledger.
const QUEUE: usize = 256;

/// The API server as a source.
pub struct ApiSource {
    config: kube::Config,
    contact: Arc<Contact>,
    events: Option<events::Writer>,
}

impl std::fmt::Debug for ApiSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiSource").field("contact", &self.contact).finish_non_exhaustive()
    }
}

impl ApiSource {
    /// A source for this API server. Sends nothing yet.
    pub async fn open(server: &ApiServer) -> anyhow::Result<Self> {
        Ok(Self { config: server.config().await?, contact: Arc::new(Contact::default()), events: None })
    }

    /// Where the API server is.
    pub fn url(&self) -> String {
        self.config.cluster_url.to_string()
    }

    /// How long the API server has not answered.
    pub fn contact(&self) -> Arc<Contact> {
        Arc::clone(&self.contact)
    }

    /// The queue of Events that this node writes.
    pub fn events(&mut self, node: &str, pace: Pace) -> Events {
        let (events, queue, counters) = Events::queue();
        self.events = Some(events::Writer { node: node.to_owned(), pace, queue, counters });
        events
    }

    /// Reads until the receiver is gone. Returns at once.
    pub fn spawn(self, changes: mpsc::Sender<Change>) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("kube".to_owned());
        // The client's connections belong to the runtime in which it is made.
        let run = async move {
            match kube::Client::try_from(self.config) {
                Ok(client) => {
                    let writer = self.events.map(|writer| tokio::spawn(writer.run(client.clone())));
                    read(client, self.contact, changes).await;
                    writer.iter().for_each(tokio::task::JoinHandle::abort);
                }
                Err(error) => tracing::error!("no client for the API server: {error}"),
            }
        };
        thread.spawn(move || runtime.block_on(run)).context("start a thread")?;
        Ok(())
    }
}

/// Reads until the receiver is gone.
async fn read(client: kube::Client, contact: Arc<Contact>, changes: mpsc::Sender<Change>) {
    let (sender, mut seen) = mpsc::channel(QUEUE);
    let mut tasks = tokio::task::JoinSet::new();
    for kind in Kind::ALL {
        let watch = Watch { client: client.clone(), contact: Arc::clone(&contact), sender: sender.clone() };
        tasks.spawn(watch::run(kind, watch));
    }
    drop(sender);
    if changes.send(Change::Origin(None, ledger::ORIGIN.to_owned())).await.is_err() {
        return;
    }
    let mut ledger = Ledger::default();
    while let Some(event) = seen.recv().await {
        if let Seen::Listed(kind) = &event {
            tracing::info!("listed {}", kind.as_str());
        }
        let mut list = ledger.apply(event);
        for rejected in ledger.take_new() {
            tracing::warn!("{rejected}");
        }
        // Many rejections at once are sent together.
        if seen.is_empty() {
            list.extend(ledger.rejected());
        }
        for change in list {
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }
}
