//! Events as watches send them: one line of JSON each.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde_json::{Value, json};

use super::failure::Failure;
use super::history::Change;
use super::kind::Kind;
use super::object::Object;

/// A bookmark; with a flag, the one that ends the initial events. Its object has only metadata.
pub(super) fn bookmark(kind: &Kind, revision: u64, end_of_initial: bool) -> Bytes {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if end_of_initial {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({ "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata });
    text("BOOKMARK", &object)
}

pub(super) fn error(failure: &Failure) -> Bytes {
    text("ERROR", &failure.status())
}

/// Changes grouped by object, the last object first.
pub(super) fn objects_reversed<'a>(changes: &[&'a Change]) -> Vec<&'a Change> {
    let mut objects: BTreeMap<_, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        let object = change.after.as_ref().or(change.before.as_ref());
        objects.entry(object.map(|object| &object.key)).or_default().push(change);
    }
    objects.into_values().rev().flatten().collect()
}

fn text(what: &str, object: &Value) -> Bytes {
    Bytes::from(format!("{}\n", json!({ "type": what, "object": object })))
}

/// An event of an object, whose text is copied as it is.
pub(super) fn of(what: &str, object: &Object) -> Bytes {
    let parts = object.parts();
    let mut text = BytesMut::with_capacity(32 + parts.iter().map(Bytes::len).sum::<usize>());
    text.put_slice(format!(r#"{{"type":"{what}","object":"#).as_bytes());
    for part in parts {
        text.put(part);
    }
    text.put_slice(b"}\n");
    text.freeze()
}
