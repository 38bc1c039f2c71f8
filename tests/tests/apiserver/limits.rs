//! Cases where a store of kube-rs 5.0 does not follow by itself, so lbr must handle them. A test that fails here with
//! a newer kube-rs is good news.

use std::time::Duration;

use lbr_tests::apiserver::{End, Fault, SERVICE, StreamingLists, Verb, When};

use crate::fixtures::service;
use crate::reflector::{DOUBT, PATIENCE, churn, lists, populated, reflect, streams};

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_not_given_up_for_lists() {
    for how in [StreamingLists::Refused, StreamingLists::Unknown] {
        let server = populated();
        server.streaming_lists(how);
        let client = reflect(&server, streams());
        assert!(!client.follows(&server, DOUBT).await, "kube-rs falls back by itself now: {how:?}");
        assert_eq!(server.count(Verb::List, &SERVICE), 0);
        server.streaming_lists(StreamingLists::Served);
        client.must_follow(&server, "when they are known").await;
        assert!(reflect(&server, lists()).follows(&server, PATIENCE).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_version_answered_by_status_is_retried_forever() {
    let mut server = populated();
    server.expired_by_status(true);
    let client = reflect(&server, lists());
    client.must_follow(&server, "at first").await;
    let listed = server.count(Verb::List, &SERVICE);
    server.stop();
    churn(&server, 1);
    server.compact_all();
    server.resume().unwrap();
    assert!(!client.follows(&server, DOUBT).await, "kube-rs lists again by itself now");
    assert_eq!(server.count(Verb::List, &SERVICE), listed);
    server.expired_by_status(false);
    client.must_follow(&server, "when expiry is an event").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_no_json_is_lost() {
    let server = populated();
    server.fault(1, When::is(Verb::Watch, &SERVICE), Fault::Malformed(0));
    let client = reflect(&server, lists());
    client.must_follow(&server, "at first").await;
    while server.open_watches(&SERVICE) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.put(service("lost", "10.0.0.1")).unwrap();
    server.put(service("found", "10.0.0.1")).unwrap();
    assert!(!client.follows(&server, DOUBT).await, "kube-rs lists again by itself now");
    assert!(client.sees().contains_key("default/found"));
    server.end_watches(End::Expired);
    client.must_follow(&server, "after a new list").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_object_of_another_shape_stops_a_list() {
    let server = populated();
    let mut odd = service("odd", "10.0.0.1");
    odd["spec"]["ports"] = 42.into();
    server.put(odd).unwrap();
    let client = reflect(&server, lists());
    tokio::time::sleep(DOUBT).await;
    assert!(client.sees().is_empty(), "kube-rs takes the other objects now");
    server.delete(&SERVICE, "default", "odd");
    client.must_follow(&server, "without it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_is_not_noticed() {
    let server = populated();
    let client = reflect(&server, lists());
    client.must_follow(&server, "at first").await;
    server.other_history(50, [service("only", "10.7.0.2")]).unwrap();
    assert!(!client.follows(&server, DOUBT).await, "kube-rs notices versions that fall now");
    server.end_watches(End::Expired);
    client.must_follow(&server, "after a new list").await;
}
