//! The discovery documents: version, groups, resources, and as much of OpenAPI as kubectl needs.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::kind::{KINDS, Kind, Status};

/// Claims that the server checks fields, so that kubectl needs no schemas for that. The server checks nothing.
const FIELD_VALIDATION: &str = "fieldValidation";

/// The answer for a path; None if the path is no discovery document.
pub(super) fn answer(path: &str, absent: &BTreeSet<&'static Kind>) -> Option<Value> {
    let served: Vec<&Kind> = KINDS.into_iter().filter(|kind| !absent.contains(kind)).collect();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["version"] => Some(version()),
        ["healthz" | "livez" | "readyz"] => Some("ok".into()),
        ["api"] => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => {
            let groups: Vec<Value> =
                groups(&served).into_iter().map(|(name, version)| group(name, version)).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["apis", name] => groups(&served)
            .into_iter()
            .find(|(group, _)| *group == name)
            .map(|(name, version)| group(name, version)),
        ["api", version] => resources("", version, &served),
        ["apis", group, version] => resources(group, version, &served),
        ["openapi", "v3"] => {
            let paths = versions(&served).into_iter().map(|(group, version)| {
                let path = prefix(group, version);
                (path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}") }))
            });
            Some(json!({ "paths": paths.collect::<Map<_, _>>() }))
        }
        ["openapi", "v3", "api", version] => schema("", version, &served),
        ["openapi", "v3", "apis", group, version] => schema(group, version, &served),
        _ => None,
    }
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": "v1.36.0-test",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "none",
        "platform": "linux/amd64",
    })
}

fn versions<'a>(served: &[&'a Kind]) -> BTreeSet<(&'a str, &'a str)> {
    served.iter().map(|kind| (kind.group, kind.version)).collect()
}

/// Named groups: each has one version here.
fn groups<'a>(served: &[&'a Kind]) -> BTreeSet<(&'a str, &'a str)> {
    versions(served).into_iter().filter(|(group, _)| !group.is_empty()).collect()
}

fn group(name: &str, version: &str) -> Value {
    let version = json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": [version],
        "preferredVersion": version,
    })
}

fn resources(group: &str, version: &str, served: &[&Kind]) -> Option<Value> {
    let kinds = served.iter().filter(|kind| kind.group == group && kind.version == version);
    let resources: Vec<Value> = kinds.flat_map(|kind| entries(kind)).collect();
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": version,
            "resources": resources,
        })
    })
}

fn entries(kind: &Kind) -> Vec<Value> {
    let mut object = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    });
    if !kind.short.is_empty() {
        object["shortNames"] = kind.short.into();
    }
    let mut entries = vec![object];
    if kind.status != Status::None {
        entries.push(json!({
            "name": format!("{}/status", kind.plural),
            "singularName": "",
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": ["get", "patch", "update"],
        }));
    }
    entries
}

fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Says only that objects of these kinds can be patched, and that fields are checked.
fn schema(group: &str, version: &str, served: &[&Kind]) -> Option<Value> {
    let kinds = served.iter().filter(|kind| kind.group == group && kind.version == version);
    let parameter = json!({ "name": FIELD_VALIDATION, "in": "query", "schema": { "type": "string" } });
    let paths: Map<String, Value> = kinds
        .map(|kind| {
            let namespace = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
            let path = format!("/{}{namespace}/{}/{{name}}", prefix(group, version), kind.plural);
            let gvk = json!({ "group": kind.group, "version": kind.version, "kind": kind.kind });
            let operation = |action: &str| {
                json!({
                    "parameters": [parameter],
                    "responses": {},
                    "x-kubernetes-action": action,
                    "x-kubernetes-group-version-kind": gvk,
                })
            };
            (path, json!({ "patch": operation("patch"), "put": operation("put") }))
        })
        .collect();
    let info = json!({ "title": "Kubernetes", "version": "v1.36.0-test" });
    (!paths.is_empty())
        .then(|| json!({ "openapi": "3.0.0", "info": info, "paths": paths, "components": { "schemas": {} } }))
}
