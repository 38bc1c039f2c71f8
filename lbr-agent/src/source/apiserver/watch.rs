//! Lists and watches one kind, and lists it again whenever the watch cannot go on.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::ListParams;
use kube::core::Status;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource as _};
use tokio::sync::mpsc;

use super::ledger::Seen;
use super::raw::{
    EndpointSlices, Namespaces, NetworkPolicies, Nodes, Pods, Raw, ServiceCidrs, Services, Watched, version,
};
use crate::model::{Kind, Object};

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// Delay after an error; doubles up to the maximum, and is chosen at random from its upper half.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Errors in a row after which a watch is given up and everything is listed again.
const PATIENCE: u32 = 5;

/// How often lbr looks for a kind that the server does not have.
const ABSENT: Duration = Duration::from_secs(300);

/// The parts that every watch needs.
pub(super) struct Watch {
    pub(super) client: kube::Client,
    pub(super) contact: Arc<Contact>,
    pub(super) sender: mpsc::Sender<Seen>,
}

/// The receiver is gone.
struct Closed;

/// Watches one kind until the receiver is gone.
pub(super) async fn run(kind: Kind, watch: Watch) {
    let Err(Closed) = match kind {
        // As kube-proxy: other proxies serve Services with this label, and headless ones need none.
        Kind::Service => {
            let config = watcher::Config::default()
                .labels("!service.kubernetes.io/service-proxy-name")
                .fields("spec.clusterIP!=None");
            watch.follow::<Services>(config).await
        }
        Kind::EndpointSlice => {
            let config = watcher::Config::default().labels("!service.kubernetes.io/headless");
            watch.follow::<EndpointSlices>(config).await
        }
        Kind::Namespace => watch.follow::<Namespaces>(watcher::Config::default()).await,
        Kind::Pod => watch.follow::<Pods>(watcher::Config::default()).await,
        Kind::Node => watch.follow::<Nodes>(watcher::Config::default()).await,
        Kind::NetworkPolicy => watch.follow::<NetworkPolicies>(watcher::Config::default()).await,
        Kind::ServiceCidr => watch.follow::<ServiceCidrs>(watcher::Config::default()).await,
    };
}

impl Watch {
    async fn follow<W: Watched>(&self, config: watcher::Config) -> Result<std::convert::Infallible, Closed> {
        let api: Api<Raw<W>> = Api::all(self.client.clone());
        let mut streams_lists = true;
        let mut backoff = Backoff::default();
        loop {
            let config = config.clone().page_size(PAGE);
            let config = if streams_lists { config.streaming_lists() } else { config };
            // A new watcher begins with a list.
            let mut events = pin!(watcher(api.clone(), config));
            let (mut newest, mut errors) = (None, 0);
            loop {
                let asked = Instant::now();
                let Some(event) = events.next().await else { break };
                let error = match event {
                    Ok(event) => {
                        errors = 0;
                        backoff.reset();
                        self.contact.heard(W::KIND);
                        newest = newest.max(version_of(&event));
                        self.see(event).await?;
                        continue;
                    }
                    Err(error) => error,
                };
                let status = status_of(&error);
                if status.is_some_and(|s| matches!(s.code, 400 | 422)) && streams_lists {
                    tracing::debug!(kind = W::KIND.as_str(), "the API server does not stream lists");
                    streams_lists = false;
                    break;
                }
                if W::KIND == Kind::ServiceCidr && status.is_some_and(|s| s.code == 404) {
                    // An older cluster without ServiceCIDRs.
                    self.contact.heard(W::KIND);
                    self.send(Seen::Listing(W::KIND)).await?;
                    self.send(Seen::Listed(W::KIND)).await?;
                    tokio::time::sleep(ABSENT).await;
                    break;
                }
                // A broken connection means nothing if the next one works, which `goes_back` finds out.
                if status.is_some() {
                    self.contact.failed(W::KIND, &error);
                }
                errors += 1;
                tokio::time::sleep(backoff.next(status, asked.elapsed())).await;
                let goes_back = self.goes_back(&api, newest, &mut backoff).await;
                // The server does not have the version from which the watch would go on, or the errors repeat.
                if goes_back || errors >= PATIENCE || status.is_some_and(|s| s.code == 410) {
                    tracing::info!("listing {} again", W::KIND.as_str());
                    break;
                }
            }
        }
    }

    /// Whether the server's state is older than the state seen before, as after a restored backup: a watch would wait
    /// for versions that are long gone. Returns when the server answers.
    async fn goes_back<W: Watched>(
        &self,
        api: &Api<Raw<W>>,
        newest: Option<u64>,
        backoff: &mut Backoff,
    ) -> bool {
        let mut was_away = false;
        loop {
            let asked = Instant::now();
            let error = match api.list(&ListParams::default().limit(1)).await {
                Ok(list) => {
                    // A watch that goes on may be silent for long.
                    self.contact.heard(W::KIND);
                    if was_away {
                        backoff.reset();
                    }
                    let now = version(list.metadata.resource_version.as_deref());
                    return now.zip(newest).is_some_and(|(now, newest)| now < newest);
                }
                Err(error) => error,
            };
            was_away = true;
            self.contact.failed(W::KIND, &error);
            let status = match &error {
                kube::Error::Api(status) => Some(&**status),
                _ => None,
            };
            tokio::time::sleep(backoff.next(status, asked.elapsed())).await;
        }
    }

