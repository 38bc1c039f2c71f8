//! Writes Events to the API server, at a rate that no trouble in a cluster can raise.
//!
//! An occurrence makes one Event. The same occurrence within minutes is counted, and the count is written now and then
//! (`series`). An error of the server costs events, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, Resource as _};
use tokio::sync::mpsc;

use crate::events::{Counters, Occurrence};
use crate::model::Kind;

/// Controller that reports the events.
const CONTROLLER: &str = "lbr";
/// Maximum length of an instance's name in the API.
const INSTANCE: usize = 128;
/// How much of the object's name begins the event's name, which also has a time and at most 253 characters.
const NAME: usize = 230;
/// Timeout of one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Tries for a server that is unreachable or too busy.
const TRIES: u32 = 12;
/// The same occurrence after this long is another event.
const FORGET: Duration = Duration::from_secs(360);

/// How often events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many requests may come at once.
    pub burst: u32,
    /// After them, the time between two. All nodes of a cluster see the same invalid Service.
    pub every: Duration,
    /// How often a raised count is written.
    pub refresh: Duration,
    /// Delay before the next try for a server that does not answer.
    pub again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { burst: 25, every: seconds(10), refresh: seconds(60), again: seconds(10) }
    }
}

/// Writes the events.
pub(super) struct Writer {
    pub(super) node: String,
    pub(super) pace: Pace,
    pub(super) queue: mpsc::Receiver<Occurrence>,
    pub(super) counters: Arc<Counters>,
}

/// The result of a request.
enum Answer {
    Done,
    /// The object or the event does not exist any more.
    Gone,
    Refused,
}

/// An event that was written.
struct Series {
    name: String,
    namespace: String,
    count: i32,
    written: i32,
    seen: Instant,
}

