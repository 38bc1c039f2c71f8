//! What a policy isolates that lbr does not understand: no less than its author meant, but for the last row.
//!
//! | what cannot be read | pods | directions | rules |
//! |---|---|---|---|
//! | a rule, peer or port | as written | as written | the other rules |
//! | a type that differs in case only | as written | that one | all that are valid |
//! | any other type | as written | both | all that are valid |
//! | `policyTypes` as a whole | as written | both | none |
//! | a requirement of `podSelector` | those of its other requirements | as written | none |
//! | `podSelector` as a whole, or it is missing | all of the namespace | as written | none |
//! | `spec`, or it is missing | all of the namespace | both | none |
//! | `apiVersion`, `kind`, an unknown field | as written | as written | none |
//! | the name of `egress` or `policyTypes` is misspelt | as written | as without the field | none |
//!
//! The first three rows are [`super::from_api`]'s.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::{Map, Value};

use super::super::{NetworkPolicy, ObjectName, Requirement, Selector, selector};

/// Whether a policy isolates its pods in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Directions {
    pub(super) ingress: bool,
    pub(super) egress: bool,
}

impl Directions {
    const BOTH: Self = Self { ingress: true, egress: true };

    /// Of a list of types that is not empty. A type that does not exist may mean either.
    pub(super) fn of(types: &[String]) -> Self {
        types.iter().fold(Self::default(), |all, kind| match kind.trim().to_ascii_lowercase().as_str() {
            "ingress" => Self { ingress: true, ..all },
            "egress" => Self { egress: true, ..all },
            _ => Self::BOTH,
        })
    }
}

/// The isolation of the policy with this JSON, without rules. `None` if it has no name.
pub fn isolation(value: &Value) -> Option<NetworkPolicy> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let name = ObjectName { namespace: text("/metadata/namespace")?, name: text("/metadata/name")? };
    let spec = value.as_object().and_then(|fields| field(fields, "spec")).and_then(Value::as_object);
    let pods = spec.and_then(|spec| field(spec, "podSelector")).map_or_else(Selector::default, pods);
    let Directions { ingress, egress } = spec.map_or(Directions::BOTH, directions);
    Some(NetworkPolicy {
        name,
        audit: false,
        pods,
        ingress: ingress.then(Vec::new),
        egress: egress.then(Vec::new),
    })
}

/// The field with this name, in whatever case.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn directions(spec: &Map<String, Value>) -> Directions {
    let is_there = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
    match field(spec, "policyTypes").filter(|types| is_there(types)) {
        None => Directions { ingress: true, egress: field(spec, "egress").is_some_and(is_there) },
        Some(types) => serde_json::from_value::<Vec<String>>(types.clone())
            .map_or(Directions::BOTH, |types| Directions::of(&types)),
    }
}

/// The pods that meet all requirements that can be read. The others are left out, so it may select more.
fn pods(value: &Value) -> Selector {
    let Some(fields) = value.as_object() else { return Selector::default() };
    let labels = field(fields, "matchLabels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| {
        Some(Requirement::In(key.clone(), BTreeSet::from([value.as_str()?.to_owned()])))
    });
    let expressions = field(fields, "matchExpressions").and_then(Value::as_array).into_iter().flatten();
    let expressions = expressions.filter_map(|value| {
        let api: meta::LabelSelectorRequirement = serde_json::from_value(value.clone()).ok()?;
        selector::requirement(&api).ok()
    });
    Selector { requirements: labels.chain(expressions).collect() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Pods by the requirements of their selector, and whether they are isolated in each direction.
    fn of(spec: &Value) -> (usize, bool, bool) {
        let value = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
        let policy = isolation(&value).unwrap();
        assert!(policy.ingress.iter().chain(&policy.egress).all(Vec::is_empty), "{spec}");
        (policy.pods.requirements.len(), policy.ingress.is_some(), policy.egress.is_some())
    }

    #[test]
    fn what_cannot_be_read_isolates_no_less() {
        let web = json!({"matchLabels": {"app": "web"}});
        for (spec, expected) in [
            (json!({"podSelector": web}), (1, true, false)),
            (json!({"podSelector": web, "egress": []}), (1, true, false)),
            (json!({"podSelector": web, "egress": [{}]}), (1, true, true)),
            (json!({"podSelector": web, "egress": {"to": []}}), (1, true, true)),
            (json!({"podSelector": web, "Egress": [5]}), (1, true, true)),
            (json!({"podSelector": web, "policyTypes": ["Egress"]}), (1, false, true)),
            (json!({"podSelector": web, "policyTypes": ["ingress"]}), (1, true, false)),
            (json!({"podSelector": web, "policyTypes": [" EGRESS "]}), (1, false, true)),
            (json!({"podSelector": web, "policyTypes": ["Ingres"]}), (1, true, true)),
            (json!({"podSelector": web, "policyTypes": ["Ingress", "out"]}), (1, true, true)),
            (json!({"podSelector": web, "policyTypes": "Ingress"}), (1, true, true)),
            (json!({"podSelector": web, "policyTypes": [5]}), (1, true, true)),
            (json!({"podSelector": web, "policytypes": ["Egress"]}), (1, false, true)),
            (json!({"podselector": web}), (1, true, false)),
            (json!({"podSelector": "app=web"}), (0, true, false)),
            (json!({"podSelector": ["app"]}), (0, true, false)),
            (json!({"podSelectr": web}), (0, true, false)),
            (json!({"podSelector": {"matchLabels": {"app": "web", "tier": 1}}}), (1, true, false)),
            (json!({"podSelector": {"matchLabels": ["app"]}}), (0, true, false)),
            (
                json!({"podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [
                    {"key": "a", "operator": "exists"}, {"key": "b", "operator": "Exists"}, "c"]}}),
                (2, true, false),
            ),
            (json!("ingress"), (0, true, true)),
            (json!([]), (0, true, true)),
            (Value::Null, (0, true, true)),
        ] {
            assert_eq!(of(&spec), expected, "{spec}");
        }
        let value = json!({"metadata": {"name": "p", "namespace": "default"}});
        assert!(isolation(&value).is_some_and(|policy| policy.egress.is_some()), "without spec");
        assert_eq!(isolation(&json!({"metadata": {"name": 5}, "spec": {}})), None);
    }
}
