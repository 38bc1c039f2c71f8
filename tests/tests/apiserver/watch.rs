//! Watches: events, versions, selectors, bookmarks, streamed lists.

use std::time::Duration;

use lbr_tests::apiserver::{SERVICE, Server, StreamingLists};
use serde_json::{Value, json};

use crate::fixtures::{SERVICES, labelled, pod, service, service_in, version};
use crate::raw::{Event, delete, get, watch};

const SILENCE: Duration = Duration::from_millis(100);
const STREAM: &str =
    "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

fn services(query: &str) -> String {
    format!("/api/v1/services?watch=true&{query}")
}

fn from(server: &Server) -> String {
    services(&format!("resourceVersion={}", server.revision()))
}

#[test]
fn changes_after_a_version_are_sent() {
    let server = Server::start().unwrap();
    server.put(service("old", "10.0.0.1")).unwrap();
    let start = from(&server);
    server.put(service("before", "10.0.0.1")).unwrap();
    let mut events = watch(&server, &start);
    assert_eq!(events.short(1), ["ADDED default/before"]);
    server.put(service("old", "10.0.0.2")).unwrap();
    let changed = events.event().value();
    assert_eq!(
        (changed["type"].as_str(), version(&changed["object"])),
        (Some("MODIFIED"), server.revision())
    );
    assert_eq!(
        (changed["object"]["kind"].as_str(), changed["object"]["apiVersion"].as_str()),
        (Some("Service"), Some("v1"))
    );
    server.put(pod("other-kind", "n")).unwrap();
    delete(&server, &format!("{SERVICES}/old"), "");
    let gone = events.event().value();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(version(&gone["object"]), server.revision(), "of the deletion");
    assert_eq!(gone["object"]["spec"]["clusterIP"], "10.0.0.2", "the last state");
    assert!(events.silent(SILENCE));
}

#[test]
fn without_a_version_the_present_comes_first() {
    let server = Server::start().unwrap();
    server.put_all([service("a", "10.0.0.1"), service_in("other", "b")]).unwrap();
    for query in ["", "resourceVersion=0", "resourceVersion="] {
        let mut events = watch(&server, &services(query));
        assert_eq!(events.short(2), ["ADDED default/a", "ADDED other/b"], "{query}");
        assert!(events.silent(SILENCE), "and no bookmark: {query}");
    }
    let mut one = watch(&server, "/api/v1/namespaces/other/services?watch=1");
    assert_eq!(one.short(1), ["ADDED other/b"]);
    server.put(service("c", "10.0.0.1")).unwrap();
    server.put(service_in("other", "d")).unwrap();
    assert_eq!(one.short(1), ["ADDED other/d"]);
}

#[test]
fn object_that_stops_matching_is_deleted_and_one_that_begins_is_added() {
    let server = Server::start().unwrap();
    server.put(labelled("s", ("proxy", "other"))).unwrap();
    let query = format!("{}&labelSelector=%21proxy&fieldSelector=spec.clusterIP%21%3DNone", from(&server));
    let mut events = watch(&server, &query);
    server.put(labelled("s", ("proxy", "another"))).unwrap();
    server.put(service("s", "10.0.0.1")).unwrap();
    assert_eq!(events.short(1), ["ADDED default/s"]);
    server.put(service("s", "10.0.0.2")).unwrap();
    assert_eq!(events.short(1), ["MODIFIED default/s"]);
    server.put(labelled("s", ("proxy", "other"))).unwrap();
    let gone = events.event().value();
    assert_eq!((gone["type"].as_str(), version(&gone["object"])), (Some("DELETED"), server.revision()));
    assert_eq!(gone["object"]["spec"]["clusterIP"], "10.0.0.2", "the last state that matched");
    assert_eq!(gone["object"]["metadata"]["labels"].get("proxy"), None);
    server.delete(&SERVICE, "default", "s");
    server.put(service("t", "None")).unwrap();
    server.put(service("t", "10.0.0.1")).unwrap();
    assert_eq!(events.short(1), ["ADDED default/t"]);
    server.delete(&SERVICE, "default", "t");
    assert_eq!(events.short(1), ["DELETED default/t"]);
}

#[test]
fn a_version_that_is_gone_is_410() {
    let server = Server::start().unwrap();
    server.put(service("a", "10.0.0.1")).unwrap();
    let old = from(&server);
    server.compact_all();
    let mut events = watch(&server, &old);
    assert_eq!((events.code, events.short(1)), (200, vec!["ERROR 410".to_owned()]));
    assert_eq!(events.event(), Event::Ended);
    server.expired_by_status(true);
    let refused = get(&server, &old);
    assert_eq!((refused.code, refused.json()["reason"].as_str()), (410, Some("Expired")));
    let mut current = watch(&server, &from(&server));
    server.compact_all();
    server.put(service("b", "10.0.0.1")).unwrap();
    assert_eq!(current.short(1), ["ADDED default/b"], "an up-to-date watch goes on");
}

