//! What a policy isolates that lbr rejects: no less than its author meant.
//!
//! *No version was accepted before.* Pods are isolated as the table says, and the rules in the last column count:
//!
//! | what cannot be read | pods | directions | rules |
//! |---|---|---|---|
//! | a rule, or an unknown field in it | as written | as written | the other rules |
//! | a type that resembles one name | as written | that one | all that are valid |
//! | any other type | as written | both | all that are valid |
//! | `policyTypes` as a whole | as written | both | all that are valid |
//! | a requirement of `podSelector` | those of its other requirements | as written | none |
//! | `podSelector` as a whole, or it is misspelt | all of the namespace | as written | none |
//! | `ingress` or `egress` is misspelt | as written | as if it were not | of the other direction |
//! | `policyTypes` is misspelt | as written | as if it were not | all that are valid |
//! | any other unknown field of `spec` | as written | as written | none |
//! | `spec`, or it is missing | all of the namespace | both | none |
//! | `apiVersion`, `kind` | as written | as written | none |
//! | annotation [`MODE`] | as written | as written, enforced | all that are valid |
//!
//! Why an unknown field of `spec` or of a rule is not only a warning: the fields that the API added to rules so far
//! (`endPort`, `except`) narrow them, and one of `spec` may turn their meaning. To ignore such a field opens what its
//! author closed; to ignore the rule closes at most what he allowed. Unknown fields elsewhere (`metadata`) limit
//! nothing.
//!
//! *A version was accepted before.* See [`super::edit`].

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::{Map, Value};

use super::super::convert::Problems;
use super::super::{NetworkPolicy, ObjectName, PolicyRule, Requirement, Selector, selector, unknown};
use super::{MODE, is_audited, rules};

/// The fields of `spec`.
const SPEC: [&str; 4] = ["egress", "ingress", "podSelector", "policyTypes"];

/// Whether a policy isolates its pods in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Directions {
    pub(super) ingress: bool,
    pub(super) egress: bool,
}

impl Directions {
    const BOTH: Self = Self { ingress: true, egress: true };

    /// Of a list of types that is not empty. A type that does not exist may mean either, unless it resembles only one.
    pub(super) fn of(types: &[String]) -> Self {
        let add = |all: Self, written: &String| match *unknown::meant(written.trim(), &["Ingress", "Egress"])
        {
            ["Ingress"] => Self { ingress: true, ..all },
            ["Egress"] => Self { egress: true, ..all },
            _ => Self::BOTH,
        };
        types.iter().fold(Self::default(), add)
    }
}

/// What can be read of a rejected policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Its isolation, as far as it may go, and its valid rules.
    pub(super) policy: NetworkPolicy,
    /// Whether these parts can be read. Where not, `policy` has the most that it may mean.
    pub(super) is_known: Known,
    /// In which directions it has rules, readable or not.
    pub(super) has_rules: Directions,
}

/// The parts of a policy that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) pods: bool,
    pub(super) mode: bool,
    /// In which direction it isolates.
    pub(super) directions: bool,
    /// All rules for what comes in.
    pub(super) ingress: bool,
    /// All rules for what goes out.
    pub(super) egress: bool,
}

/// Reads what can be read of the policy with this JSON. `None` if it has no name. `is_kind`: its `apiVersion` and `kind`
/// are right, so that its rules mean what lbr takes them for.
pub fn partial(value: &Value, is_kind: bool) -> Option<Partial> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let name = ObjectName::new(text("/metadata/namespace")?, text("/metadata/name")?);
    let (audit, mode) = mode(value);
    let fields = value.as_object().and_then(|fields| field(fields, "spec")).and_then(Value::as_object);
    let Some(spec) = fields else {
        let policy = NetworkPolicy { name, audit, ..isolated(Directions::BOTH) };
        let is_known = Known { mode, ..Known::default() };
        return Some(Partial { policy, is_known, has_rules: Directions::default() });
    };
    let (pods, knows_pods) = match (spec.get("podSelector"), section(spec, "podSelector")) {
        (None, Some(_)) => (subject(field(spec, "podSelector")).0, false),
        (written, _) => subject(written.filter(|selector| !selector.is_null())),
    };
    let types = section(spec, "policyTypes").filter(|types| is_there(types));
    let written = types.map(|types| match types {
        Value::String(one) => Some(vec![one.clone()]),
        list => serde_json::from_value::<Vec<String>>(list.clone()).ok(),
    });
    let has = |name| section(spec, name).is_some_and(is_there);
    let has_rules = Directions { ingress: has("ingress"), egress: has("egress") };
    let directions = match &written {
        None => Directions { ingress: true, egress: has_rules.egress },
        Some(types) => types.as_deref().map_or(Directions::BOTH, Directions::of),
    };
    let is_strange = |key: &String| unknown::meant(key, &SPEC).is_empty();
    let counts = is_kind && !spec.iter().any(|(key, value)| is_strange(key) && !value.is_null());
    let of = |name| if counts { read_rules(spec, name) } else { (Vec::new(), false) };
    let ((ingress, knows_ingress), (egress, knows_egress)) = (of("ingress"), of("egress"));
    let policy = NetworkPolicy {
        name,
        audit,
        pods,
        ingress: directions.ingress.then_some(ingress),
        egress: directions.egress.then_some(egress),
        edit: None,
    };
    let is_known = Known {
        pods: knows_pods,
        mode,
        directions: !matches!(written, Some(None)),
        ingress: knows_ingress,
        egress: knows_egress,
    };
    Some(Partial { policy, is_known, has_rules })
}

