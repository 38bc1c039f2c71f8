//! Objects.

use serde_json::{Value, json};

pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A Service of namespace `default`.
pub(crate) fn service(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": "default", "name": name, "labels": { "app": name } },
        "spec": { "clusterIP": ip, "ports": [{ "port": 80, "protocol": "TCP" }] },
    })
}

/// A Service with one label more.
pub(crate) fn labelled(name: &str, label: (&str, &str)) -> Value {
    let mut service = service(name, "10.0.0.1");
    service["metadata"]["labels"][label.0] = label.1.into();
    service
}

/// A Service of another namespace.
pub(crate) fn service_in(namespace: &str, name: &str) -> Value {
    let mut service = service(name, "10.0.0.1");
    service["metadata"]["namespace"] = namespace.into();
    service
}

pub(crate) fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": "default", "name": name },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "none" }] },
    })
}

/// `namespace/name`.
pub(crate) fn name(object: &Value) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}
