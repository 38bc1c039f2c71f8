//! Patches: JSON merge patch, and strategic merge patch with the lists that Kubernetes merges by key.

use serde_json::{Map, Value};

use super::kind::{ENDPOINT_SLICE, Kind};

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    let fields = object(target);
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// The lists that are merged. All others are replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists {
    /// Names of fields, and the key that distinguishes their items.
    keys: &'static [(&'static str, &'static str)],
    /// Server-side apply distinguishes ports by protocol, too. Strategic merge does not, as in Kubernetes.
    protocol: bool,
}

impl Lists {
    pub(super) fn of(kind: &Kind, apply: bool) -> Self {
        // An EndpointSlice's `ports` are not those of a Service.
        let keys = if *kind == ENDPOINT_SLICE { &METADATA[..] } else { &MERGED[..] };
        Self { keys, protocol: apply }
    }
}

const METADATA: [(&str, &str); 1] = [("ownerReferences", "uid")];

const MERGED: [(&str, &str); 14] = [
    ("addresses", "type"),
    ("conditions", "type"),
    ("containers", "name"),
    ("containerPorts", "containerPort"),
    ("env", "name"),
    ("ephemeralContainers", "name"),
    ("hostAliases", "ip"),
    ("imagePullSecrets", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("ports", "port"),
    ("taints", "key"),
    ("volumeMounts", "mountPath"),
    ("volumes", "name"),
];

/// Lists of strings that are merged.
const SETS: [&str; 2] = ["finalizers", "podCIDRs"];

/// Strategic merge patch.
pub(super) fn strategic(target: &mut Value, patch: Value, lists: Lists) {
    let Value::Object(mut patch) = patch else {
        *target = patch;
        return;
    };
    match patch.remove("$patch").as_ref().and_then(Value::as_str) {
        Some("replace") => return *target = Value::Object(patch),
        Some("delete") => return *target = Value::Object(Map::new()),
        _ => {}
    }
    let fields = object(target);
    if let Some(Value::Array(kept)) = patch.remove("$retainKeys") {
        fields.retain(|name, _| kept.iter().any(|kept| kept == name));
    }
    let mut orders = Vec::new();
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$setElementOrder/") {
            orders.push((list.to_owned(), value));
        } else if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(present)), Value::Array(gone)) = (fields.get_mut(list), value) {
                present.retain(|item| !gone.contains(item));
            }
        } else if value.is_null() {
            fields.remove(&name);
        } else {
            strategic_field(&name, fields.entry(name.clone()).or_insert(Value::Null), value, lists);
        }
    }
    for (list, order) in orders {
        if let (Some(Value::Array(items)), Value::Array(order)) = (fields.get_mut(&list), order) {
            sort(items, lists.key(&list, &order), &order);
        }
    }
}

fn strategic_field(name: &str, present: &mut Value, patch: Value, lists: Lists) {
    let Value::Array(changes) = patch else {
        return strategic(present, patch, lists);
    };
    if let (Some(key), Value::Array(items)) = (lists.key(name, &changes), &mut *present) {
        return merge_list(items, changes, key, lists);
    }
    if let (true, Value::Array(items)) = (SETS.contains(&name), &mut *present) {
        for change in changes {
            if !items.contains(&change) {
                items.push(change);
            }
        }
        return;
    }
    let deletes = |item: &Value| item.get("$patch").is_some();
    *present = Value::Array(changes.into_iter().filter(|item| !deletes(item)).collect());
}

fn merge_list(items: &mut Vec<Value>, changes: Vec<Value>, key: &str, lists: Lists) {
    if changes.iter().any(|change| change.get("$patch").is_some_and(|how| how == "replace")) {
        *items = changes.into_iter().filter(|change| change.get("$patch").is_none()).collect();
        return;
    }
    for change in changes {
        let id = Id::of(&change, key, lists);
        if change.get("$patch").is_some_and(|how| how == "delete") {
            items.retain(|item| Id::of(item, key, lists) != id);
        } else if let Some(item) = items.iter_mut().find(|item| Id::of(item, key, lists) == id) {
            strategic(item, change, lists);
        } else {
            items.push(change);
        }
    }
}

/// The identity of an item.
#[derive(PartialEq)]
struct Id(Option<Value>, Option<Value>);

impl Id {
    fn of(item: &Value, key: &str, lists: Lists) -> Self {
        let protocol = || item.get("protocol").cloned().unwrap_or_else(|| "TCP".into());
        let by_protocol = lists.protocol && matches!(key, "port" | "containerPort");
        Self(item.get(key).cloned(), by_protocol.then(protocol))
    }
}

impl Lists {
    /// The key of a list, if all its items have it. `ports` have another key in containers than in Services.
    fn key(self, name: &str, items: &[Value]) -> Option<&'static str> {
        let name = match items.first() {
            Some(item) if name == "ports" && item.get("containerPort").is_some() => "containerPorts",
            _ => name,
        };
        let (_, key) = self.keys.iter().find(|(list, _)| *list == name)?;
        items.iter().all(|item| item.get(key).is_some()).then_some(*key)
    }
}

/// Sorts items by the given order of their keys, or of the items themselves where the list has no key.
fn sort(items: &mut [Value], key: Option<&str>, order: &[Value]) {
    let same = |item: &Value, wanted: &Value| match key {
        Some(key) => item.get(key) == wanted.get(key),
        None => item == wanted,
    };
    items.sort_by_key(|item| order.iter().position(|wanted| same(item, wanted)).unwrap_or(usize::MAX));
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}
