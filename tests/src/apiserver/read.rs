//! Get and list.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::failure::Failure;
use super::kind::Kind;
use super::object::Object;
use super::reply::Reply;
use super::request::{Continue, Query, Target};
use super::selector::Selector;
use super::shared::State;
use super::watch::OPTIONS;

/// The version that is listed.
enum Version {
    Current,
    Exact(u64),
}

pub(super) fn get(state: &State, target: &Target) -> Result<Reply, Failure> {
    let object = state.store.get(target.kind, &target.key());
    let object = object.ok_or_else(|| Failure::not_found(target.kind, &target.name))?;
    Ok(Reply::parts(StatusCode::OK, object.parts()))
}

pub(super) fn list(state: &State, target: &Target, query: &Query) -> Result<Reply, Failure> {
    let (kind, current) = (target.kind, state.store.revision());
    let selector = Selector::parse(kind, query.text("labelSelector"), query.text("fieldSelector"))?;
    let (limit, version, from) = options(query, current)?;
    let (revision, objects) = match version {
        Version::Current => (current, None),
        Version::Exact(revision) => {
            let past = state.store.at(kind, revision).ok_or_else(|| gone(from.as_ref(), current))?;
            (revision, Some(past))
        }
    };
    let last = from.as_ref().map(|from| &from.last);
    let mut past;
    let mut present;
    let found: &mut dyn Iterator<Item = &Arc<Object>> = match &objects {
        Some(objects) => {
            past = objects.iter().filter(|object| last.is_none_or(|last| object.key > *last));
            &mut past
        }
        None => {
            present = state.store.after(kind, last);
            &mut present
        }
    };
    let mut found = found.filter(|object| target.holds(&object.key) && selector.matches(object));
    let page: Vec<&Arc<Object>> = match limit {
        0 => found.by_ref().collect(),
        limit => found.by_ref().take(usize::try_from(limit).unwrap_or(usize::MAX)).collect(),
    };
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if let (Some(last), left @ 1..) = (page.last(), found.count()) {
        metadata["continue"] = Continue { revision, last: last.key.clone() }.token().into();
        if selector.is_everything() {
            metadata["remainingItemCount"] = left.into();
        }
    }
    let items = page.into_iter().map(|object| object.text.clone()).collect();
    Ok(Reply::list(head(kind, &metadata), items, Bytes::from_static(b"]}")))
}

fn head(kind: &Kind, metadata: &serde_json::Value) -> Bytes {
    let (kind, version) = (kind.kind, kind.api_version());
    Bytes::from(format!(r#"{{"kind":"{kind}List","apiVersion":"{version}","metadata":{metadata},"items":["#))
}

/// Limit, version and continuation, by the rules of `resourceVersion` and `resourceVersionMatch`.
fn options(query: &Query, current: u64) -> Result<(u64, Version, Option<Continue>), Failure> {
    let limit = query.number("limit")?;
    let (asked, matching) = (query.resource_version()?, query.text("resourceVersionMatch"));
    if query.has("sendInitialEvents") {
        let why = "Forbidden: sendInitialEvents is forbidden for list";
        return Err(Failure::invalid(OPTIONS, "sendInitialEvents", why));
    }
    let token = query.text("continue");
    if !token.is_empty() {
        if !matching.is_empty() {
            let why = "Forbidden: resourceVersionMatch is forbidden when continue is provided";
            return Err(Failure::invalid(OPTIONS, "resourceVersionMatch", why));
        }
        if asked.is_some_and(|asked| asked != 0) {
            return Err(Failure::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let from = Continue::parse(token)?;
        let version = match from.revision {
            0 => Version::Current,
            revision => Version::Exact(revision),
        };
        return Ok((limit, version, Some(from)));
    }
    let forbidden = |why: &str| Err(Failure::invalid(OPTIONS, "resourceVersionMatch", why));
    let exact = match (matching, asked) {
        ("" | "NotOlderThan", Some(asked)) if asked > current => {
            return Err(Failure::too_large(asked, current));
        }
        ("", Some(1..)) => limit > 0,
        ("", _) | ("NotOlderThan", Some(_)) => false,
        ("Exact", Some(0)) => return forbidden("Forbidden: Exact is forbidden for resourceVersion=0"),
        ("Exact", Some(_)) => true,
        ("Exact" | "NotOlderThan", None) => {
            return forbidden(
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            );
        }
        _ => return forbidden("Unsupported value: supported values: \"Exact\", \"NotOlderThan\""),
    };
    match asked {
        Some(asked) if exact && asked > current => Err(Failure::too_large(asked, current)),
        Some(asked) if exact => Ok((limit, Version::Exact(asked), None)),
        // A list from the cache has no pages.
        Some(0) => Ok((0, Version::Current, None)),
        _ => Ok((limit, Version::Current, None)),
    }
}

/// The version of a list is compacted. A client in the middle of the list gets a token for the rest at another
/// version.
fn gone(from: Option<&Continue>, current: u64) -> Failure {
    let Some(from) = from else {
        return Failure::expired("The resourceVersion for the provided list is too old.");
    };
    let token = Continue { revision: 0, last: from.last.clone() }.token();
    let message = format!(
        "The provided continue parameter is too old to display a consistent list result (current: {current}). You \
         can start a new list without the continue parameter, or use the continue token in this response to \
         retrieve the remainder of the results, which may be inconsistent."
    );
    Failure { continue_token: Some(token), ..Failure::expired(message) }
}
