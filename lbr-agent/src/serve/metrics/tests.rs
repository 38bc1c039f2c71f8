//! The text as a whole: whether Prometheus' own tool accepts it, and whether the dashboard uses existing metrics only.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use lbr_common::addr::Family;
use lbr_common::text::{ServiceName, Text};
use lbr_common::verdict::{Counter, Hook, Verdict};
use serde_json::Value;

use lbr_common::service::Traffic;

use super::*;
use crate::dataplane::{Count, Walk};
use crate::serve::Origin;
use crate::serve::observer::{Changes, Figures};

const DASHBOARD: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana-dashboard.json"));

/// All metrics.
fn full() -> String {
    let observer = Observer::new(Origin::Folder).unwrap();
    for family in Family::ALL {
        observer.histograms().programmed(family, Duration::from_millis(700));
    }
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_769_847_330_250);
    let changes = Changes { pending: 1, total: 2 };
    let figures = Figures {
        events: crate::events::Counts { written: 3, dropped: 1 },
        entries: vec![("frontends", 3)],
        objects: vec![("Service", 4)],
        limited: 7,
        rejected: 5,
        without_room: 6,
        rounds: 70,
        compiled_services: 71,
        compiled_everything: 72,
        compiled_policies: 73,
        compiled_all_policies: 74,
        pending: 7,
        problems: 8,
        is_synced: true,
        queued: Some(at),
        applied: Some(at),
        services: changes,
        endpoints: changes,
        healthz: BTreeMap::from([(200, 9)]),
        livez: BTreeMap::from([(503, 10)]),
        bind_failures: BTreeMap::from([("--healthz-bind-address", 11)]),
        aborted_sockets: 31,
        failed_aborts: 32,
    };
    let counter = Counter { packets: 12, bytes: 13 };
    let service = ServiceName { namespace: Text::new("ns"), name: Text::new("web"), port: Text::new("http") };
    let traffic = Traffic {
        connections: 21,
        request_packets: 22,
        request_bytes: 23,
        response_packets: 24,
        response_bytes: 25,
    };
    let reading = kernel::Reading {
        is_complete: true,
        max_entries: vec![("frontends", 131_072), ("flows", 262_144)],
        counters: vec![
            Count { hook: Hook::FromPod, verdict: Verdict::EgressDenied, counter },
            Count { hook: Hook::ToPod, verdict: Verdict::ToClient, counter },
        ],
        uplinks: vec![("eth0".to_owned(), "native"), ("eth1".to_owned(), "off")],
        walk: Walk {
            entries: vec![("flows", 14)],
            flows: 6,
            services: vec![(service, 5)],
            traffic: vec![(service, traffic)],
        },
    };
    let mut families = observer.histograms().families();
    families.extend(agent::families(&figures, Some(Duration::from_millis(1500))));
    families.extend(kernel::families(&reading, &figures.entries));
    families.extend(process::families());
    families.push(build_info());
    encode(families).unwrap()
}

/// Names and types from the `# TYPE` lines.
fn names(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

#[test]
fn values_and_labels() {
    let text = full();
    let lines: BTreeSet<&str> = text.lines().collect();
    for line in [
        r#"kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} 1769847330.25"#,
        r#"kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv6"} 1769847330.25"#,
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 1",
        "kubeproxy_sync_proxy_rules_service_changes_total 2",
        r#"kubeproxy_proxy_healthz_total{code="200"} 9"#,
        r#"kubeproxy_proxy_healthz_total{code="503"} 0"#,
        r#"kubeproxy_proxy_livez_total{code="503"} 10"#,
        r#"kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="0.5"} 0"#,
        r#"kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="1"} 1"#,
        r#"lbr_packets_total{hook="from_pod",reason="egress_denied",effect="drop"} 12"#,
        r#"lbr_bytes_total{hook="to_pod",reason="to_client",effect="translate"} 13"#,
        r#"lbr_uplink_xdp{interface="eth0",mode="native"} 1"#,
        r#"lbr_uplink_xdp{interface="eth1",mode="off"} 1"#,
        r#"lbr_map_entries{map="frontends"} 3"#,
        r#"lbr_map_entries{map="flows"} 14"#,
        r#"lbr_map_max_entries{map="flows"} 262144"#,
        r#"lbr_objects{kind="Service"} 4"#,
        "lbr_rejected_objects 5",
        "lbr_policies_without_room 6",
        "lbr_rounds_total 70",
        "lbr_compiled_services_total 71",
        "lbr_compiled_all_services_total 72",
        "lbr_compiled_policies_total 73",
        "lbr_compiled_all_policies_total 74",
        "lbr_limited_objects 7",
        "lbr_pending_entries 7",
        "lbr_write_problems 8",
        "lbr_synced 1",
        "lbr_aborted_sockets_total 31",
        "lbr_failed_socket_aborts_total 32",
        "lbr_state_age_seconds 1.5",
        "lbr_flows 6",
        r#"lbr_service_flows{namespace="ns",service="web",port="http"} 5"#,
        r#"lbr_service_connections_total{namespace="ns",service="web",port="http"} 21"#,
        r#"lbr_service_packets_total{namespace="ns",service="web",port="http",direction="request"} 22"#,
        r#"lbr_service_bytes_total{namespace="ns",service="web",port="http",direction="response"} 25"#,
        "lbr_maps_readable 1",
    ] {
        assert!(lines.contains(line), "{line} in\n{text}");
    }
}

#[test]
fn promtool_has_no_objections() {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = tool.unwrap_or_else(|error| {
        panic!("promtool: {error}; get it by `apt-get install -y --no-install-recommends prometheus`")
    });
    tool.stdin.take().unwrap().write_all(full().as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success() && said.concat().trim().is_empty(), "{}", said.concat());
}

#[test]
fn the_dashboard_asks_only_for_what_there_is() {
    let text = full();
    let names = names(&text);
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    collect(&dashboard, &mut queries);
    assert!(queries.len() > 10, "{queries:?}");
    for query in queries {
        let asked = metrics_of(query);
        assert!(!asked.is_empty(), "{query}");
        for name in asked {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let is_part = family.is_some_and(|family| names.get(family) == Some(&"histogram"));
            assert!(is_part || names.contains_key(name), "{name} in {query}");
        }
    }
}

/// Every query of the dashboard and of its variables.
fn collect<'a>(value: &'a Value, queries: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) if key == "expr" || key == "definition" => queries.push(text),
                    other => collect(other, queries),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, queries)),
        _ => {}
    }
}

/// Words that can only be metrics: before `{`, or with a metric's prefix.
fn metrics_of(query: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(is_word) {
        let word = &rest[start..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let has_prefix = ["lbr_", "kubeproxy_", "process_"].iter().any(|prefix| word.starts_with(prefix));
        if has_prefix || after.starts_with('{') {
            found.push(word);
        }
        rest = after;
    }
    found
}
