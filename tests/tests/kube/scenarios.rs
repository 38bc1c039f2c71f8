//! The scenarios of `compile` through an API server: the same objects make the same maps.

use lbr_agent::cluster::Change;
use lbr_agent::cluster::Store;
use lbr_agent::compile::compile;
use lbr_agent::desired::Desired;
use lbr_agent::ids::Ids;
use lbr_agent::model::{Kind, ObjectName, ObjectRef};
use lbr_agent::source::manifest;
use lbr_tests::apiserver::Server;
use lbr_tests::scenario::{Scenario, Step};
use serde_json::{Value, json};

use super::reader::{Reader, WATCHED};

/// The objects of a step, with the defaults of an API server.
fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let mut objects = Vec::new();
    for document in documents {
        match document["items"].as_array() {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(document),
        }
    }
    objects.retain(|object| WATCHED.iter().any(|kind| object["kind"] == kind.kind));
    for object in &mut objects {
        let kind = Kind::ALL.into_iter().find(|kind| object["kind"] == kind.as_str()).unwrap();
        if kind.is_namespaced() && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        for port in
            object["ports"].as_array_mut().into_iter().flatten().filter(|_| kind == Kind::EndpointSlice)
        {
            if port["name"].is_null() {
                port["name"] = json!("");
            }
        }
    }
    objects
}

fn reference(text: &str) -> ObjectRef {
    let (kind, name) = text.split_once(' ').unwrap();
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind).unwrap();
    let name = match name.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace.to_owned(), name.to_owned()),
        None => ObjectName::cluster(name),
    };
    ObjectRef { kind, name }
}

/// Applies a step by a folder, and by a server.
fn change(step: &Step, folder: &mut Store, server: &Server) {
    if let Some(text) = &step.apply {
        let parsed = manifest::parse("scenario", text);
        for object in parsed.objects {
            folder.apply(Change::Apply(object.object));
        }
        for partial in parsed.held.into_iter().filter_map(|held| held.partial) {
            folder.apply(Change::Restrict(partial));
        }
        server.put_all(objects(text)).unwrap();
    }
    for name in step.delete.iter().flatten() {
        let reference = reference(name);
        let kind = WATCHED.into_iter().find(|kind| kind.kind == reference.kind.as_str()).unwrap();
        server.delete(kind, &reference.name.namespace, &reference.name.name);
        folder.apply(Change::Delete(reference));
    }
}

#[test]
fn scenarios_make_the_same_maps() {
    let mut compared = 0;
    for path in Scenario::files("services").unwrap() {
        let scenario = Scenario::load(&path).unwrap();
        let server = Server::start().unwrap();
        let reader = Reader::start(&server);
        let mut folder = Store::new();
        let mut node = scenario.node.view().unwrap();
        for (number, step) in scenario.steps.iter().enumerate() {
            if let Some(now) = &step.node {
                node = now.view().unwrap();
            }
            change(step, &mut folder, &server);
            // Rejections name their origin, and numbers depend on the order of changes.
            let tables = |store: &Store| Desired {
                rejected: Default::default(),
                ..compile(store.state(), &node, &mut Ids::new())
            };
            let wanted = tables(&folder);
            let what = format!("{}, step {}", scenario.name, number + 1);
            reader.wait(&what, |seen| seen.store.is_synced() && tables(&seen.store) == wanted);
            compared += usize::from(wanted != Desired::default());
        }
    }
    assert!(compared > 50, "{compared} tables that were not empty");
}
