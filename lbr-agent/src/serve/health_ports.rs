//! The ports in `healthCheckNodePort` of Services, at which load balancers find out which nodes have endpoints.
//!
//! The agent names the ports after each round. A port that cannot be opened is tried again, and holds up no other one.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::BIND_AGAIN;
use super::bind;
use super::health::Moment;
use super::http::{self, Answer, Pages};
use super::observer::Observer;
use crate::desired::HealthPort;
use crate::model::ObjectName;

/// Name of these ports in errors and counts.
const FIELD: &str = "healthCheckNodePort";

/// Starts a thread that listens on the ports of [`super::Round::health_ports`]. The agent hears of those that cannot be
/// opened.
pub fn start(observer: &Observer) -> anyhow::Result<()> {
    let wanted = observer.health_ports();
    let ports = Ports { observer: observer.clone(), open: BTreeMap::new(), failed: BTreeMap::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("health-ports".to_owned())
        .spawn(move || runtime.block_on(ports.run(wanted)))
        .context("start a thread")?;
    Ok(())
}

struct Ports {
    observer: Observer,
    open: BTreeMap<u16, JoinHandle<()>>,
    /// Ports that could not be opened, and why.
    failed: BTreeMap<u16, String>,
}

impl Ports {
    /// Follows the wanted ports as long as the process runs.
    async fn run(mut self, mut wanted: watch::Receiver<BTreeMap<u16, HealthPort>>) {
        loop {
            let now = wanted.borrow_and_update().clone();
            // Close first: a Service that changes its port may leave the old one to another Service.
            self.close(&now).await;
            for (port, health) in &now {
                if !self.open.contains_key(port) {
                    self.open(*port, &health.service);
                }
            }
            self.observer.set_refused_ports(self.failed.clone());
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(BIND_AGAIN), if !self.failed.is_empty() => {}
            }
        }
    }

    async fn close(&mut self, wanted: &BTreeMap<u16, HealthPort>) {
        self.failed.retain(|port, _| wanted.contains_key(port));
        for (port, task) in self.open.extract_if(.., |port, _| !wanted.contains_key(port)) {
            task.abort();
            // The port is free only when the task has ended. Its only result is that it was aborted.
            let _aborted = task.await;
            tracing::debug!("{FIELD} {port}: closed");
        }
    }

    fn open(&mut self, port: u16, service: &ObjectName) {
        let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let listener = bind::listener(FIELD, address)
            .and_then(|listener| tokio::net::TcpListener::from_std(listener).context(FIELD));
        match listener {
            Ok(listener) => {
                if self.failed.remove(&port).is_some() {
                    tracing::info!("{FIELD} {port} of Service {service}: listening now");
                }
                let pages = pages(port, self.observer.clone());
                self.open.insert(port, tokio::spawn(http::serve(listener, pages)));
            }
            Err(error) => {
                self.observer.bind_failed(FIELD);
                self.failed.insert(port, format!("cannot listen on {address}: {}", error.root_cause()));
            }
        }
    }
}

/// Every path has the same answer.
fn pages(port: u16, observer: Observer) -> Pages {
    let wanted = observer.health_ports();
    Arc::new(move |_| {
        // The port is about to be closed.
        let health = wanted.borrow().get(&port).cloned()?;
        Some(answer(&health, observer.is_healthy(Moment::now())))
    })
}

fn answer(health: &HealthPort, is_healthy: bool) -> Answer {
    let body = Body {
        service: Name { namespace: &health.service.namespace, name: &health.service.name },
        local_endpoints: health.local_ready,
        service_proxy_healthy: is_healthy,
    };
    // Texts, a number and a boolean always convert to JSON.
    let body = serde_json::to_string(&body).unwrap_or_default();
    let weight = Some(health.local_ready);
    Answer { weight, ..Answer::json(health.local_ready > 0 && is_healthy, body) }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Name<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

#[cfg(test)]
mod tests;
