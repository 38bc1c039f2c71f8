//! Which paths are served, and which are not.

use lbr_tests::apiserver::{SERVICE_CIDR, Server};

use crate::raw::get;

fn names(list: &serde_json::Value) -> Vec<&str> {
    list["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect()
}

#[test]
fn kinds_are_found() {
    let server = Server::start().unwrap();
    assert_eq!(get(&server, "/version").json()["major"], "1");
    assert_eq!(get(&server, "/readyz").text(), "ok");
    assert_eq!(get(&server, "/api").json()["versions"][0], "v1");
    let groups = get(&server, "/apis").json();
    let groups: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().map(|group| group["name"].as_str().unwrap()).collect();
    assert_eq!(
        groups,
        ["apps", "discovery.k8s.io", "events.k8s.io", "networking.k8s.io", "rbac.authorization.k8s.io"]
    );
    let core = get(&server, "/api/v1").json();
    assert!(names(&core).contains(&"services/status"));
    assert_eq!(core["resources"][0]["shortNames"][0], "svc");
    let slices = get(&server, "/apis/discovery.k8s.io/v1").json();
    assert_eq!(names(&slices), ["endpointslices"]);
    assert_eq!(slices["groupVersion"], "discovery.k8s.io/v1");
}

#[test]
fn a_kind_that_is_switched_off_is_absent() {
    let server = Server::start().unwrap();
    let (group, path) = ("/apis/networking.k8s.io/v1", "/apis/networking.k8s.io/v1/servicecidrs");
    assert_eq!(get(&server, path).code, 200);
    server.serve(&SERVICE_CIDR, false);
    for query in ["", "?watch=true"] {
        let absent = get(&server, &format!("{path}{query}"));
        assert_eq!((absent.code, absent.json()["reason"].as_str()), (404, Some("NotFound")));
    }
    assert_eq!(names(&get(&server, group).json()), ["networkpolicies"]);
    server.serve(&SERVICE_CIDR, true);
    assert_eq!(get(&server, path).code, 200);
}

#[test]
fn unknown_paths_are_404_and_wrong_methods_405() {
    let server = Server::start().unwrap();
    for path in [
        "/",
        "/api/v2",
        "/apis/apps/v1/deployments",
        "/api/v1/secrets",
        "/api/v1/namespaces/x/nodes",
        "/api/v1/services/x",
    ] {
        let answer = get(&server, path);
        assert_eq!((answer.code, answer.json()["kind"].as_str()), (404, Some("Status")), "{path}");
    }
    assert_eq!(crate::raw::post(&server, "/api/v1/services", &serde_json::json!({})).code, 405);
}
