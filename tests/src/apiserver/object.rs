//! One version of one object: its text, and the values for selectors. The text is made once, and shared by every list
//! and watch.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::kind::Kind;

/// The place of an object: namespace (empty for none), then name. Lists are in this order.
pub(super) type Key = (String, String);

/// One version of one object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: &'static Kind,
    pub(super) key: Key,
    pub(super) revision: u64,
    pub(super) labels: BTreeMap<String, String>,
    /// Values of [`Kind::fields`], in their order.
    pub(super) fields: Vec<String>,
    /// `{"metadata":..}` without `kind` and `apiVersion`, as items of a list are.
    pub(super) text: Bytes,
}

impl Object {
    /// Takes `value` at `revision`, which is written into it.
    pub(super) fn new(kind: &'static Kind, mut value: Value, revision: u64) -> Self {
        if let Some(fields) = value.as_object_mut() {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        metadata_mut(&mut value).insert("resourceVersion".to_owned(), revision.to_string().into());
        let text =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let labels = value.pointer("/metadata/labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        Self {
            kind,
            key: (text("/metadata/namespace"), text("/metadata/name")),
            revision,
            labels: labels
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
            fields: kind.fields.iter().map(|field| field_of(&value, field.pointers)).collect(),
            text: Bytes::from(value.to_string()),
        }
    }

    /// The same object at another revision, for a DELETED event.
    pub(super) fn at(&self, revision: u64) -> Self {
        Self::new(self.kind, self.value(), revision)
    }

    /// The object as JSON, with `kind` and `apiVersion`.
    pub(super) fn value(&self) -> Value {
        let mut value: Value = serde_json::from_slice(&self.text).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("kind".to_owned(), self.kind.kind.into());
            fields.insert("apiVersion".to_owned(), self.kind.api_version().into());
        }
        value
    }

    /// The object's text with `kind` and `apiVersion`, in parts.
    pub(super) fn parts(&self) -> [Bytes; 2] {
        [head(self.kind), self.text.slice(1..)]
    }
}

/// The beginning of an object's text.
fn head(kind: &Kind) -> Bytes {
    Bytes::from(format!(r#"{{"kind":"{}","apiVersion":"{}","#, kind.kind, kind.api_version()))
}

/// The metadata, created if it is missing.
pub(super) fn metadata_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let metadata = &mut value["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    match metadata {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

/// A string of the metadata.
pub(super) fn metadata_text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get("metadata")?.get(name)?.as_str().filter(|text| !text.is_empty())
}

fn field_of(value: &Value, pointers: &[&str]) -> String {
    match pointers.iter().find_map(|pointer| value.pointer(pointer)) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}
