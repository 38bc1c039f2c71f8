//! Large clusters: 250,000 endpoints in slices of 100.

use std::time::{Duration, Instant};

use lbr_tests::apiserver::{ENDPOINT_SLICE, Server};
use serde_json::{Value, json};

use crate::raw::{get, watch};

const SLICES: usize = 2500;
const ENDPOINTS: usize = 100;

fn slice(number: usize) -> Value {
    let endpoint = |n: usize| {
        json!({
            "addresses": [format!("10.{}.{}.{n}", number / 250, number % 250)],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": format!("node{}", n % 50),
            "targetRef": { "kind": "Pod", "namespace": "load", "name": format!("pod-{number}-{n}") },
            "zone": "a",
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {
            "namespace": "load",
            "name": format!("svc-{number:05}"),
            "labels": { "kubernetes.io/service-name": format!("svc-{number}") },
        },
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    })
}

#[test]
fn a_large_cluster_is_loaded_listed_and_watched() {
    let server = Server::start().unwrap();
    let slices: Vec<Value> = (0..SLICES).map(slice).collect();
    let start = Instant::now();
    server.put_all(slices).unwrap();
    let loaded = start.elapsed();

    let start = Instant::now();
    let list = get(&server, "/apis/discovery.k8s.io/v1/endpointslices");
    let listed = start.elapsed();
    assert!(list.whole);
    assert_eq!(list.names().len(), SLICES);

    let start = Instant::now();
    let path = "/apis/discovery.k8s.io/v1/endpointslices?watch=1&sendInitialEvents=true\
                &resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = watch(&server, path);
    let added = events.short(SLICES);
    assert!(added.iter().all(|event| event.starts_with("ADDED")));
    assert_eq!(events.short(1), [format!("BOOKMARK \"{}\"", server.revision())]);
    let watched = start.elapsed();
    println!(
        "{SLICES} slices of {ENDPOINTS}: loaded in {loaded:?}, listed in {listed:?}, watched in {watched:?}"
    );
    // Far more than it takes: it catches only a copy for each endpoint, or worse.
    assert!(loaded + listed + watched < Duration::from_secs(120));
    assert!(server.delete(&ENDPOINT_SLICE, "load", "svc-00007"));
    assert_eq!(events.short(1), ["DELETED load/svc-00007"]);
}
