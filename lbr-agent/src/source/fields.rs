//! Fields of raw objects: which are read, how errors are worded, and what can be read in spite of them.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::Segment;

use crate::model::Kind;
use crate::model::convert::like_a_number;

/// The parts of Pods and Nodes that are read. The rest is ignored: it is large, newer than lbr, or holds quantities,
/// which YAML writes as numbers and the API types want as text.
const POD: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
const POD_SPEC: [&str; 4] = ["nodeName", "hostNetwork", "containers", "initContainers"];
const CONTAINER: [&str; 3] = ["name", "ports", "restartPolicy"];
const POD_STATUS: [&str; 3] = ["phase", "podIP", "podIPs"];
const NODE: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
const NODE_SPEC: [&str; 2] = ["podCIDRs", "taints"];
const NODE_STATUS: [&str; 1] = ["addresses"];
/// The part of a Service's status that is read: a load balancer's addresses.
const SERVICE_STATUS: [&str; 1] = ["loadBalancer"];

/// Removes the parts of an object in a file that lbr does not read.
pub(super) fn keep_known_parts(kind: Kind, value: &mut Value) {
    match kind {
        Kind::Pod => {
            keep(value, &POD);
            if let Some(spec) = value.get_mut("spec") {
                keep(spec, &POD_SPEC);
                for list in ["containers", "initContainers"] {
                    for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                        keep(container, &CONTAINER);
                    }
                }
            }
            value.get_mut("status").into_iter().for_each(|status| keep(status, &POD_STATUS));
        }
        Kind::Node => {
            keep(value, &NODE);
            value.get_mut("spec").into_iter().for_each(|spec| keep(spec, &NODE_SPEC));
            value.get_mut("status").into_iter().for_each(|status| keep(status, &NODE_STATUS));
        }
        Kind::Service => {
            value.get_mut("status").into_iter().for_each(|status| keep(status, &SERVICE_STATUS));
        }
        // The cluster writes the status, not the author.
        Kind::EndpointSlice | Kind::Namespace | Kind::NetworkPolicy | Kind::ServiceCidr => {
            value.as_object_mut().into_iter().for_each(|fields| drop(fields.remove("status")));
        }
    }
}

fn keep(value: &mut Value, keys: &[&str]) {
    if let Value::Object(fields) = value {
        fields.retain(|key, _| keys.contains(&key.as_str()));
    }
}

/// Values that no field accepts, in the order in which they are tried.
fn stand_ins() -> [Value; 5] {
    [json!(-1), json!("?"), json!({}), json!(["?"]), Value::Null]
}

/// Reads an object with mistakes: a value of another type than its field's becomes one of the right type that the field
/// does not accept.
pub(super) fn leniently<A: DeserializeOwned>(mut value: Value) -> Option<A> {
    const MISTAKES: usize = 64;
    let stand_ins = stand_ins();
    for _ in 0..MISTAKES * stand_ins.len() {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(api) => return Some(api),
            Err(error) => error,
        };
        let place = at(&mut value, error.path())?;
        let tried = stand_ins.iter().position(|stand_in| stand_in == place).map_or(0, |last| last + 1);
        *place = stand_ins.get(tried)?.clone();
    }
    None
}

fn at<'a>(value: &'a mut Value, path: &serde_path_to_error::Path) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get_mut(*index),
        Segment::Map { key } => value.get_mut(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

/// serde's message, for people who do not write Rust.
pub(super) fn plain_words(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("invalid value: integer ") {
        return format!("is {}, which is out of range", rest.split(',').next().unwrap_or(rest));
    }
    let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    else {
        return message.to_owned();
    };
    let (kind, text) = found.split_once(' ').unwrap_or((found, ""));
    let is_number = matches!(expected, "i32" | "i64" | "u16" | "u32");
    if kind == "string"
        && is_number
        && let Some(reason) = like_a_number(text.trim_matches('"'))
    {
        return reason;
    }
    if kind == "boolean" && matches!(expected, "a string" | "string") {
        return format!(
            "is {text}, but must be text: put it in quotes (YAML reads yes, no, on and off as true and false)"
        );
    }
    let found = match kind {
        "integer" | "string" | "boolean" | "floating" => text.trim_start_matches("point ").to_owned(),
        "map" => "a group of fields".to_owned(),
        "sequence" => "a list".to_owned(),
        "null" => "nothing".to_owned(),
        _ => found.to_owned(),
    };
    let expected = match expected {
        _ if is_number => "a whole number",
        "a string" | "string" => "text: put it in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "IntOrString" => "a number or the name of a port",
        // The name of an API type, or a map.
        _ => "a group of fields",
    };
    format!("is {found}, but must be {expected}")
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as core;

    use super::*;

    #[test]
    fn messages_are_for_people() {
        for (message, expected) in [
            ("invalid type: string \"http\", expected i32", "is \"http\", but must be a whole number"),
            (
                "invalid type: string \"80\", expected i32",
                "is \"80\", but must be a whole number without quotes",
            ),
            (
                "invalid type: string \"0120\", expected i32",
                "is 0120, and with a leading zero some programs read 80 (octal), others 120: write 80 or 120",
            ),
            (
                "invalid type: boolean `true`, expected a string",
                "is `true`, but must be text: put it in quotes (YAML reads yes, no, on and off as true and false)",
            ),
            ("invalid type: floating point `80.5`, expected i32", "is `80.5`, but must be a whole number"),
            ("invalid type: integer `80`, expected a string", "is `80`, but must be text: put it in quotes"),
            (
                "invalid type: boolean `true`, expected IntOrString",
                "is `true`, but must be a number or the name of a port",
            ),
            ("invalid type: map, expected a sequence", "is a group of fields, but must be a list"),
            ("invalid type: null, expected ServiceSpec", "is nothing, but must be a group of fields"),
            ("invalid value: integer `99999999999`, expected i32", "is `99999999999`, which is out of range"),
            ("something else", "something else"),
        ] {
            assert_eq!(plain_words(message), expected);
        }
    }

    #[test]
    fn one_mistake_does_not_hide_the_rest() {
        let written = json!({"spec": {
            "type": 5, "clusterIP": 10, "externalIPs": ["192.0.2.9", 7], "loadBalancerSourceRanges": "10.0.0.0/8",
            "ports": [{"port": "http", "protocol": 6, "name": "a"}, {"port": 81, "nodePort": "x"}, "82"],
            "publishNotReadyAddresses": "yes", "sessionAffinityConfig": [],
        }});
        let api: core::Service = leniently(written).unwrap();
        let spec = api.spec.unwrap();
        assert_eq!((spec.type_.as_deref(), spec.cluster_ip.as_deref()), (Some("?"), Some("?")));
        assert_eq!(spec.external_ips.unwrap(), ["192.0.2.9", "?"]);
        assert_eq!(spec.load_balancer_source_ranges.unwrap(), ["?"]);
        let ports = spec.ports.unwrap();
        let read: Vec<_> = ports.iter().map(|p| (p.port, p.protocol.as_deref(), p.node_port)).collect();
        assert_eq!(read, [(-1, Some("?"), None), (81, None, Some(-1)), (0, None, None)]);
        assert!(leniently::<core::Service>(json!("text")).is_some(), "becomes an empty object");
    }
}
