use serde_json::json;

use super::*;

fn read(spec: &Value) -> NetworkPolicy {
    partial(&json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec}), true).unwrap().alone()
}

/// Requirements of the selector, and the number of rules in each direction; `None`: not isolated.
type Isolation = (usize, Option<usize>, Option<usize>);

fn of(policy: &NetworkPolicy) -> Isolation {
    let [ingress, egress] = [&policy.ingress, &policy.egress].map(|rules| rules.as_ref().map(Vec::len));
    (policy.pods.requirements.len(), ingress, egress)
}

/// The table of the module.
#[test]
fn what_cannot_be_read_isolates_no_less() {
    const NO: Option<usize> = None;
    let web = json!({"matchLabels": {"app": "web"}});
    let good = json!({"ports": [{"port": 80}]});
    let deep = json!([{"from": [{"podselector": {}}]}, good]);
    for (spec, expected) in [
        // A rule.
        (json!({"podSelector": web, "ingress": [good, {"from": 5}, good]}), (1, Some(2), NO)),
        (json!({"podSelector": web, "ingress": [good, {"form": []}]}), (1, Some(1), NO)),
        (
            json!({"podSelector": web, "ingress": [good, {"ports": [{"port": 80, "prot": "TCP"}]}]}),
            (1, Some(1), NO),
        ),
        (json!({"podSelector": web, "ingress": deep}), (1, Some(1), NO)),
        (
            json!({"podSelector": web, "ingress": [good, {"ports": [{"port": 80, "newer": 1}]}]}),
            (1, Some(1), NO),
        ),
        (json!({"podSelector": web, "ingress": [good], "egress": [{"to": "all"}]}), (1, Some(1), Some(0))),
        (json!({"podSelector": web, "egress": [5, {}]}), (1, Some(0), Some(1))),
        (json!({"podSelector": web, "ingress": {"from": []}}), (1, Some(0), NO)),
        (json!({"podSelector": web, "egress": {"to": []}}), (1, Some(0), Some(0))),
        (json!({"podSelector": web, "egress": []}), (1, Some(0), NO)),
        // Types.
        (json!({"podSelector": web, "ingress": [good], "policyTypes": ["ingress"]}), (1, Some(1), NO)),
        (json!({"podSelector": web, "policyTypes": [" EGRESS "]}), (1, NO, Some(0))),
        (json!({"podSelector": web, "policyTypes": ["Ingres"]}), (1, Some(0), NO)),
        (json!({"podSelector": web, "policyTypes": ["Ingress", "Egres"]}), (1, Some(0), Some(0))),
        (json!({"podSelector": web, "policyTypes": ["igress"]}), (1, Some(0), Some(0))),
        (json!({"podSelector": web, "policyTypes": ["Ingress", "out"]}), (1, Some(0), Some(0))),
        (json!({"podSelector": web, "policyTypes": [""]}), (1, Some(0), Some(0))),
        (json!({"podSelector": web, "policyTypes": "Egress"}), (1, NO, Some(0))),
        (json!({"podSelector": web, "ingress": [good], "policyTypes": [5]}), (1, Some(1), Some(0))),
        (json!({"podSelector": web, "policyTypes": {}}), (1, Some(0), Some(0))),
        // Names of fields.
        (json!({"podSelector": web, "policytypes": ["Egress"]}), (1, NO, Some(0))),
        (json!({"podSelector": web, "policyType": ["Egress"], "egress": [good]}), (1, NO, Some(1))),
        (json!({"podSelector": web, "egres": [good], "ingress": [good]}), (1, Some(1), Some(0))),
        (json!({"podSelector": web, "Egress": [5]}), (1, Some(0), Some(0))),
        (json!({"podSelector": web, "igress": [good]}), (1, Some(0), Some(0))),
        (json!({"podSelector": web, "ingres": [good], "policyTypes": ["Ingress"]}), (1, Some(0), NO)),
        (json!({"podSelector": web, "priority": 1, "ingress": [good]}), (1, Some(0), NO)),
        // The selector.
        (json!({"podselector": web, "ingress": [good]}), (1, Some(0), NO)),
        (json!({"podSelectr": web, "ingress": [good]}), (0, Some(0), NO)),
        (json!({"podSelector": "app=web", "ingress": [good]}), (0, Some(0), NO)),
        (json!({"podSelector": ["app"]}), (0, Some(0), NO)),
        (json!({"podSelector": {"matchLabel": {"app": "web"}}, "ingress": [good]}), (0, Some(0), NO)),
        (json!({"podSelector": {"matchLabels": {"app": "web", "tier": 1}}}), (1, Some(0), NO)),
        (json!({"podSelector": {"matchLabels": ["app"]}}), (0, Some(0), NO)),
        (
            json!({"podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [
                {"key": "a", "operator": "exists"}, {"key": "b", "operator": "Exists"}, "c"]}}),
            (2, Some(0), NO),
        ),
        // The whole.
        (json!("ingress"), (0, Some(0), Some(0))),
        (json!([]), (0, Some(0), Some(0))),
        (Value::Null, (0, Some(0), Some(0))),
    ] {
        assert_eq!(of(&read(&spec)), expected, "{spec}");
    }
}

#[test]
fn without_the_kind_or_a_name() {
    let value = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"ingress": [{}]}});
    let [right, wrong] = [true, false].map(|is_kind| of(&partial(&value, is_kind).unwrap().alone()));
    assert_eq!((right, wrong), ((0, Some(1), None), (0, Some(0), None)));
    let value = json!({"metadata": {"name": "p", "namespace": "default"}});
    assert!(partial(&value, true).is_some_and(|partial| partial.alone().egress.is_some()), "without spec");
    assert_eq!(partial(&json!({"metadata": {"name": 5}, "spec": {}}), true), None);
}

#[test]
fn a_mode_that_cannot_be_read_enforces() {
    for (mode, audit) in
        [(json!("audit"), true), (json!("Audit"), false), (json!(1), false), (Value::Null, false)]
    {
        let metadata = json!({"name": "p", "namespace": "default", "annotations": {MODE: mode}});
        let policy = partial(&json!({"metadata": metadata, "spec": {}}), true).unwrap().alone();
        assert_eq!(policy.audit, audit, "{mode}");
    }
}
