//! From the text of a file to objects and rejections. Pure: opens no file.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{causes, documents};
use crate::model::convert::{Converted, Problem, valid_name};
use crate::model::{Extent, Item, Kind, Object, ObjectName, ObjectRef, Partial, Rejected};
use crate::source::decode::{Author, decode, refused, refused_policy};

/// Letters by which a kind or a group may differ from the one that is meant: `NetworkPolicies`, `network.k8s.io`.
const TYPOS: usize = 3;
/// Maximum nesting of lists. Real manifests do not nest them.
const MAX_LIST_DEPTH: usize = 4;

/// The content of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The accepted objects, in the order of the file.
    pub objects: Vec<ParsedObject>,
    /// Recognised objects that were rejected as a whole: their last accepted version stays in force.
    pub held: Vec<Held>,
    /// All rejections.
    pub rejected: Vec<Rejected>,
    /// Kinds that lbr does not use.
    pub skipped: BTreeSet<String>,
    /// Some document could not be identified. It may be any object that the file had before.
    pub unreadable: bool,
}

/// An accepted object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedObject {
    /// Number of its document in the file, from 1.
    pub document: usize,
    /// Its place: `web.yaml, document 2`.
    pub origin: String,
    /// The object.
    pub object: Object,
}

/// An object that was rejected as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its place: `web.yaml, document 2`.
    pub origin: String,
    /// Its kind and name.
    pub reference: ObjectRef,
    /// What can be read of it.
    pub partial: Option<Partial>,
}

/// Reads the text of a manifest. `origin` is its name for people.
pub fn parse(origin: &str, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for document in documents::split(text) {
        let results = documents::read_all(&document);
        let many = results.len() > 1;
        for (i, result) in results.into_iter().enumerate() {
            let mut origin = format!("{origin}, document {}", document.number);
            if many {
                origin.push_str(&format!(", object {}", i + 1));
            }
            let at = At { origin, document: document.number };
            match result {
                // The document has only comments and nulls.
                Ok(Value::Null) => {}
                Ok(value) => parsed.add(&at, value, 0),
                Err(reason) => parsed.unidentified(&at, String::new(), "", reason),
            }
        }
    }
    parsed
}

struct At {
    origin: String,
    document: usize,
}

impl Parsed {
    /// A file that cannot be read at all.
    pub(super) fn unreadable(origin: &str, reason: String) -> Self {
        let mut parsed = Self::default();
        let at = At { origin: origin.to_owned(), document: 0 };
        parsed.unidentified(&at, String::new(), "", reason);
        parsed
    }

    fn reject(&mut self, at: &At, object: String, field: &str, reason: String) {
        self.report(at, Extent::Rejected, Item::Text(object), field, reason);
    }

    fn report(&mut self, at: &At, extent: Extent, object: Item, field: &str, reason: String) {
        let reason = match causes::template(&reason) {
            Some(what) if !reason.contains(what) => format!("{reason}; it is {what}"),
            _ => reason,
        };
        let (origin, field) = (at.origin.clone(), field.to_owned());
        self.rejected.push(Rejected { extent, object, origin, field, reason });
    }

    fn unidentified(&mut self, at: &At, object: String, field: &str, reason: String) {
        self.unreadable = true;
        self.reject(at, object, field, reason);
    }

    fn add(&mut self, at: &At, mut value: Value, depth: usize) {
        if !value.is_object() {
            return self.unidentified(at, String::new(), "", no_object(&value));
        }
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, version) = (text("kind"), text("apiVersion"));
        if kind.is_empty() {
            return self.unidentified(at, String::new(), "kind", no_kind(at, &value));
        }
        if let Some(item_kind) = kind.strip_suffix("List")
            && (item_kind.is_empty() || known(item_kind).is_some())
        {
            return self.add_list(at, value, item_kind, &version, depth);
        }
        if kind == "Endpoints" && matches!(version.as_str(), "v1" | "") {
            let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            let reason =
                "is not read: write an EndpointSlice (discovery.k8s.io/v1), which replaced it".to_owned();
            return self.reject(at, format!("Endpoints {name}").trim().to_owned(), "kind", reason);
        }
        let Some((known_kind, wanted)) = known(&kind) else {
            if is_like_policy(&kind) && !is_foreign(&version) {
                return self.add_misspelt_policy(at, value, &kind);
            }
            self.skipped.insert(kind);
            return;
        };
        if version != wanted && is_foreign(&version) {
            self.skipped.insert(format!("{kind} ({version})"));
            return;
        }
        let reference = match identify(known_kind, &mut value) {
            Ok(reference) => reference,
            Err((field, reason)) => return self.unidentified(at, kind, field, reason),
        };
        let converted = if version == wanted {
            decode(known_kind, value, Author::Person)
        } else {
            let reason =
                format!("is {version:?}, but lbr reads {kind} of {wanted}: write apiVersion: {wanted}");
            match known_kind {
                Kind::NetworkPolicy => refused_policy(&value, "apiVersion", reason),
                _ => refused("apiVersion", reason),
            }
        };
        self.record(at, reference, converted);
    }

    /// Isolates, since skipping the policy would leave its pods open.
    fn add_misspelt_policy(&mut self, at: &At, mut value: Value, kind: &str) {
        let wanted = Kind::NetworkPolicy.as_str();
        match identify(Kind::NetworkPolicy, &mut value) {
            Ok(reference) => {
                let reason =
                    format!("is {kind:?}, and lbr takes it for a misspelt {wanted}: write kind: {wanted}");
                self.record(at, reference, refused_policy(&value, "kind", reason));
            }
            Err((field, reason)) => self.unidentified(at, kind.to_owned(), field, reason),
        }
    }

    fn add_list(&mut self, at: &At, mut value: Value, item_kind: &str, version: &str, depth: usize) {
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if depth < MAX_LIST_DEPTH => items,
            None | Some(Value::Null) => Vec::new(),
            _ => {
                let reason = "is not a list of objects".to_owned();
                return self.unidentified(at, String::new(), "items", reason);
            }
        };
        for (i, mut item) in items.into_iter().enumerate() {
            // Items of a ServiceList need no kind and apiVersion.
            if let (false, Value::Object(fields)) = (item_kind.is_empty(), &mut item) {
                fields.entry("kind").or_insert_with(|| item_kind.into());
                fields.entry("apiVersion").or_insert_with(|| version.into());
            }
            let at = At { origin: format!("{}, item {}", at.origin, i + 1), document: at.document };
            self.add(&at, item, depth + 1);
        }
    }

    fn record(&mut self, at: &At, reference: ObjectRef, converted: Converted<Object>) {
        let extent = if converted.object.is_some() { Extent::Limited } else { Extent::Rejected };
        for Problem { field, reason } in converted.problems {
            self.report(at, extent, reference.clone().into(), &field, reason);
        }
        let origin = at.origin.clone();
        match converted.object {
            Some(object) => self.objects.push(ParsedObject { document: at.document, origin, object }),
            None => self.held.push(Held { origin, reference, partial: converted.partial }),
        }
    }
}

