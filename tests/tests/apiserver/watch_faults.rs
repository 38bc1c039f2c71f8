//! Faults that tests inject into watches.

use std::time::{Duration, Instant};

use lbr_tests::apiserver::{End, Fault, Order, SERVICE, Server, Verb, When};

use crate::fixtures::{service, version};
use crate::raw::{Event, Open, watch};

const SILENCE: Duration = Duration::from_millis(100);

fn open(server: &Server) -> Open {
    watch(server, &format!("/api/v1/services?watch=true&resourceVersion={}", server.revision()))
}

#[test]
fn a_watch_is_cut_in_the_middle_of_an_event() {
    let server = Server::start().unwrap();
    server.fault(1, When::is(Verb::Watch, &SERVICE), Fault::Cut(1));
    let mut events = open(&server);
    server.put(service("a", "10.0.0.1")).unwrap();
    server.put(service("b", "10.0.0.1")).unwrap();
    assert_eq!(events.short(1), ["ADDED default/a"]);
    match events.event() {
        Event::Broken(half) => assert!(half.starts_with("{\"type\":\"ADDED\""), "{half}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_event_is_no_json() {
    let server = Server::start().unwrap();
    server.fault(1, When::is(Verb::Watch, &SERVICE), Fault::Malformed(1));
    let mut events = open(&server);
    for name in ["a", "b", "c"] {
        server.put(service(name, "10.0.0.1")).unwrap();
    }
    assert_eq!(events.short(3), ["ADDED default/a", "Malformed", "ADDED default/c"]);
}

#[test]
fn all_watches_end() {
    let server = Server::start().unwrap();
    for (how, expected) in [
        (End::Clean, vec!["Ended".to_owned()]),
        (End::Broken, vec!["Broken(\"\")".to_owned()]),
        (End::Expired, vec!["ERROR 410".to_owned(), "Ended".to_owned()]),
    ] {
        let (mut first, mut second) = (open(&server), open(&server));
        server.end_watches(how);
        assert_eq!(first.short(expected.len()), expected);
        assert_eq!(second.short(expected.len()), expected);
        assert!(open(&server).silent(SILENCE), "later ones do not");
    }
}

#[test]
fn held_events_come_in_another_order() {
    let server = Server::start().unwrap();
    for (order, expected) in [
        (Order::Kept, ["MODIFIED default/a 1", "MODIFIED default/b 1", "MODIFIED default/a 2"]),
        (Order::ObjectsReversed, ["MODIFIED default/b 1", "MODIFIED default/a 1", "MODIFIED default/a 2"]),
    ] {
        server.put_all([service("a", "10.0.0.0"), service("b", "10.0.0.0")]).unwrap();
        let mut events = open(&server);
        server.hold(&SERVICE);
        server.put(service("a", "10.0.0.1")).unwrap();
        server.put(service("b", "10.0.0.1")).unwrap();
        server.put(service("a", "10.0.0.2")).unwrap();
        assert!(events.silent(SILENCE));
        server.release(&SERVICE, order);
        for expected in expected {
            let event = events.event();
            let Event::Is(value) = &event else { panic!("{event:?}") };
            let ip =
                value["object"]["spec"]["clusterIP"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
            assert_eq!(format!("{} {ip}", event.short()), expected);
        }
        server.put(service("b", "10.0.0.3")).unwrap();
        assert_eq!(events.short(1), ["MODIFIED default/b"]);
    }
}

#[test]
fn events_come_twice() {
    let server = Server::start().unwrap();
    server.send_twice(&SERVICE, true);
    let mut events = open(&server);
    server.put(service("a", "10.0.0.1")).unwrap();
    let (first, second) = (events.event(), events.event());
    assert_eq!(first, second);
    server.send_twice(&SERVICE, false);
    server.delete(&SERVICE, "default", "a");
    assert_eq!(events.short(1), ["DELETED default/a"]);
    assert!(events.silent(SILENCE));
}

#[test]
fn events_come_late() {
    let server = Server::start().unwrap();
    server.delay_events(&SERVICE, Duration::from_millis(200));
    let mut events = open(&server);
    let start = Instant::now();
    server.put(service("a", "10.0.0.1")).unwrap();
    assert_eq!(events.short(1), ["ADDED default/a"]);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
}

#[test]
fn another_history_begins_lower() {
    let server = Server::start().unwrap();
    let old = server.put_all((0..10).map(|n| service(&format!("s{n}"), "10.0.0.1"))).unwrap();
    let mut events = open(&server);
    server.other_history(7, [service("new", "10.0.0.1")]).unwrap();
    assert_eq!(events.short(1), ["Broken(\"\")"]);
    let list = crate::raw::get(&server, "/api/v1/services");
    assert_eq!((list.names(), version(&list.json())), (vec!["default/new".to_owned()], 8));
    let again = format!("/api/v1/services?watch=true&resourceVersion={old}");
    let mut deaf = watch(&server, &again);
    server.put(service("newer", "10.0.0.1")).unwrap();
    assert!(deaf.silent(SILENCE), "like a real server, it waits for that version");
    server.refuse_future(true);
    assert_eq!(watch(&server, &again).short(1), ["ERROR 410"]);
    assert_eq!(crate::raw::get(&server, &format!("/api/v1/services?resourceVersion={old}")).code, 504);
}
