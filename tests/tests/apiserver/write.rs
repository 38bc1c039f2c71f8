//! Create, update, patch, delete.

use lbr_tests::apiserver::{ENDPOINT_SLICE, NAMESPACE, SERVICE, Server};
use serde_json::{Value, json};

use crate::fixtures::{SERVICES, service, version};
use crate::raw::{self, Answer, delete, get, patch, post, put};

const ONE: &str = "/api/v1/namespaces/default/services/one";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn refused(answer: &Answer, code: u16, reason: &str) {
    let status = answer.json();
    assert_eq!((answer.code, status["reason"].as_str()), (code, Some(reason)), "{status}");
    assert_eq!((status["kind"].as_str(), status["code"].as_u64()), (Some("Status"), Some(code.into())));
}

fn with_one() -> (Server, Value) {
    let server = Server::start().unwrap();
    let made = post(&server, SERVICES, &service("one", "10.0.0.1"));
    assert_eq!(made.code, 201, "{}", made.text());
    (server, made.json())
}

#[test]
fn created_objects_have_what_the_server_adds() {
    let (server, made) = with_one();
    assert_eq!(made["kind"], "Service");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    assert!(made["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(version(&made), server.revision());
    assert_eq!(get(&server, ONE).json(), made);
    refused(&post(&server, SERVICES, &service("one", "10.0.0.2")), 409, "AlreadyExists");
    refused(&get(&server, "/api/v1/namespaces/default/services/two"), 404, "NotFound");
    let message = get(&server, "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/b").json();
    assert_eq!(message["message"], "endpointslices.discovery.k8s.io \"b\" not found");
    assert_eq!(
        message["details"],
        json!({ "name": "b", "group": "discovery.k8s.io", "kind": "endpointslices" })
    );

    let generated = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "generateName": "web-" } });
    let names: Vec<String> =
        (0..3).map(|_| crate::fixtures::name(&post(&server, SERVICES, &generated).json())).collect();
    assert!(names.iter().all(|name| name.starts_with("default/web-") && name.len() == 17), "{names:?}");
    assert!(names[0] != names[1] && names[1] != names[2]);
    refused(&post(&server, SERVICES, &json!({ "apiVersion": "v1", "kind": "Service" })), 422, "Invalid");
    refused(&post(&server, SERVICES, &json!({ "apiVersion": "v1", "kind": "Pod" })), 400, "BadRequest");
    refused(&raw::send(&server, "POST", SERVICES, "application/json", "{").rest(), 400, "BadRequest");
    let protobuf = raw::send(&server, "POST", SERVICES, "application/vnd.kubernetes.protobuf", "k8s").rest();
    refused(&protobuf, 415, "UnsupportedMediaType");
    let elsewhere = crate::fixtures::service_in("other", "x");
    refused(&post(&server, SERVICES, &elsewhere), 400, "BadRequest");

    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
    let namespace = post(&server, "/api/v1/namespaces", &namespace).json();
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "shop");
    assert!(server.get(&NAMESPACE, "", "shop").is_some());
}

#[test]
fn an_update_from_an_old_version_is_a_conflict() {
    let (server, made) = with_one();
    let mut newer = made.clone();
    newer["spec"]["clusterIP"] = "10.0.0.2".into();
    let updated = put(&server, ONE, &newer);
    assert_eq!(updated.code, 200);
    assert!(version(&updated.json()) > version(&made));
    assert_eq!(updated.json()["metadata"]["uid"], made["metadata"]["uid"]);
    refused(&put(&server, ONE, &newer), 409, "Conflict");
    let stale =
        json!({ "metadata": { "resourceVersion": version(&made).to_string(), "labels": { "a": "b" } } });
    refused(&patch(&server, ONE, MERGE, &stale), 409, "Conflict");
    let mut other = updated.json();
    other["metadata"]["uid"] = "other".into();
    refused(&put(&server, ONE, &other), 409, "Conflict");
    // Without a version, an update replaces any version.
    assert_eq!(put(&server, ONE, &service("one", "10.0.0.3")).code, 200);
    assert_eq!(server.get(&SERVICE, "default", "one").unwrap()["metadata"]["uid"], made["metadata"]["uid"]);
    refused(
        &put(&server, "/api/v1/namespaces/default/services/two", &service("two", "None")),
        404,
        "NotFound",
    );
}

#[test]
fn update_without_a_change_makes_no_version() {
    let (server, made) = with_one();
    assert_eq!(put(&server, ONE, &made).json(), made);
    assert_eq!(
        patch(&server, ONE, MERGE, &json!({ "metadata": { "labels": { "app": "one" } } })).json(),
        made
    );
    server.put(service("one", "10.0.0.1")).unwrap();
    assert_eq!(server.revision(), version(&made));
}

