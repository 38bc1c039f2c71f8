//! Metrics of the agent: what it did and knows.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use lbr_common::addr::Family;
use prometheus::proto::MetricFamily;

use super::family::{Sample, counter, gauge, number, one};
use crate::serve::observer::Figures;

/// `silent`: how long the API server has not answered.
pub(super) fn families(figures: &Figures, silent: Option<Duration>) -> Vec<MetricFamily> {
    let mut families = names_of_kube_proxy(figures);
    families.extend([
        gauge(
            "lbr_objects",
            "Objects of the cluster that were accepted, by kind.",
            labelled("kind", figures.objects.iter().map(|(kind, count)| (*kind, *count as u64))),
        ),
        gauge(
            "lbr_rejected_objects",
            "Objects that are not in force as they are written; `lbr show rejected` says why (up to 1,024 entries).",
            one(number(figures.rejected as u64)),
        ),
        gauge(
            "lbr_limited_objects",
            "Objects that are in force but for a port, an address or another field; `lbr show rejected` says why.",
            one(number(figures.limited as u64)),
        ),
        gauge(
            "lbr_policies_without_room",
            "NetworkPolicies that the maps have no room for.",
            one(number(figures.without_room as u64)),
        ),
        counter(
            "lbr_rounds_total",
            "Rounds of the agent's loop: each compiles what changed, and writes it.",
            one(number(figures.rounds)),
        ),
        counter(
            "lbr_compiled_services_total",
            "Services that were compiled, because they or their endpoints changed.",
            one(number(figures.compiled_services)),
        ),
        counter(
            "lbr_compiled_all_services_total",
            "Rounds that compiled every Service: the node's addresses, uplinks, zone or settings changed.",
            one(number(figures.compiled_everything)),
        ),
        counter(
            "lbr_compiled_policies_total",
            "Rounds that compiled what a change of a policy, a Pod, a Namespace or a link concerns of the policies.",
            one(number(figures.compiled_policies)),
        ),
        counter(
            "lbr_compiled_all_policies_total",
            "Of these, rounds that compiled every policy: the first one, and all while the maps have no room for some.",
            one(number(figures.compiled_all_policies)),
        ),
        gauge(
            "lbr_pending_entries",
            "Map entries that differ from the desired state.",
            one(number(figures.pending as u64)),
        ),
        gauge(
            "lbr_write_problems",
            "Writes of the last round that failed or had no room. The log names them.",
            one(number(figures.problems as u64)),
        ),
        gauge(
            "lbr_synced",
            "1 if every kind of object has been listed; before that the maps stay as an earlier agent left them.",
            one(f64::from(u8::from(figures.is_synced))),
        ),
        gauge(
            "lbr_state_age_seconds",
            "Seconds for which the API server could not be read; 0 if all is well. Absent without an API server.",
            silent.map(|age| (Vec::new(), age.as_secs_f64())),
        ),
        counter(
            "lbr_aborted_sockets_total",
            "Connected UDP sockets of the node's processes that were aborted because their endpoint was gone.",
            one(number(figures.aborted_sockets)),
        ),
        counter(
            "lbr_failed_socket_aborts_total",
            "Rounds in which the kernel did not list or abort such sockets. The log says why.",
            one(number(figures.failed_aborts)),
        ),
        counter(
            "lbr_events_total",
            "Kubernetes Events by result; dropped: the queue was full, or the API server refused them.",
            labelled("result", [("written", figures.events.written), ("dropped", figures.events.dropped)].into_iter()),
        ),
        counter(
            "lbr_bind_failures_total",
            "How often a server could not listen on its address; healthCheckNodePort: a health check port of a Service.",
            labelled("flag", figures.bind_failures.iter().map(|(flag, count)| (*flag, *count))),
        ),
    ]);
    families
}

/// kube-proxy's metrics, by its names and meanings. Leaves out `sync_proxy_rules_no_local_endpoints_total`, and metrics
/// of iptables, nftables and conntrack.
fn names_of_kube_proxy(figures: &Figures) -> Vec<MetricFamily> {
    let (endpoints, services) = (figures.endpoints, figures.services);
    vec![
        gauge(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "The last time when everything was in force.",
            both_families(figures.applied),
        ),
        gauge(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time when a change came in.",
            both_families(figures.queued),
        ),
        gauge(
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
            "Changes of EndpointSlices that are not in force yet.",
            one(number(endpoints.pending)),
        ),
        counter(
            "kubeproxy_sync_proxy_rules_endpoint_changes_total",
            "Changes of EndpointSlices.",
            one(number(endpoints.total)),
        ),
        gauge(
            "kubeproxy_sync_proxy_rules_service_changes_pending",
            "Changes of Services that are not in force yet.",
            one(number(services.pending)),
        ),
        counter(
            "kubeproxy_sync_proxy_rules_service_changes_total",
            "Changes of Services.",
            one(number(services.total)),
        ),
        counter("kubeproxy_proxy_healthz_total", "Answers to /healthz, by status.", codes(&figures.healthz)),
        counter("kubeproxy_proxy_livez_total", "Answers to /livez, by status.", codes(&figures.livez)),
    ]
}

/// 0 for "never", like an unset gauge of Go's client.
fn both_families(at: Option<SystemTime>) -> Vec<Sample> {
    let seconds = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    let sample = |family: Family| (vec![("ip_family", family.name().to_owned())], seconds.as_secs_f64());
    Family::ALL.into_iter().map(sample).collect()
}

/// Both codes from the start, so that the first of either counts as an increase.
fn codes(counts: &BTreeMap<u16, u64>) -> Vec<Sample> {
    let count = |code: u16| counts.get(&code).copied().unwrap_or_default();
    [200, 503].map(|code| (vec![("code", code.to_string())], number(count(code)))).to_vec()
}

pub(super) fn labelled(
    label: &'static str,
    counts: impl Iterator<Item = (&'static str, u64)>,
) -> impl Iterator<Item = Sample> {
    counts.map(move |(value, count)| (vec![(label, value.to_owned())], number(count)))
}
