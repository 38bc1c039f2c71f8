//! HTTP: kube-proxy's health and metrics, on the same ports by the same names.
//!
//! ```text
//! agent ──> Observer ──> health ──> /healthz /livez        (--healthz-bind-address)
//!                   └──> metrics ─> /metrics ...           (--metrics-bind-address)
//!                        slis ────> /metrics/slis
//!              pinned maps ──^
//!        agent ──> Observer ──> health check ports of Services   (any path)
//!                          └──> report ─> pin folder   (lbr status)
//! ```
//!
//! The agent reports to an [`Observer`] and never waits for a reader. Each of the two servers has its own thread, and
//! health check ports share a third one: a probe is answered while the agent compiles, and during a scrape.

mod bind;
pub mod health;
mod health_ports;
mod http;
pub mod metrics;
mod observer;
mod pages;
pub mod report;
mod slis;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

pub use health_ports::start as start_health_ports;
pub use observer::{Note, Observer, Origin, Round};

use http::Pages;
use metrics::{Exporter, KernelMaps};

/// kube-proxy's ports.
pub const HEALTHZ_PORT: u16 = 10256;
/// See [`HEALTHZ_PORT`].
pub const METRICS_PORT: u16 = 10249;

/// Delay before the next try to listen, as in kube-proxy.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// `--healthz-bind-address`.
    pub healthz: Option<SocketAddr>,
    /// `--metrics-bind-address`.
    pub metrics: Option<SocketAddr>,
    /// `--bind-address-hard-fail`: an address that cannot be listened on is an error. Otherwise lbr keeps trying.
    pub hard_fail: bool,
}

/// Addresses that the servers listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// `None`: off, or not possible yet.
    pub healthz: Option<SocketAddr>,
    /// As `healthz`.
    pub metrics: Option<SocketAddr>,
}

/// Starts both servers, each in a thread that lives as long as the process. `bpffs`: where the maps are pinned.
/// `config`: for `/configz`.
pub fn start(
    addresses: &Addresses,
    observer: &Observer,
    bpffs: PathBuf,
    config: &Value,
) -> anyhow::Result<Listening> {
    let hard_fail = addresses.hard_fail;
    let mut listening = Listening::default();
    if let Some(address) = addresses.healthz {
        let server = Server { flag: "--healthz-bind-address", address, observer: observer.clone() };
        listening.healthz = server.start(pages::health(observer.clone()), hard_fail)?;
    }
    if let Some(address) = addresses.metrics {
        let server = Server { flag: "--metrics-bind-address", address, observer: observer.clone() };
        let exporter = Exporter::new(observer.clone(), KernelMaps::new(bpffs));
        listening.metrics = server.start(pages::metrics(exporter, config), hard_fail)?;
    }
    Ok(listening)
}

/// One of the two servers.
struct Server {
    flag: &'static str,
    address: SocketAddr,
    observer: Observer,
}

impl Server {
    fn start(self, pages: Pages, hard_fail: bool) -> anyhow::Result<Option<SocketAddr>> {
        let listener = match self.listener() {
            Ok(listener) => Some(listener),
            Err(error) if hard_fail => return Err(error),
            Err(error) => {
                tracing::warn!("{error:#}; trying again every {BIND_AGAIN:?}");
                None
            }
        };
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
        let name = self.flag.trim_start_matches('-');
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            // The kernel keeps 15 bytes of a name.
            .name(name.trim_end_matches("-bind-address").to_owned())
            .spawn(move || runtime.block_on(self.run(listener, pages)))
            .context("start a thread")?;
        Ok(address)
    }

    fn listener(&self) -> anyhow::Result<TcpListener> {
        let listener = bind::listener(self.flag, self.address);
        if listener.is_err() {
            self.observer.bind_failed(self.flag);
        }
        listener
    }

    async fn run(self, mut listener: Option<TcpListener>, pages: Pages) {
        let listener = loop {
            match listener.take() {
                Some(listener) => break listener,
                None => tokio::time::sleep(BIND_AGAIN).await,
            }
            match self.listener() {
                Ok(bound) => {
                    tracing::info!("{}: listening on {} now", self.flag, self.address);
                    listener = Some(bound);
                }
                Err(error) => tracing::debug!("{error:#}"),
            }
        };
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => http::serve(listener, pages).await,
            Err(error) => tracing::error!("{}: {error}", self.flag),
        }
    }
}
