//! `metav1` LabelSelector.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as api;

use super::convert::Problems;
use super::{Requirement, Selector};

/// Converts a selector at `path`; `None` if it is invalid, which rejects the object. An invalid requirement is never
/// left out: the rest would select more than was meant.
pub(super) fn from_api(api: &api::LabelSelector, path: &str, problems: &mut Problems) -> Option<Selector> {
    let mut requirements = Vec::new();
    let mut valid = true;
    for (key, value) in api.match_labels.iter().flatten() {
        requirements.push(Requirement::In(key.clone(), BTreeSet::from([value.clone()])));
    }
    for (i, expression) in api.match_expressions.iter().flatten().enumerate() {
        match requirement(expression) {
            Ok(requirement) => requirements.push(requirement),
            Err((field, reason)) => {
                problems.refuse(format!("{path}.matchExpressions[{i}].{field}"), reason);
                valid = false;
            }
        }
    }
    valid.then_some(Selector { requirements })
}

/// Converts one requirement; the error has the field and the reason.
pub(super) fn requirement(
    api: &api::LabelSelectorRequirement,
) -> Result<Requirement, (&'static str, String)> {
    let key = api.key.clone();
    if key.is_empty() {
        return Err(("key", "is missing: name the label".to_owned()));
    }
    let values: BTreeSet<String> = api.values.iter().flatten().cloned().collect();
    let operator = api.operator.as_str();
    match (operator, values.is_empty()) {
        ("In", false) => Ok(Requirement::In(key, values)),
        ("NotIn", false) => Ok(Requirement::NotIn(key, values)),
        ("Exists", true) => Ok(Requirement::Exists(key)),
        ("DoesNotExist", true) => Ok(Requirement::DoesNotExist(key)),
        ("In" | "NotIn", true) => Err(("values", format!("is empty: {operator} needs at least one value"))),
        ("Exists" | "DoesNotExist", false) => Err(("values", format!("must be empty for {operator}"))),
        _ => Err((
            "operator",
            format!("{operator:?} is not an operator: write In, NotIn, Exists or DoesNotExist"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn convert(selector: Value) -> (Option<Selector>, Vec<String>) {
        let mut problems = Problems::default();
        let selector = from_api(&serde_json::from_value(selector).unwrap(), "s", &mut problems);
        let problems = problems.finish(()).problems;
        assert!(problems.iter().all(|p| !p.reason.is_empty()));
        let fields = problems.into_iter().map(|p| p.field).collect();
        (selector, fields)
    }

    #[test]
    fn all_operators() {
        let set = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
        let (selector, fields) = convert(json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["1", "2"]},
                {"key": "b", "operator": "NotIn", "values": ["3"]},
                {"key": "c", "operator": "Exists"},
                {"key": "d", "operator": "DoesNotExist", "values": []},
            ],
        }));
        assert_eq!(fields, [] as [&str; 0]);
        assert_eq!(
            selector.unwrap().requirements,
            [
                Requirement::In("app".into(), set(&["web"])),
                Requirement::In("a".into(), set(&["1", "2"])),
                Requirement::NotIn("b".into(), set(&["3"])),
                Requirement::Exists("c".into()),
                Requirement::DoesNotExist("d".into()),
            ]
        );
        assert_eq!(convert(json!({})).0, Some(Selector::default()));
    }

    #[test]
    fn invalid_requirements_refuse() {
        for (expression, field) in [
            (json!({"key": "a", "operator": "in", "values": ["1"]}), "operator"),
            (json!({"key": "a", "operator": "Gt", "values": ["1"]}), "operator"),
            (json!({"key": "a", "operator": "In"}), "values"),
            (json!({"key": "a", "operator": "NotIn", "values": []}), "values"),
            (json!({"key": "a", "operator": "Exists", "values": ["1"]}), "values"),
            (json!({"operator": "Exists"}), "key"),
        ] {
            let (selector, fields) =
                convert(json!({"matchLabels": {"x": "y"}, "matchExpressions": [expression]}));
            assert_eq!(selector, None, "{expression}");
            assert_eq!(fields, [format!("s.matchExpressions[0].{field}")], "{expression}");
        }
    }
}