impl Writer {
    /// Writes until all [`Events`](crate::events::Events) are gone.
    pub(super) async fn run(mut self, client: Client) {
        let mut known: BTreeMap<Occurrence, Series> = BTreeMap::new();
        let mut bucket = Bucket { left: self.pace.burst, since: Instant::now(), pace: self.pace };
        let mut refresh = tokio::time::interval(self.pace.refresh.max(Duration::from_millis(1)));
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_refused = false;
        loop {
            let answer = tokio::select! {
                next = self.queue.recv() => {
                    let Some(occurrence) = next else { return };
                    if let Some(series) = known.get_mut(&occurrence) {
                        series.count = series.count.saturating_add(1);
                        series.seen = Instant::now();
                        continue;
                    }
                    bucket.take().await;
                    let (answer, series) = self.create(&client, &occurrence).await;
                    known.extend(series.map(|series| (occurrence, series)));
                    answer
                }
                _ = refresh.tick() => {
                    known.retain(|_, series| series.seen.elapsed() < FORGET);
                    let late = known.iter_mut().find(|(_, series)| series.written < series.count);
                    let Some((occurrence, series)) = late else { continue };
                    bucket.take().await;
                    series.written = series.count;
                    // The next one need not wait for another interval.
                    refresh.reset_immediately();
                    let answer = self.again(&client, series).await;
                    if matches!(answer, Answer::Gone) {
                        let occurrence = occurrence.clone();
                        known.remove(&occurrence);
                    }
                    answer
                }
            };
            let counter = match answer {
                Answer::Done => &self.counters.written,
                Answer::Gone => continue,
                Answer::Refused => &self.counters.dropped,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            let was_refused = std::mem::replace(&mut is_refused, matches!(answer, Answer::Refused));
            if is_refused && !was_refused {
                tracing::warn!("the API server refuses Events: lbr goes on without them");
            }
        }
    }

    async fn create(&self, client: &Client, occurrence: &Occurrence) -> (Answer, Option<Series>) {
        let regarding = match self.reference(client, occurrence).await {
            Ok(reference) => reference,
            Err(answer) => return (answer, None),
        };
        // Events of objects without a namespace are in `default`.
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let now = Timestamp::now();
        let head: String = occurrence.object.name.name.chars().take(NAME).collect();
        let name = format!("{}.{:x}", head.trim_end_matches(['-', '.']), now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(if occurrence.is_warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(occurrence.reason.to_owned()),
            action: Some(occurrence.action.to_owned()),
            note: Some(occurrence.note.clone()),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.node.chars().take(INSTANCE).collect()),
            ..Event::default()
        };
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let parameters = PostParams::default();
        let answer = self.ask(|| events.create(&parameters, &event)).await.map(drop);
        let series = Series { name, namespace, count: 1, written: 1, seen: Instant::now() };
        match answer {
            Ok(()) => (Answer::Done, Some(series)),
            Err(answer) => (answer, None),
        }
    }

    async fn again(&self, client: &Client, series: &Series) -> Answer {
        let events: Api<Event> = Api::namespaced(client.clone(), &series.namespace);
        let times = EventSeries { count: series.count, last_observed_time: MicroTime(Timestamp::now()) };
        let patch = Patch::Merge(serde_json::json!({ "series": times }));
        let parameters = PatchParams::default();
        match self.ask(|| events.patch(&series.name, &parameters, &patch)).await {
            Ok(_) => Answer::Done,
            Err(answer) => answer,
        }
    }

    /// `kubectl describe` finds events by the object's uid. lbr needs it only here, so it asks for it.
    async fn reference(&self, client: &Client, occurrence: &Occurrence) -> Result<ObjectReference, Answer> {
        let name = &occurrence.object.name;
        let mut reference = match occurrence.object.kind {
            // kubelet, kube-proxy and kubectl use a Node's name as its uid.
            Kind::Node => ObjectReference { uid: Some(name.name.clone()), ..Node::default().object_ref(&()) },
            Kind::NetworkPolicy => NetworkPolicy::default().object_ref(&()),
            _ => Service::default().object_ref(&()),
        };
        reference.name = Some(name.name.clone());
        if occurrence.object.kind == Kind::Node {
            return Ok(reference);
        }
        reference.namespace = Some(name.namespace.clone());
        // As plain JSON: an invalid object may be the reason for the event.
        let resource = match occurrence.object.kind {
            Kind::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            _ => ApiResource::erase::<Service>(&()),
        };
        let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), &name.namespace, &resource);
        reference.uid = self.ask(|| objects.get(&name.name)).await?.metadata.uid;
        Ok(reference)
    }

    /// Asks until the server has an answer, but not forever: events get outdated.
    async fn ask<T, F: Future<Output = kube::Result<T>>>(
        &self,
        request: impl Fn() -> F,
    ) -> Result<T, Answer> {
        for _ in 0..TRIES {
            match tokio::time::timeout(REQUEST, request()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Err(Answer::Gone),
                Ok(Err(kube::Error::Api(status))) if status.code != 429 && status.code < 500 => {
                    tracing::debug!("event: {status}");
                    return Err(Answer::Refused);
                }
                Ok(Err(error)) => tracing::debug!("event: {error}"),
                Err(_) => tracing::debug!("event: no answer after {REQUEST:?}"),
            }
            tokio::time::sleep(self.pace.again).await;
        }
        Err(Answer::Refused)
    }
}

/// Limits the rate of requests.
struct Bucket {
    left: u32,
    since: Instant,
    pace: Pace,
}

impl Bucket {
    /// Waits until a request is allowed.
    async fn take(&mut self) {
        loop {
            while self.left < self.pace.burst && self.since.elapsed() >= self.pace.every {
                self.left += 1;
                self.since += self.pace.every;
            }
            if self.left > 0 {
                if self.left == self.pace.burst {
                    self.since = Instant::now();
                }
                self.left -= 1;
                return;
            }
            tokio::time::sleep(self.pace.every.saturating_sub(self.since.elapsed())).await;
        }
    }
}
