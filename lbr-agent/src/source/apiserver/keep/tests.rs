use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking};
use serde_json::json;

use super::*;
use crate::model::unknown::fields as unknown_fields;
use crate::source::fields::keep_known_parts;

fn read(kind: Kind, text: &str) -> Value {
    of(kind).deserialize(&mut serde_json::Deserializer::from_str(text)).unwrap()
}

#[test]
fn the_rest_is_left_out_at_every_depth() {
    let text = r#"{"kind":"Pod","metadata":{"name":"a","managedFields":[{"x":{}}],"annotations":{"big":"x"}},
        "spec":{"nodeName":"n","volumes":[1],"containers":[{"name":"c","image":"i","ports":[{"name":"p"}]},null]},
        "status":{"podIP":"10.0.0.1","conditions":[{}]}}"#;
    let expected = json!({
        "metadata": {"name": "a", "annotations": {}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "p"}]}, null]},
        "status": {"podIP": "10.0.0.1"},
    });
    assert_eq!(read(Kind::Pod, text), expected);
}

#[test]
fn what_has_another_shape_is_kept_for_its_reader() {
    assert_eq!(read(Kind::Pod, r#"{"metadata":"x","spec":7,"status":true}"#)["spec"], 7);
    assert_eq!(read(Kind::Namespace, "null"), Value::Null);
}

#[test]
fn policies_keep_what_lbr_does_not_know() {
    let text = r#"{"spec":{"podSelector":{},"brandNew":1},"status":{}}"#;
    assert_eq!(read(Kind::NetworkPolicy, text), json!({"spec": {"podSelector": {}, "brandNew": 1}}));
}

/// The fields of an object that get lost on the way into the API's type: from a file, and from the API server.
fn lost<A: serde::de::DeserializeOwned + serde::Serialize>(kind: Kind, object: &Value) -> [Vec<String>; 2] {
    let mut from_person = object.clone();
    keep_known_parts(kind, &mut from_person);
    [from_person, read(kind, &object.to_string())]
        .map(|kept| unknown_fields(object, &serde_json::from_value::<A>(kept).unwrap()))
}

#[test]
fn what_a_service_asks_for_survives_both_ways() {
    let object = json!({
        "metadata": {
            "name": "web", "namespace": "default", "labels": {"a": "b"},
            "annotations": {"lbr.dev/mode": "audit", "lbr.dev/of-tomorrow": "x"},
        },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ports": [{"name": "a", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}],
            "externalIPs": ["192.0.2.1"], "loadBalancerIP": "192.0.2.9", "loadBalancerClass": "lbr.dev/class",
            "loadBalancerSourceRanges": ["192.0.2.0/24"], "allocateLoadBalancerNodePorts": false,
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
            "trafficDistribution": "PreferClose", "publishNotReadyAddresses": true,
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.7", "ipMode": "VIP"}, {"ip": "203.0.113.8", "ipMode": "Proxy"},
            {"hostname": "lb.example.org"},
        ]}},
    });
    assert_eq!(lost::<core::Service>(Kind::Service, &object), [[""; 0]; 2]);
}

#[test]
fn the_rest_of_a_services_status_is_left_out_both_ways() {
    let object = json!({"status": {"loadBalancer": {}, "conditions": [{"type": "x"}]}});
    assert_eq!(lost::<core::Service>(Kind::Service, &object), [["status.conditions"]; 2]);
}

#[test]
fn what_endpoints_nodes_and_blocks_say_survives_both_ways() {
    let slice = json!({
        "metadata": {
            "name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05Z"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "a", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
        "endpoints": [{
            "addresses": ["10.0.0.1"], "nodeName": "n1", "zone": "z1",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "hints": {"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]},
            "targetRef": {"kind": "Pod", "name": "web-0", "namespace": "default"},
        }],
    });
    let [of_type, kept] = lost::<discovery::EndpointSlice>(Kind::EndpointSlice, &slice);
    assert_eq!((of_type, kept), (vec![], vec!["endpoints[0].targetRef".to_owned()]));
    let node = json!({
        "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}},
        "spec": {"podCIDRs": ["10.244.1.0/24"], "taints": [{"key": "k", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.3"}]},
    });
    assert_eq!(lost::<core::Node>(Kind::Node, &node), [[""; 0]; 2]);
    let blocks =
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/12", "fd00::/108"]}});
    assert_eq!(lost::<networking::ServiceCIDR>(Kind::ServiceCidr, &blocks), [[""; 0]; 2]);
}
