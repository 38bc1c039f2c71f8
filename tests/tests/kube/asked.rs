//! The requests of lbr.

use lbr_tests::apiserver::{ENDPOINT_SLICE, SERVICE, StreamingLists, Verb};
use serde_json::json;

use super::reader::{Reader, WATCHED, populated, service};

/// As kube-proxy asks.
#[test]
fn services_and_slices_are_selected_by_the_server() {
    let server = populated();
    let mut other = service("other", "10.0.0.9");
    other["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "x"});
    server.put(other).unwrap();
    let reader = Reader::start(&server);
    reader.follows(&server, "selected");
    let paths = |kind: &lbr_tests::apiserver::Kind| {
        let asked =
            server.requests().into_iter().filter(|r| r.kind.as_ref().is_some_and(|k| std::ptr::eq(*k, kind)));
        asked.map(|r| r.path).collect::<Vec<_>>()
    };
    for (kind, wanted) in [
        (&SERVICE, ["labelSelector=%21service.kubernetes.io", "fieldSelector=spec.clusterIP%21%3DNone"]),
        (&ENDPOINT_SLICE, ["labelSelector=%21service.kubernetes.io", "headless"]),
    ] {
        let all = paths(kind);
        assert!(!all.is_empty() && all.iter().all(|path| wanted.iter().all(|w| path.contains(w))), "{all:?}");
    }
}

#[test]
fn each_kind_is_listed_once_and_watched_once() {
    for lists in [StreamingLists::Served, StreamingLists::Refused] {
        let server = populated();
        server.streaming_lists(lists);
        let reader = Reader::start(&server);
        reader.follows(&server, "listed");
        for kind in WATCHED {
            let listed = server.count(Verb::List, kind);
            assert_eq!(listed, usize::from(matches!(lists, StreamingLists::Refused)), "{kind:?}");
        }
    }
}

#[test]
fn long_lists_come_in_pages() {
    let server = populated();
    server.streaming_lists(StreamingLists::Refused);
    server.put_all((0..1_200).map(|n| service(&format!("many{n}"), "10.0.3.1"))).unwrap();
    let reader = Reader::start(&server);
    reader.follows(&server, "pages");
    assert_eq!(server.count(Verb::List, &SERVICE), 3, "500 each");
}
