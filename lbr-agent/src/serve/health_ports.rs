//! The ports that Services name in `healthCheckNodePort`: load balancers ask there which nodes have endpoints.
//!
//! Which ports that are, the agent says after each round. One that can not be opened is tried again, and keeps no other
//! one closed.

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
use crate::events::{Events, Occurrence};
use crate::model::ObjectName;

/// What errors and counts call these ports.
const FIELD: &str = "healthCheckNodePort";

/// Starts a thread that listens where [`super::Round::health_ports`] says. `node`: for events about what can not be
/// opened.
pub fn start(observer: &Observer, events: Events, node: String) -> anyhow::Result<()> {
    let wanted = observer.health_ports();
    let ports =
        Ports { observer: observer.clone(), events, node, open: BTreeMap::new(), failed: BTreeMap::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("health-ports".to_owned())
        .spawn(move || runtime.block_on(ports.run(wanted)))
        .context("start a thread")?;
    Ok(())
}

struct Ports {
    observer: Observer,
    events: Events,
    node: String,
    open: BTreeMap<u16, JoinHandle<()>>,
    /// Ports that could not be opened, and whether that was told, by whose they are.
    failed: BTreeMap<u16, (ObjectName, bool)>,
}

impl Ports {
    /// Until nobody is left who could say what is wanted.
    async fn run(mut self, mut wanted: watch::Receiver<BTreeMap<u16, HealthPort>>) {
        loop {
            let now = wanted.borrow_and_update().clone();
            // First what goes: a Service that changes its port may leave it to another one.
            self.close(&now).await;
            for (port, health) in &now {
                if !self.open.contains_key(port) {
                    self.open(*port, &health.service);
                }
            }
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(BIND_AGAIN), if !self.failed.is_empty() => {}
            }
        }
    }

    async fn close(&mut self, wanted: &BTreeMap<u16, HealthPort>) {
        self.failed.retain(|port, (service, _)| wanted.get(port).is_some_and(|now| now.service == *service));
        for (port, task) in self.open.extract_if(.., |port, _| !wanted.contains_key(port)) {
            task.abort();
            // The port is free when the task is gone, not before. All it can end with is that it was aborted.
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
                self.tell(port, service, &error);
            }
        }
    }

    /// Once, as long as it lasts; an event that found no place is offered again.
    fn tell(&mut self, port: u16, service: &ObjectName, error: &anyhow::Error) {
        let is_new = !self.failed.contains_key(&port);
        if is_new {
            tracing::warn!("Service {service}: {error:#}; trying again every {BIND_AGAIN:?}");
        }
        let (_, is_told) = self.failed.entry(port).or_insert_with(|| (service.clone(), false));
        if !*is_told {
            *is_told = self.events.tell(Occurrence::health_port(&self.node, service, error));
        }
    }
}

/// The same for every path.
fn pages(port: u16, observer: Observer) -> Pages {
    let wanted = observer.health_ports();
    Arc::new(move |_| {
        // Not there: the port is about to be closed.
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
    // Text, a number and a boolean: nothing that JSON could not say.
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
