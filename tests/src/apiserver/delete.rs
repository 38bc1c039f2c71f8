//! Deletion, with finalizers and preconditions.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::failure::Failure;
use super::kind::Kind;
use super::object::{Object, metadata_mut, metadata_text};
use super::reply::Reply;
use super::request::{Query, Target};
use super::selector::Selector;
use super::shared::State;
use super::time;
use super::write::{object, present};

pub(super) fn delete(state: &mut State, target: &Target, body: &[u8]) -> Result<Reply, Failure> {
    let present = present(state, target)?;
    if let (Ok(options), value) = (serde_json::from_slice::<Value>(body), present.value()) {
        for name in ["uid", "resourceVersion"] {
            let wanted = options.pointer(&format!("/preconditions/{name}")).and_then(Value::as_str);
            let real = metadata_text(&value, name);
            if wanted.is_some() && wanted != real {
                let why = format!(
                    "Precondition failed: {name} in precondition: {}, {name} in object meta: {}",
                    wanted.unwrap_or_default(),
                    real.unwrap_or_default()
                );
                return Err(Failure::conflict(target.kind, &target.name, &why));
            }
        }
    }
    let Some(marked) = removed(state, target.kind, &present) else {
        let uid = metadata_text(&present.value(), "uid").unwrap_or_default().to_owned();
        let mut details = json!({ "name": target.name, "kind": target.kind.plural, "uid": uid });
        if !target.kind.group.is_empty() {
            details["group"] = target.kind.group.into();
        }
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        });
        return Ok(Reply::json(StatusCode::OK, &status));
    };
    Ok(object(StatusCode::OK, &marked))
}

pub(super) fn delete_collection(state: &mut State, target: &Target, query: &Query) -> Result<Reply, Failure> {
    let selector = Selector::parse(target.kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let all: Vec<_> = state.store.after(target.kind, None).cloned().collect();
    for object in all.iter().filter(|object| target.holds(&object.key) && selector.matches(object)) {
        removed(state, target.kind, object);
    }
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
    Ok(Reply::json(StatusCode::OK, &status))
}

/// Deletes the object, or only marks it if it has finalizers and returns it.
fn removed(state: &mut State, kind: &'static Kind, present: &Arc<Object>) -> Option<Arc<Object>> {
    let mut value = present.value();
    if !has_finalizers(&value) {
        state.store.delete(kind, &present.key);
        return None;
    }
    let metadata = metadata_mut(&mut value);
    metadata.entry("deletionTimestamp").or_insert_with(|| time::now().into());
    metadata.entry("deletionGracePeriodSeconds").or_insert_with(|| 0.into());
    Some(state.store.put(kind, value))
}

pub(super) fn has_finalizers(value: &Value) -> bool {
    value.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|all| !all.is_empty())
}
