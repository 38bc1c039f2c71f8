//! Create, update and patch.

use std::sync::Arc;

use http::StatusCode;
use serde_json::Value;

use super::delete;
use super::failure::Failure;
use super::kind::{Kind, Status};
use super::object::{Object, metadata_mut, metadata_text};
use super::patch::{Lists, merge, strategic};
use super::reply::Reply;
use super::request::{Query, Target};
use super::shared::State;

/// The longest prefix of a generated name.
const GENERATED: usize = 58;

/// Content types of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    pub(super) fn of(content_type: &str) -> Result<Self, Failure> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            other => Err(unknown_format(other)),
        }
    }
}

/// Objects must be JSON, or have no content type.
pub(super) fn expect_json(content_type: &str) -> Result<(), Failure> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => Ok(()),
        other => Err(unknown_format(other)),
    }
}

fn unknown_format(content_type: &str) -> Failure {
    let message = format!("the body of the request was in an unknown format: {content_type}");
    Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
}

pub(super) fn create(state: &mut State, target: &Target, body: &[u8]) -> Result<Reply, Failure> {
    let mut value = parsed(target, body)?;
    if metadata_text(&value, "name").is_none() {
        let Some(prefix) = metadata_text(&value, "generateName").map(str::to_owned) else {
            let why = "Required value: name or generateName is required";
            return Err(Failure::invalid(&format!("{} \"\"", target.kind.kind), "metadata.name", why));
        };
        // The revision after this one is used once only, so the name is new.
        let name = format!("{prefix:.GENERATED$}{:05x}", state.store.revision() + 1);
        metadata_mut(&mut value).insert("name".to_owned(), name.into());
    }
    if metadata_text(&value, "resourceVersion").is_some() {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    created(state, target, value)
}

fn created(state: &mut State, target: &Target, mut value: Value) -> Result<Reply, Failure> {
    let name = metadata_text(&value, "name").unwrap_or_default().to_owned();
    let place = Target { name, ..target.clone() };
    in_place(&place, &mut value)?;
    if state.store.get(place.kind, &place.key()).is_some() {
        return Err(Failure::already_exists(place.kind, &place.name));
    }
    let metadata = metadata_mut(&mut value);
    for name in ["uid", "creationTimestamp", "deletionTimestamp"] {
        metadata.remove(name);
    }
    if let (Status::Subresource, Some(fields)) = (place.kind.status, value.as_object_mut()) {
        fields.remove("status");
    }
    Ok(object(StatusCode::CREATED, &state.store.put(place.kind, value)))
}

pub(super) fn update(state: &mut State, target: &Target, body: &[u8]) -> Result<Reply, Failure> {
    let value = parsed(target, body)?;
    let present = present(state, target)?;
    replaced(state, target, &present, value)
}

pub(super) fn patch(
    state: &mut State,
    target: &Target,
    patch_type: PatchType,
    query: &Query,
    body: &[u8],
) -> Result<Reply, Failure> {
    let patch = json_of(body)?;
    if patch_type == PatchType::Apply {
        if query.text("fieldManager").is_empty() {
            let why = "Required value: is required for apply patch";
            return Err(Failure::invalid("PatchOptions.meta.k8s.io \"\"", "fieldManager", why));
        }
        if state.store.get(target.kind, &target.key()).is_none() {
            return created(state, target, parsed(target, body)?);
        }
    }
    let present = present(state, target)?;
    let mut value = present.value();
    match patch_type {
        PatchType::Merge => merge(&mut value, patch),
        PatchType::Strategic => strategic(&mut value, patch, Lists::of(target.kind, false)),
        PatchType::Apply => strategic(&mut value, patch, Lists::of(target.kind, true)),
    }
    replaced(state, target, &present, value)
}

/// Replaces `present` by `value`, or only its status, or all but its status.
fn replaced(
    state: &mut State,
    target: &Target,
    present: &Object,
    mut value: Value,
) -> Result<Reply, Failure> {
    let kind = target.kind;
    in_place(target, &mut value)?;
    let conflict = |why: &str| Err(Failure::conflict(kind, &target.name, why));
    match metadata_text(&value, "resourceVersion") {
        Some(version) if version != present.revision.to_string() => {
            return conflict(
                "the object has been modified; please apply your changes to the latest version and try again",
            );
        }
        _ => {}
    }
    let mut before = present.value();
    let uid = metadata_text(&before, "uid");
    if let Some(wanted) = metadata_text(&value, "uid").filter(|wanted| Some(*wanted) != uid) {
        return conflict(&format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {}",
            uid.unwrap_or_default()
        ));
    }
    let mut value = if target.status {
        before["status"] = value["status"].take();
        before
    } else {
        if kind.status != Status::None {
            let status = before["status"].take();
            match value.as_object_mut() {
                Some(fields) if status.is_null() => drop(fields.remove("status")),
                _ => value["status"] = status,
            }
        }
        // The server alone writes these.
        for name in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            let kept = before["metadata"][name].take();
            match kept {
                Value::Null => drop(metadata_mut(&mut value).remove(name)),
                kept => drop(metadata_mut(&mut value).insert(name.to_owned(), kept)),
            }
        }
        value
    };
    if metadata_text(&value, "deletionTimestamp").is_some() && !delete::has_finalizers(&value) {
        let last = state.store.put(kind, value);
        state.store.delete(kind, &last.key);
        return Ok(object(StatusCode::OK, &last));
    }
    metadata_mut(&mut value).remove("resourceVersion");
    Ok(object(StatusCode::OK, &state.store.put(kind, value)))
}

pub(super) fn present(state: &State, target: &Target) -> Result<Arc<Object>, Failure> {
    let object = state.store.get(target.kind, &target.key());
    object.cloned().ok_or_else(|| Failure::not_found(target.kind, &target.name))
}

pub(super) fn object(code: StatusCode, object: &Object) -> Reply {
    Reply::parts(code, object.parts())
}

fn json_of(body: &[u8]) -> Result<Value, Failure> {
    let wrong = |why| Failure::bad_request(format!("the object provided is unrecognized: {why}"));
    let value: Value = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(wrong("not an object".to_owned())) }
}

/// An object of the target's kind.
fn parsed(target: &Target, body: &[u8]) -> Result<Value, Failure> {
    let value = json_of(body)?;
    if Kind::of(&value) != Some(target.kind) {
        let said = format!("{} {}", value["apiVersion"], value["kind"]);
        let wanted = format!("{} {}", target.kind.api_version(), target.kind.kind);
        return Err(Failure::bad_request(format!("the object is {said}, not {wanted}")));
    }
    Ok(value)
}

/// Name and namespace must be those of the path, or be missing.
fn in_place(target: &Target, value: &mut Value) -> Result<(), Failure> {
    for (field, wanted) in [("name", &target.name), ("namespace", &target.namespace)] {
        match metadata_text(value, field) {
            Some(given) if given != wanted => {
                let message =
                    format!("the {field} of the provided object does not match the one of the request");
                return Err(Failure::bad_request(message));
            }
            Some(_) => {}
            None if wanted.is_empty() => {}
            None => drop(metadata_mut(value).insert(field.to_owned(), wanted.as_str().into())),
        }
    }
    Ok(())
}