#[test]
fn status_is_only_written_through_its_subresource() {
    let (server, mut made) = with_one();
    let status = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } });
    made["status"] = status.clone();
    assert_eq!(put(&server, ONE, &made).json().get("status"), None);
    made["spec"]["clusterIP"] = "10.9.9.9".into();
    let written = put(&server, &format!("{ONE}/status"), &made).json();
    assert_eq!((&written["status"], written["spec"]["clusterIP"].as_str()), (&status, Some("10.0.0.1")));
    let cleared =
        patch(&server, ONE, MERGE, &json!({ "status": null, "spec": { "type": "NodePort" } })).json();
    assert_eq!((&cleared["status"], cleared["spec"]["type"].as_str()), (&status, Some("NodePort")));
    let patched =
        patch(&server, &format!("{ONE}/status"), MERGE, &json!({ "status": { "loadBalancer": {} } }));
    assert_eq!(patched.json()["status"], status, "an empty object removes nothing");
    assert_eq!(get(&server, &format!("{ONE}/status")).json()["status"], status);
    let mut two = service("two", "10.0.0.1");
    two["status"] = status.clone();
    assert_eq!(post(&server, SERVICES, &two).json().get("status"), None);
    // Nodes register with a status.
    let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n" }, "status": { "phase": "x" } });
    assert_eq!(post(&server, "/api/v1/nodes", &node).json()["status"]["phase"], "x");
    assert_eq!(get(&server, "/apis/networking.k8s.io/v1/namespaces/a/networkpolicies/b/status").code, 404);
}

#[test]
fn merge_patches_replace_lists_and_strategic_ones_merge_them() {
    let (server, _) = with_one();
    let two = json!({ "spec": { "ports": [{ "port": 80, "name": "a" }, { "port": 90, "name": "b" }] } });
    assert_eq!(patch(&server, ONE, MERGE, &two).json()["spec"]["ports"], two["spec"]["ports"]);
    let one = json!({ "spec": {
        "$setElementOrder/ports": [{ "port": 90 }, { "port": 80 }],
        "ports": [{ "port": 80, "targetPort": 8080 }],
    } });
    let ports = patch(&server, ONE, STRATEGIC, &one).json()["spec"]["ports"].clone();
    assert_eq!(ports, json!([{ "port": 90, "name": "b" }, { "port": 80, "name": "a", "targetPort": 8080 }]));
    let gone = json!({ "spec": { "ports": [{ "$patch": "delete", "port": 90 }] } });
    let ports = patch(&server, ONE, STRATEGIC, &gone).json()["spec"]["ports"].clone();
    assert_eq!(ports, json!([{ "port": 80, "name": "a", "targetPort": 8080 }]));
    let replaced = json!({ "spec": { "ports": [{ "$patch": "replace" }, { "port": 1 }] } });
    assert_eq!(patch(&server, ONE, STRATEGIC, &replaced).json()["spec"]["ports"], json!([{ "port": 1 }]));
    let null = json!({ "metadata": { "labels": { "app": null, "b": "c" } } });
    assert_eq!(patch(&server, ONE, STRATEGIC, &null).json()["metadata"]["labels"], json!({ "b": "c" }));
    refused(&patch(&server, ONE, "application/json-patch+json", &json!({})), 415, "UnsupportedMediaType");
}

#[test]
fn the_lists_of_an_endpoint_slice_are_replaced() {
    let server = Server::start().unwrap();
    server
        .put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": { "name": "s" },
            "ports": [{ "port": 80 }, { "port": 90 }],
        }))
        .unwrap();
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/s";
    patch(&server, path, STRATEGIC, &json!({ "ports": [{ "port": 80, "name": "a" }] }));
    let slice = server.get(&ENDPOINT_SLICE, "default", "s").unwrap();
    assert_eq!(slice["ports"], json!([{ "port": 80, "name": "a" }]));
}

#[test]
fn apply_creates_and_then_merges() {
    let server = Server::start().unwrap();
    let applied = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "one" }, "spec": { "ports": [
        { "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" },
    ] } });
    refused(&patch(&server, ONE, APPLY, &applied), 422, "Invalid");
    let path = format!("{ONE}?fieldManager=test");
    assert_eq!(patch(&server, &path, APPLY, &applied).code, 201);
    let mut changed = applied.clone();
    changed["spec"]["ports"][1]["targetPort"] = 5353.into();
    let again = patch(&server, &path, APPLY, &changed);
    assert_eq!((again.code, &again.json()["spec"]["ports"]), (200, &changed["spec"]["ports"]));
}

#[test]
fn deletion_has_preconditions_and_finalizers() {
    let (server, made) = with_one();
    refused(&delete(&server, ONE, r#"{"preconditions":{"uid":"other"}}"#), 409, "Conflict");
    let gone = delete(&server, ONE, "");
    assert_eq!((gone.code, &gone.json()["details"]["uid"]), (200, &made["metadata"]["uid"]));
    assert_eq!(gone.json()["status"], "Success");
    refused(&delete(&server, ONE, ""), 404, "NotFound");

    let mut held = service("one", "10.0.0.1");
    held["metadata"]["finalizers"] = json!(["example.org/wait"]);
    post(&server, SERVICES, &held);
    assert!(delete(&server, ONE, "").json()["metadata"]["deletionTimestamp"].is_string());
    assert!(server.get(&SERVICE, "default", "one").is_some());
    patch(&server, ONE, MERGE, &json!({ "metadata": { "finalizers": null } }));
    assert_eq!(server.get(&SERVICE, "default", "one"), None);
}

#[test]
fn a_collection_is_deleted_by_selector() {
    let server = Server::start().unwrap();
    server.put_all(["a", "b"].map(|name| service(name, "10.0.0.1"))).unwrap();
    assert_eq!(delete(&server, &format!("{SERVICES}?labelSelector=app%3Da"), "").code, 200);
    assert_eq!(get(&server, SERVICES).names(), ["default/b"]);
}