/// What a document is that is no object.
fn no_object(value: &Value) -> String {
    let what = match value {
        Value::Array(_) => {
            return "is a list: write its objects as documents with a line `---` between them, or as items of a List"
                .to_owned();
        }
        Value::String(text) => {
            let first: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
            format!("is the text {first:?}, and ")
        }
        _ => String::new(),
    };
    format!("{what}is not a Kubernetes object: write apiVersion, kind and metadata")
}

/// Why an object has no kind: it is of a tool that makes manifests, or the field is misspelt.
fn no_kind(at: &At, value: &Value) -> String {
    let has = |field: &str| value.get(field).is_some();
    let tool = match at.origin.split(['.', ',']).next() {
        Some("kustomization") => {
            Some("is a kustomization: put the output of `kubectl kustomize` here in its place")
        }
        Some("Chart" | "values") if !has("metadata") => {
            Some("is a file of a Helm chart: put the output of `helm template` here in its place")
        }
        _ => None,
    };
    if let Some(tool) = tool {
        return tool.to_owned();
    }
    let keys = value.as_object().into_iter().flat_map(|fields| fields.keys());
    let like = |key: &&String| strsim::levenshtein(&key.to_lowercase(), "kind") <= 1;
    match keys.clone().find(like) {
        Some(key) if key != "kind" => format!("is missing: write kind in place of {key}"),
        _ => "is missing: every document needs apiVersion and kind".to_owned(),
    }
}

/// The kinds that lbr reads and their `apiVersion`.
fn known(kind: &str) -> Option<(Kind, &'static str)> {
    let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind)?;
    Some((kind, kind.api_version()))
}

/// Whether an `apiVersion` belongs to another project, with its own Services and NetworkPolicies. An older version of
/// Kubernetes' own does not, nor does a misspelt one: to skip such a policy silently would leave its pods open.
fn is_foreign(version: &str) -> bool {
    let group = version.split_once('/').map_or("", |(group, _)| group).to_ascii_lowercase();
    let own = ["extensions", "discovery.k8s.io", "networking.k8s.io"];
    !group.is_empty() && own.iter().all(|own| strsim::levenshtein(&group, own) > TYPOS)
}

/// Whether a kind that lbr does not know is a misspelt NetworkPolicy.
fn is_like_policy(kind: &str) -> bool {
    let wanted = Kind::NetworkPolicy.as_str().to_ascii_lowercase();
    strsim::levenshtein(&kind.to_ascii_lowercase(), &wanted) <= TYPOS
}

/// Identifies the object, and fills in the namespace as kubectl does.
fn identify(kind: Kind, value: &mut Value) -> Result<ObjectRef, (&'static str, String)> {
    let Some(Value::Object(meta)) = value.get_mut("metadata") else {
        return Err(("metadata", "is missing: every object needs metadata.name".to_owned()));
    };
    let name = match meta.get("name") {
        Some(Value::String(name)) => name.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => return Err(("metadata.name", format!("{other} is not text: put it in quotes"))),
    };
    valid_name(&name).map_err(|reason| ("metadata.name", reason))?;
    if !kind.is_namespaced() {
        return Ok(ObjectRef { kind, name: ObjectName::cluster(&name) });
    }
    let namespace = match meta.get("namespace") {
        Some(Value::String(namespace)) if !namespace.is_empty() => namespace.clone(),
        None | Some(Value::Null | Value::String(_)) => "default".to_owned(),
        Some(other) => return Err(("metadata.namespace", format!("{other} is not text: put it in quotes"))),
    };
    valid_name(&namespace).map_err(|reason| ("metadata.namespace", reason))?;
    meta.insert("namespace".to_owned(), namespace.clone().into());
    Ok(ObjectRef { kind, name: ObjectName::new(namespace, name) })
}

#[cfg(test)]
mod tests;
