//! Metrics of the programs, read from the pinned maps.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use lbr_common::maps;
use lbr_common::service::Traffic;
use lbr_common::text::ServiceName;
use lbr_common::verdict::Effect;
use prometheus::proto::MetricFamily;

use super::agent::labelled;
use super::family::{Sample, counter, gauge, number, one};
use crate::dataplane::{Count, Pinned, Walk};
use crate::interface;

/// How often the maps that the programs fill are walked, at most: they have no count, and a walk takes two system calls
/// for each entry.
const WALK_AGAIN: Duration = Duration::from_secs(15);

/// The maps, and the result of the last walk.
#[derive(Debug)]
pub struct KernelMaps {
    bpffs: PathBuf,
    walk: Mutex<Option<(Instant, Walk)>>,
}

/// Values read from the maps.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Whether the maps could be read at all.
    pub(super) is_complete: bool,
    pub(super) max_entries: Vec<(&'static str, u32)>,
    pub(super) counters: Vec<Count>,
    /// Name of each uplink, and how XDP is attached there.
    pub(super) uplinks: Vec<(String, &'static str)>,
    pub(super) walk: Walk,
}

impl KernelMaps {
    /// For the agent that pins its maps there.
    pub fn new(bpffs: PathBuf) -> Self {
        Self { bpffs, walk: Mutex::new(None) }
    }

    pub(super) fn read(&self, now: Instant) -> Reading {
        self.try_read(now).unwrap_or_else(|error| {
            tracing::debug!("metrics: {error:#}");
            Reading::default()
        })
    }

    fn try_read(&self, now: Instant) -> anyhow::Result<Reading> {
        let pinned = Pinned::open(&self.bpffs)?;
        let mut walk = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |at: Instant| now.saturating_duration_since(at) < WALK_AGAIN;
        let walked = match walk.take() {
            Some((at, last)) if fresh(at) => (at, last),
            _ => (now, pinned.walk()?),
        };
        Ok(Reading {
            is_complete: true,
            max_entries: pinned.max_entries()?,
            counters: pinned.counters()?,
            uplinks: uplinks(&pinned)?,
            walk: walk.insert(walked).1.clone(),
        })
    }
}

fn uplinks(pinned: &Pinned) -> anyhow::Result<Vec<(String, &'static str)>> {
    let (all, xdp) = (pinned.tables_of(&[maps::UPLINKS])?.uplinks, pinned.xdp()?);
    let mode = |index| xdp.get(index).map_or("off", |mode| mode.name());
    // An uplink that is gone has no name.
    Ok(all.keys().filter_map(|index| Some((interface::name(*index)?, mode(index)))).collect())
}

/// Leaves out zero counters: most reasons never occur. `own`: entries of the maps that the agent writes.
pub(super) fn families(reading: &Reading, own: &[(&'static str, usize)]) -> Vec<MetricFamily> {
    let labels = |count: &Count| {
        let effect = match count.verdict.effect() {
            Effect::Pass => "pass",
            Effect::Translate => "translate",
            Effect::Refuse => "refuse",
            Effect::Drop => "drop",
        };
        vec![
            ("hook", count.hook.name().to_owned()),
            ("reason", count.verdict.name().to_owned()),
            ("effect", effect.to_owned()),
        ]
    };
    let counts = |value: fn(&Count) -> u64| -> Vec<Sample> {
        reading.counters.iter().map(|count| (labels(count), number(value(count)))).collect()
    };
    let Walk { entries, flows, services, traffic } = &reading.walk;
    let name = |service: &ServiceName| {
        let label = |text: &str| text.to_owned();
        vec![
            ("namespace", label(service.namespace.as_str())),
            ("service", label(service.name.as_str())),
            ("port", label(service.port.as_str())),
        ]
    };
    let per_service = services.iter().map(|(service, flows)| (name(service), number(*flows as u64)));
    let connections = traffic.iter().map(|(service, t)| (name(service), number(t.connections)));
    let both_ways = |of: fn(&Traffic) -> [u64; 2]| -> Vec<Sample> {
        let each = |(service, traffic): &(ServiceName, Traffic)| {
            let way = |(way, value): (&'static str, u64)| {
                let mut labels = name(service);
                labels.push(("direction", way.to_owned()));
                (labels, number(value))
            };
            ["request", "response"].into_iter().zip(of(traffic)).map(way).collect::<Vec<_>>()
        };
        traffic.iter().flat_map(each).collect()
    };
    let walked = reading.is_complete;
    vec![
        counter(
            "lbr_packets_total",
            "Packets by hook, reason and effect; system calls at the hook `socket`.",
            counts(|count| count.counter.packets),
        ),
        counter(
            "lbr_bytes_total",
            "Bytes of these packets with their link header.",
            counts(|count| count.counter.bytes),
        ),
        gauge(
            "lbr_uplink_xdp",
            "Always 1. Each uplink, and how XDP is attached there: native, generic, or off.",
            reading.uplinks.iter().map(|(interface, mode)| {
                (vec![("interface", interface.clone()), ("mode", (*mode).to_owned())], 1.0)
            }),
        ),
        gauge(
            "lbr_map_max_entries",
            "Maximum number of entries of a map.",
            labelled("map", reading.max_entries.iter().map(|(name, size)| (*name, u64::from(*size)))),
        ),
        gauge(
            "lbr_map_entries",
            "Entries of a map. Maps that the programs write are counted at most every 15 seconds.",
            labelled("map", own.iter().chain(entries).map(|(name, count)| (*name, *count as u64))),
        ),
        gauge(
            "lbr_flows",
            "Live connections, by the state of each and the time of its last packet.",
            walked.then(|| (Vec::new(), number(*flows as u64))),
        ),
        gauge(
            "lbr_service_flows",
            "Live connections of the hundred Services with the most of them.",
            per_service,
        ),
        counter(
            "lbr_service_connections_total",
            "New connections of the hundred Services with the most traffic.",
            connections,
        ),
        counter(
            "lbr_service_packets_total",
            "Translated packets to and from these Services. Packets of the node's own processes are not translated.",
            both_ways(|t| [t.request_packets, t.response_packets]),
        ),
        counter(
            "lbr_service_bytes_total",
            "Bytes of these packets with their link header.",
            both_ways(|t| [t.request_bytes, t.response_bytes]),
        ),
        gauge("lbr_maps_readable", "1 if the pinned maps can be read.", one(f64::from(u8::from(walked)))),
    ]
}