    async fn see<W: Watched>(&self, event: Event<Raw<W>>) -> Result<(), Closed> {
        match event {
            Event::Init => self.send(Seen::Listing(W::KIND)).await,
            Event::InitDone => self.send(Seen::Listed(W::KIND)).await,
            Event::Delete(object) => self.send(Seen::Gone(object.reference())).await,
            Event::Apply(object) | Event::InitApply(object) => {
                let reference = object.reference();
                let converted = object.decode();
                // The ledger and the store share one text.
                let accepted = converted.object.as_ref().map(Object::reference);
                let reference = accepted.filter(|accepted| *accepted == reference).unwrap_or(reference);
                self.send(Seen::Item(reference, Box::new(converted))).await
            }
        }
    }

    async fn send(&self, seen: Seen) -> Result<(), Closed> {
        self.sender.send(seen).await.map_err(|_| Closed)
    }
}

/// The server's answer, if there is one.
fn status_of(error: &watcher::Error) -> Option<&Status> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        WatchError(status) => Some(status),
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => Some(status),
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => None,
    }
}

fn version_of<W: Watched>(event: &Event<Raw<W>>) -> Option<u64> {
    match event {
        Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
            version(object.meta().resource_version.as_deref())
        }
        Event::Init | Event::InitDone => None,
    }
}

/// Delays after errors.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn reset(&mut self) {
        self.failures = 0;
    }

    /// The delay before the next try, at least what the server asks for. An error that took longer (`took`) than the
    /// delay restarts the backoff: such errors are rare anyway.
    fn next(&mut self, status: Option<&Status>, took: Duration) -> Duration {
        let doubled = |failures: u32| BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
        if took > doubled(self.failures) {
            self.failures = 0;
        }
        let doubled = doubled(self.failures);
        self.failures += 1;
        let asked = status.and_then(|s| s.details.as_ref()).map_or(0, |d| d.retry_after_seconds);
        doubled.mul_f64(0.5 + random() / 2.0).max(Duration::from_secs(asked.into()))
    }
}

/// From 0 to 1, so that agents that lost the same server do not come back all at once.
fn random() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    // A new state has new random keys.
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Which kinds cannot be read at present, and since when.
#[derive(Debug, Default)]
pub struct Contact(Mutex<Silence>);

#[derive(Debug, Default)]
struct Silence {
    since: Option<Instant>,
    kinds: BTreeSet<Kind>,
}

impl Contact {
    /// How long some kind has not been readable: the state may be that old. Zero if all is well.
    pub fn silent_for(&self) -> Duration {
        let silence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silence.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn heard(&self, kind: Kind) {
        let mut silence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silence.kinds.remove(&kind) {
            tracing::info!("{} can be read again", kind.as_str());
            if silence.kinds.is_empty() {
                silence.since = None;
            }
        }
    }

    fn failed(&self, kind: Kind, error: &dyn fmt::Display) {
        let mut silence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        silence.since.get_or_insert_with(Instant::now);
        if silence.kinds.insert(kind) {
            tracing::warn!("{} cannot be read, the last state stays in force: {error:#}", kind.as_str());
        } else {
            tracing::debug!("{} cannot be read: {error:#}", kind.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(details: Value) -> Status {
        serde_json::from_value(json!({"code": 429, "details": details})).unwrap()
    }

    #[test]
    fn waiting_times_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::default();
        let mut last = Duration::ZERO;
        for n in 0..40 {
            last = backoff.next(None, Duration::ZERO);
            let doubled = BACKOFF_MIN.saturating_mul(1 << n.min(16)).min(BACKOFF_MAX);
            assert!(last >= doubled / 2 && last <= doubled, "{n}: {last:?}");
        }
        assert!(last >= BACKOFF_MAX / 2);
        assert!(backoff.next(None, BACKOFF_MAX * 2) <= BACKOFF_MIN, "a watch that lasted");
        backoff.reset();
        assert!(backoff.next(None, Duration::ZERO) <= BACKOFF_MIN);
    }

    #[test]
    fn the_server_may_ask_for_more_time() {
        let status = status(json!({"retryAfterSeconds": 7}));
        assert_eq!(Backoff::default().next(Some(&status), Duration::ZERO), Duration::from_secs(7));
    }

    #[test]
    fn silence_begins_with_the_first_error_and_ends_with_the_last() {
        let contact = Contact::default();
        assert_eq!(contact.silent_for(), Duration::ZERO);
        contact.failed(Kind::Pod, &"down");
        contact.failed(Kind::Node, &"down");
        contact.heard(Kind::Pod);
        std::thread::sleep(Duration::from_millis(2));
        assert!(contact.silent_for() > Duration::ZERO);
        contact.heard(Kind::Node);
        assert_eq!(contact.silent_for(), Duration::ZERO);
    }
}