#[test]
fn a_version_that_is_to_come_is_waited_for_or_refused() {
    let server = Server::start().unwrap();
    let future = services(&format!("resourceVersion={}", server.revision() + 2));
    let mut events = watch(&server, &future);
    for name in ["a", "b", "c"] {
        server.put(service(name, "10.0.0.1")).unwrap();
    }
    assert_eq!(events.short(1), ["ADDED default/c"]);
    server.refuse_future(true);
    let future = services(&format!("resourceVersion={}", server.revision() + 2));
    assert_eq!(watch(&server, &future).short(1), ["ERROR 410"]);
}

#[test]
fn a_streamed_list_ends_with_its_bookmark() {
    let server = Server::start().unwrap();
    server.put_all([service("a", "10.0.0.1"), service("b", "None")]).unwrap();
    let path = format!("/api/v1/services?{STREAM}&fieldSelector=spec.clusterIP%21%3DNone");
    let mut events = watch(&server, &path);
    assert_eq!(events.short(1), ["ADDED default/a"]);
    let end = events.event().value();
    assert_eq!(end["object"]["kind"], "Service");
    let metadata = &end["object"]["metadata"];
    assert_eq!((end["type"].as_str(), version(&end["object"])), (Some("BOOKMARK"), server.revision()));
    assert_eq!(metadata["annotations"], json!({ "k8s.io/initial-events-end": "true" }));
    server.put(service("c", "10.0.0.1")).unwrap();
    assert_eq!(events.short(1), ["ADDED default/c"]);

    let mut empty = watch(&server, &format!("/api/v1/nodes?{STREAM}"));
    assert_eq!(empty.short(1), [format!("BOOKMARK \"{}\"", server.revision())]);
    let future =
        get(&server, &format!("/api/v1/services?{STREAM}&resourceVersion={}", server.revision() + 1));
    assert_eq!(future.code, 504);
    let silent = services("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=");
    assert!(watch(&server, &silent).silent(SILENCE));
    for query in ["sendInitialEvents=true", "resourceVersionMatch=NotOlderThan"] {
        assert_eq!(get(&server, &services(query)).code, 422, "{query}");
    }
}

#[test]
fn old_servers_refuse_to_stream_lists_or_do_not_know_it() {
    let server = Server::start().unwrap();
    server.put(service("a", "10.0.0.1")).unwrap();
    server.streaming_lists(StreamingLists::Refused);
    let refused = get(&server, &format!("/api/v1/services?{STREAM}"));
    assert_eq!((refused.code, refused.json()["reason"].as_str()), (422, Some("Invalid")));
    server.streaming_lists(StreamingLists::Unknown);
    let mut events = watch(&server, &format!("/api/v1/services?{STREAM}"));
    assert_eq!(events.short(1), ["ADDED default/a"]);
    assert!(events.silent(SILENCE), "no bookmark ends it");
}

#[test]
fn bookmarks_are_sent_on_request_only() {
    let server = Server::start().unwrap();
    let mut deaf = watch(&server, &from(&server));
    let mut events = watch(&server, &format!("{}&allowWatchBookmarks=true", from(&server)));
    let newer = server.bookmark(&SERVICE);
    assert_eq!(events.short(1), [format!("BOOKMARK \"{newer}\"")]);
    assert!(deaf.silent(SILENCE));
    server.bookmarks_every(Duration::from_millis(50));
    let mut often = watch(&server, &format!("{}&allowWatchBookmarks=true", from(&server)));
    assert_eq!(often.short(2), vec![format!("BOOKMARK \"{newer}\""); 2]);
}

#[test]
fn a_timeout_ends_a_watch_in_order() {
    let server = Server::start().unwrap();
    let mut events = watch(&server, &format!("{}&timeoutSeconds=1", from(&server)));
    assert_eq!(server.open_watches(&SERVICE), 1);
    assert_eq!(events.event(), Event::Ended);
    assert_eq!(server.open_watches(&SERVICE), 0);
}

#[test]
fn a_client_that_goes_away_closes_its_watch() {
    let server = Server::start().unwrap();
    let events = watch(&server, &from(&server));
    assert_eq!(server.open_watches(&SERVICE), 1);
    drop(events);
    let closed = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        server.open_watches(&SERVICE) == 0
    });
    assert!(closed);
}

#[test]
fn invalid_specs_are_served() {
    let server = Server::start().unwrap();
    let mut odd = service("odd", "10.0.0.1");
    odd["spec"] = Value::from(42);
    server.put(odd).unwrap();
    assert_eq!(watch(&server, &services("")).event().value()["object"]["spec"], 42);
    assert!(
        server.put(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "x" } })).is_err()
    );
    assert!(server.put(json!({ "apiVersion": "v1", "kind": "Service", "metadata": {} })).is_err());
}
