//! Fields that an API type does not have: which they are, and which field was likely meant.

use serde_json::Value;

use super::Kind;

/// Paths of written fields that the API type does not have: they are missing when the object is serialized again.
pub(crate) fn fields(written: &Value, api: &impl serde::Serialize) -> Vec<String> {
    let mut unknown = Vec::new();
    if let Ok(read) = serde_json::to_value(api) {
        compare(written, &read, "", &mut unknown);
    }
    unknown
}

fn compare(written: &Value, read: &Value, path: &str, unknown: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match read.get(key) {
                    Some(read) => compare(value, read, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) => {
            for (i, (written, read)) in written.iter().zip(read).enumerate() {
                compare(written, read, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

/// The names that a written one may stand for: one that differs in case only, else all that differ by a letter or two.
pub(super) fn meant<'a>(written: &str, names: &[&'a str]) -> Vec<&'a str> {
    let same = names.iter().find(|name| name.eq_ignore_ascii_case(written));
    let lower = written.to_ascii_lowercase();
    let is_near = |name: &&&str| {
        // Of a short name, one letter is much.
        let letters = if name.len() <= 4 { 1 } else { 2 };
        strsim::osa_distance(&lower, &name.to_ascii_lowercase()) <= letters
    };
    match same {
        Some(name) => vec![name],
        None => names.iter().filter(is_near).copied().collect(),
    }
}

/// The fields that the field at this path was likely meant to be.
pub(crate) fn suggestions(kind: Kind, path: &str) -> Vec<&'static str> {
    let (parents, field) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = parents.rsplit('.').next().and_then(|last| last.split('[').next()).unwrap_or_default();
    let of = |(of, name, names): &(Option<Kind>, &str, &'static [&'static str])| {
        (of.is_none_or(|of| of == kind) && *name == parent).then_some(*names)
    };
    FIELDS.iter().find_map(of).map(|names| meant(field, names)).unwrap_or_default()
}

/// The fields of the groups that people write, by kind (`None`: any) and by the name of the group.
const FIELDS: &[(Option<Kind>, &str, &[&str])] = {
    const POLICY: Option<Kind> = Some(Kind::NetworkPolicy);
    const SERVICE: Option<Kind> = Some(Kind::Service);
    const SLICE: Option<Kind> = Some(Kind::EndpointSlice);
    &[
        (POLICY, "spec", &["egress", "ingress", "podSelector", "policyTypes"]),
        (POLICY, "ingress", &["from", "ports"]),
        (POLICY, "egress", &["ports", "to"]),
        (POLICY, "from", &["ipBlock", "namespaceSelector", "podSelector"]),
        (POLICY, "to", &["ipBlock", "namespaceSelector", "podSelector"]),
        (POLICY, "ports", &["endPort", "port", "protocol"]),
        (POLICY, "ipBlock", &["cidr", "except"]),
        (POLICY, "podSelector", &["matchExpressions", "matchLabels"]),
        (POLICY, "namespaceSelector", &["matchExpressions", "matchLabels"]),
        (POLICY, "matchExpressions", &["key", "operator", "values"]),
        (
            SERVICE,
            "spec",
            &[
                "allocateLoadBalancerNodePorts",
                "clusterIP",
                "clusterIPs",
                "externalIPs",
                "externalName",
                "externalTrafficPolicy",
                "healthCheckNodePort",
                "internalTrafficPolicy",
                "ipFamilies",
                "ipFamilyPolicy",
                "loadBalancerClass",
                "loadBalancerIP",
                "loadBalancerSourceRanges",
                "ports",
                "publishNotReadyAddresses",
                "selector",
                "sessionAffinity",
                "sessionAffinityConfig",
                "trafficDistribution",
                "type",
            ],
        ),
        (SERVICE, "ports", &["appProtocol", "name", "nodePort", "port", "protocol", "targetPort"]),
        (SERVICE, "sessionAffinityConfig", &["clientIP"]),
        (SERVICE, "clientIP", &["timeoutSeconds"]),
        (SLICE, "", &["addressType", "apiVersion", "endpoints", "kind", "metadata", "ports"]),
        (
            SLICE,
            "endpoints",
            &["addresses", "conditions", "hints", "hostname", "nodeName", "targetRef", "zone"],
        ),
        (SLICE, "conditions", &["ready", "serving", "terminating"]),
        (SLICE, "ports", &["appProtocol", "name", "port", "protocol"]),
        (None, "", &["apiVersion", "kind", "metadata", "spec", "status"]),
        (None, "metadata", &["annotations", "labels", "name", "namespace"]),
    ]
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_and_not_read_is_unknown() {
        let written = json!({"a": 1, "b": {"c": null, "d": [{"e": 1}, {"f": 2}]}, "g": {}});
        let read = json!({"a": "1", "b": {"d": [{"e": 1}, {}]}});
        assert_eq!(fields(&written, &read), ["b.d[1].f", "g"]);
    }

    #[test]
    fn the_field_that_was_meant_is_near() {
        for (kind, path, expected) in [
            (Kind::NetworkPolicy, "spec.egres", &["egress"][..]),
            (Kind::NetworkPolicy, "spec.policytypes", &["policyTypes"]),
            (Kind::NetworkPolicy, "spec.igress", &["egress", "ingress"]),
            (Kind::NetworkPolicy, "spec.ingress[0].form", &["from"]),
            (Kind::NetworkPolicy, "spec.ingress[3].from[1].podselector", &["podSelector"]),
            (Kind::NetworkPolicy, "spec.egress[0].ports[0].prot", &["port"]),
            (Kind::NetworkPolicy, "spec.podSelector.matchLabel", &["matchLabels"]),
            (Kind::NetworkPolicy, "spec.egress[0].from", &[]),
            (Kind::NetworkPolicy, "spec.priority", &[]),
            (Kind::Service, "spec.loadBalancerSourceRange", &["loadBalancerSourceRanges"]),
            (Kind::Service, "spec.ports[0].nodeport", &["nodePort"]),
            (Kind::EndpointSlice, "endpoints[0].adresses", &["addresses"]),
            (Kind::Pod, "metadata.lables", &["labels"]),
            (Kind::Pod, "spec.anything", &[]),
        ] {
            assert_eq!(suggestions(kind, path), expected, "{path}");
        }
    }
}
