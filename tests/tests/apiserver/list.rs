//! Lists: versions, pages, selectors.

use lbr_tests::apiserver::{SERVICE, Server, Verb};
use serde_json::json;

use crate::fixtures::{SERVICES, labelled, pod, service, service_in, version};
use crate::raw::{Answer, get};

fn five() -> Server {
    let server = Server::start().unwrap();
    server.put_all((1..=5).map(|n| service(&format!("s{n}"), "10.0.0.1"))).unwrap();
    server
}

fn names(of: &[u32]) -> Vec<String> {
    of.iter().map(|n| format!("default/s{n}")).collect()
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.code, answer.json()["reason"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_list_is_of_all_namespaces_or_of_one() {
    let server = Server::start().unwrap();
    server.put_all([service_in("b", "x"), service_in("a", "y"), service_in("a", "x")]).unwrap();
    let all = get(&server, "/api/v1/services");
    assert_eq!(all.names(), ["a/x", "a/y", "b/x"]);
    assert_eq!(all.json()["kind"], "ServiceList");
    assert_eq!(version(&all.json()), server.revision());
    assert_eq!(all.json()["items"][0].get("kind"), None, "items do not repeat the kind");
    assert_eq!(get(&server, "/api/v1/namespaces/a/services").names(), ["a/x", "a/y"]);
    assert_eq!(get(&server, "/api/v1/namespaces/none/services").names(), [""; 0]);
    assert_eq!(server.count(Verb::List, &SERVICE), 3);
}

#[test]
fn pages_are_of_the_version_of_the_first() {
    let server = five();
    let first = get(&server, "/api/v1/services?limit=2");
    assert_eq!(first.names(), names(&[1, 2]));
    assert_eq!(first.json()["metadata"]["remainingItemCount"], 3);
    server.delete(&SERVICE, "default", "s3");
    server.put(service("s4", "10.9.9.9")).unwrap();
    server.put(service("s3x", "10.0.0.1")).unwrap();
    let token = first.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let second = get(&server, &format!("/api/v1/services?limit=2&continue={token}"));
    assert_eq!(second.names(), names(&[3, 4]));
    assert_eq!(second.json()["items"][1]["spec"]["clusterIP"], "10.0.0.1", "as it was");
    assert_eq!(version(&second.json()), version(&first.json()));
    let token = second.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let third = get(&server, &format!("/api/v1/services?limit=2&continue={token}"));
    assert_eq!(third.names(), names(&[5]));
    assert_eq!(third.json()["metadata"].get("continue"), None);
}

#[test]
fn a_stale_token_is_410_and_the_one_it_gives_goes_on() {
    let server = five();
    let first = get(&server, "/api/v1/services?limit=2");
    let token = first.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    server.put(service("s4x", "10.0.0.1")).unwrap();
    server.compact(server.revision());
    let stale = get(&server, &format!("/api/v1/services?limit=2&continue={token}"));
    assert_eq!(code(&stale), (410, "Expired".to_owned()));
    let token = stale.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = get(&server, &format!("/api/v1/services?continue={token}"));
    assert_eq!(rest.names(), ["default/s3", "default/s4", "default/s4x", "default/s5"]);
    assert_eq!(version(&rest.json()), server.revision());
    assert_eq!(get(&server, "/api/v1/services?continue=nonsense").code, 400);
}

#[test]
fn resource_version_parameters_select_a_version() {
    let server = five();
    let old = server.revision();
    server.delete(&SERVICE, "default", "s2");
    let list = |query: &str| get(&server, &format!("/api/v1/services?{query}"));
    let (now, before) = (names(&[1, 3, 4, 5]), names(&[1, 2, 3, 4, 5]));
    for query in ["resourceVersion=", "resourceVersion=0", "resourceVersion=0&limit=1"] {
        assert_eq!(list(query).names(), now, "{query}");
    }
    assert_eq!(list(&format!("resourceVersion={old}")).names(), now, "at least that old");
    assert_eq!(list(&format!("resourceVersion={old}&resourceVersionMatch=NotOlderThan")).names(), now);
    let exact = list(&format!("resourceVersion={old}&resourceVersionMatch=Exact"));
    assert_eq!((exact.names(), version(&exact.json())), (before, old));
    assert_eq!(
        list(&format!("resourceVersion={old}&limit=2")).names(),
        names(&[1, 2]),
        "a limit makes it exact"
    );

    let future = list(&format!("resourceVersion={}", server.revision() + 1));
    assert_eq!(code(&future), (504, "Timeout".to_owned()));
    let exact = list(&format!("resourceVersion={}&resourceVersionMatch=Exact", server.revision() + 1));
    assert_eq!(exact.code, 504);
    assert_eq!(future.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    for query in [
        "resourceVersionMatch=Exact",
        "resourceVersion=0&resourceVersionMatch=Exact",
        "sendInitialEvents=true",
    ] {
        assert_eq!(code(&list(query)), (422, "Invalid".to_owned()), "{query}");
    }
    server.compact(server.revision());
    assert_eq!(
        code(&list(&format!("resourceVersion={old}&resourceVersionMatch=Exact"))),
        (410, "Expired".to_owned())
    );
    assert_eq!(list(&format!("resourceVersion={old}")).names(), now, "compaction is nothing to a cache");
}

#[test]
fn label_selectors() {
    let server = Server::start().unwrap();
    server.put_all([labelled("a", ("t", "x")), labelled("b", ("t", "y")), service("c", "10.0.0.1")]).unwrap();
    for (selector, expected) in [
        ("t=x", "a"),
        ("t==x", "a"),
        ("t!=x", "b c"),
        ("t", "a b"),
        ("!t", "c"),
        ("t in (x,y)", "a b"),
        ("t notin (x)", "b c"),
        ("t in (x, y),app!=a", "b"),
        ("app in (a,c),!t", "c"),
        ("!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name", "a b c"),
    ] {
        let encoded = selector.replace(' ', "%20").replace('!', "%21").replace(',', "%2C");
        let found = get(&server, &format!("{SERVICES}?labelSelector={encoded}")).names();
        let expected: Vec<String> = expected.split(' ').map(|name| format!("default/{name}")).collect();
        assert_eq!(found, expected, "{selector}");
    }
    for selector in ["a%20like%20b", "a%20in%20(b", "=b", "%21"] {
        assert_eq!(get(&server, &format!("{SERVICES}?labelSelector={selector}")).code, 400, "{selector}");
    }
}

#[test]
fn field_selectors() {
    let server = Server::start().unwrap();
    let external = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "ext" },
        "spec": { "type": "ExternalName", "externalName": "example.org" },
    });
    server.put_all([service("a", "10.0.0.1"), service("headless", "None"), external]).unwrap();
    server.put_all([pod("here", "node1"), pod("there", "node2"), service_in("other", "a")]).unwrap();
    for (path, expected) in [
        ("services?fieldSelector=spec.clusterIP%21%3DNone", "default/a default/ext other/a"),
        ("services?fieldSelector=spec.clusterIP=None", "default/headless"),
        ("services?fieldSelector=spec.type=ExternalName", "default/ext"),
        ("services?fieldSelector=metadata.name=a", "default/a other/a"),
        ("services?fieldSelector=metadata.name=a,metadata.namespace!=default", "other/a"),
        ("pods?fieldSelector=spec.nodeName=node1", "default/here"),
    ] {
        let found = get(&server, &format!("/api/v1/{path}")).names();
        assert_eq!(found, expected.split(' ').collect::<Vec<_>>(), "{path}");
    }
    let unknown = get(&server, "/api/v1/services?fieldSelector=spec.color=red");
    assert_eq!(code(&unknown), (400, "BadRequest".to_owned()));
    assert!(unknown.text().contains("field label not supported: spec.color"));
    assert_eq!(get(&server, "/api/v1/nodes?fieldSelector=metadata.namespace=x").code, 400);
}