/// Isolates all pods of the namespace, without rules.
fn isolated(directions: Directions) -> NetworkPolicy {
    let Directions { ingress, egress } = directions;
    NetworkPolicy {
        ingress: ingress.then(Vec::new),
        egress: egress.then(Vec::new),
        ..NetworkPolicy::default()
    }
}

fn is_there(value: &Value) -> bool {
    !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
}

/// The field with this name, in whatever case.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// The field of `spec` with this name; if there is none, one that may have been meant for it.
fn section<'a>(spec: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let misspelt = || {
        let may_be =
            |key: &String| !SPEC.contains(&key.as_str()) && unknown::meant(key, &SPEC).contains(&name);
        spec.iter().find(|(key, _)| may_be(key)).map(|(_, value)| value)
    };
    spec.get(name).or_else(misspelt)
}

/// Whether it is only audited, and whether that can be read. An unknown mode enforces.
fn mode(value: &Value) -> (bool, bool) {
    let mut problems = Problems::default();
    match value.pointer("/metadata/annotations").and_then(|all| all.get(MODE)) {
        None | Some(Value::Null) => (false, true),
        Some(Value::String(mode)) => (is_audited(Some(mode), &mut problems), !problems.is_refused()),
        Some(_) => (false, false),
    }
}

/// The pods, and whether the selector can be read. If not: those that meet all requirements that can be read. The others
/// are left out, so it may select more.
fn subject(value: Option<&Value>) -> (Selector, bool) {
    let Some(value) = value else { return (Selector::default(), true) };
    if let Ok(api) = serde_json::from_value::<meta::LabelSelector>(value.clone())
        && unknown::fields(value, &api).is_empty()
        && let Some(selector) = selector::from_api(&api, "", &mut Problems::default())
    {
        return (selector, true);
    }
    let Some(fields) = value.as_object() else { return (Selector::default(), false) };
    let labels = field(fields, "matchLabels").and_then(Value::as_object).into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| {
        Some(Requirement::In(key.clone(), BTreeSet::from([value.as_str()?.to_owned()])))
    });
    let expressions = field(fields, "matchExpressions").and_then(Value::as_array).into_iter().flatten();
    let expressions = expressions.filter_map(|value| {
        let api: meta::LabelSelectorRequirement = serde_json::from_value(value.clone()).ok()?;
        selector::requirement(&api).ok()
    });
    (Selector { requirements: labels.chain(expressions).collect() }, false)
}

/// The valid rules of a direction, and whether all can be read. Rules below a misspelt name do not count.
fn read_rules(spec: &Map<String, Value>, name: &str) -> (Vec<PolicyRule>, bool) {
    let Some(written) = section(spec, name).filter(|value| !value.is_null()) else {
        return (Vec::new(), true);
    };
    let Some(Value::Array(written)) = spec.get(name) else { return (Vec::new(), !is_there(written)) };
    let read = written.iter().map(|rule| match name {
        "ingress" => {
            strictly::<api::NetworkPolicyIngressRule>(rule).map(|rule| ("from", rule.from, rule.ports))
        }
        _ => strictly::<api::NetworkPolicyEgressRule>(rule).map(|rule| ("to", rule.to, rule.ports)),
    });
    let readable: Vec<_> = read.flatten().collect();
    let valid = rules(readable, "", &mut Problems::default());
    let all = valid.len() == written.len();
    (valid, all)
}

/// `None` if it cannot be read, or has a field that the type lacks.
fn strictly<A: serde::de::DeserializeOwned + serde::Serialize>(value: &Value) -> Option<A> {
    let api = serde_json::from_value(value.clone()).ok()?;
    unknown::fields(value, &api).is_empty().then_some(api)
}

#[cfg(test)]
mod tests;
