//! Rejected edits of Services: the table of `model/service/edit.rs`.

use serde_json::{Value, json};

use super::*;
use crate::model::TrafficPolicy;

fn convert(spec: &Value) -> Converted<Object> {
    let ingress: Vec<_> =
        spec["balancer"].as_array().into_iter().flatten().map(|ip| json!({"ip": ip})).collect();
    let mut spec = spec.clone();
    spec.as_object_mut().into_iter().for_each(|spec| drop(spec.remove("balancer")));
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"}, "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    });
    decode(Kind::Service, object, Author::Person)
}

/// What a Service serves, in words: `10.96.0.10 80/TCP=30080 ...`.
fn text(service: &Service) -> String {
    let mut words: Vec<String> = service.cluster_ips.iter().map(ToString::to_string).collect();
    for port in &service.ports {
        let node_port = port.node_port.map(|number| format!("={number}")).unwrap_or_default();
        words.push(format!("{}/{:?}{node_port}", port.port, port.protocol).to_uppercase());
    }
    words.extend(service.external_ips.iter().map(|(_, ip)| format!("external:{ip}")));
    words.extend(service.load_balancer_ips.iter().map(|ip| format!("balancer:{ip}")));
    for range in service.source_ranges.v4.iter() {
        let range: Vec<_> = range.iter().map(ToString::to_string).collect();
        words.push(format!("for:{}", range.join(",")));
    }
    words.extend(service.health_check_port.map(|number| format!("health:{number}")));
    let policies = [("internal", service.internal_policy), ("external", service.external_policy)];
    let local = policies.iter().filter(|(_, policy)| *policy == TrafficPolicy::Local);
    words.extend(local.map(|(word, _)| format!("{word}:local")));
    words.join(" ")
}

/// The Service of all examples, with some fields replaced.
fn spec(changes: &Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.10", "externalIPs": ["192.0.2.8", "192.0.2.9"],
        "externalTrafficPolicy": "Local", "healthCheckNodePort": 32100, "balancer": ["203.0.113.1"],
        "loadBalancerSourceRanges": ["10.0.0.0/8", "172.16.0.0/12"],
        "ports": [
            {"name": "http", "port": 80, "nodePort": 30080},
            {"name": "tls", "port": 443, "nodePort": 30443},
            {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
        ],
    });
    if let (Value::Object(spec), Value::Object(changes)) = (&mut spec, changes) {
        for (key, value) in changes {
            spec.insert(key.clone(), value.clone());
        }
    }
    spec
}

/// One mistake that closes nothing, so that an edit is rejected for it alone.
fn with_mistake(mut changes: Value) -> Value {
    changes["sessionAffinity"] = "Client".into();
    changes
}

#[test]
fn an_edit_closes_what_it_evidently_closes_and_opens_nothing() {
    let Some(Object::Service(last)) = convert(&spec(&json!({}))).object else { panic!("not accepted") };
    let ports = "80/TCP=30080 443/TCP=30443 53/UDP=30053";
    let addresses = "external:192.0.2.8 external:192.0.2.9 balancer:203.0.113.1";
    let rest = "for:10.0.0.0/8,172.16.0.0/12 health:32100 external:local";
    assert_eq!(text(&last), format!("10.96.0.10 {ports} {addresses} {rest}"));
    let (http, tls, dns) = (
        json!({"name": "http", "port": 80, "nodePort": 30080}),
        json!({"name": "tls", "port": 443, "nodePort": 30443}),
        json!({"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}),
    );
    let with_ports = |list: &[&Value]| json!({"ports": list});
    for (what, edit, expected) in [
        ("a mistake alone", with_mistake(json!({})), format!("{ports} {addresses} {rest}")),
        // Ports.
        ("one bad port of three", with_ports(&[&http, &json!({"name": "tls", "port": 0}), &dns]),
            format!("80/TCP=30080 443/TCP 53/UDP=30053 {addresses} {rest}")),
        ("a port that is no number", with_ports(&[&http, &json!({"name": "tls", "port": "x", "nodePort": 30443}), &dns]),
            format!("{ports} {addresses} {rest}")),
        ("a bad protocol", with_ports(&[&http, &tls, &json!({"name": "x", "port": 53, "protocol": "udp", "nodePort": 30053})]),
            format!("{ports} {addresses} {rest}")),
        ("a port removed while another is bad", with_ports(&[&http, &json!({"name": "dns", "port": -1, "protocol": "UDP", "nodePort": 30053})]),
            format!("80/TCP=30080 53/UDP=30053 {addresses} {rest}")),
        ("a bad port of another protocol", with_ports(&[&http, &json!({"name": "dns", "port": -1})]),
            format!("80/TCP=30080 {addresses} {rest}")),
        ("a bad new port", with_ports(&[&http, &json!({"name": "new", "port": 99999})]),
            format!("80/TCP=30080 {addresses} {rest}")),
        ("another number under the name", with_mistake(with_ports(&[&http, &json!({"name": "tls", "port": 8443})])),
            format!("80/TCP=30080 {addresses} {rest}")),
        ("a bad node port", with_ports(&[&http, &json!({"name": "tls", "port": 443, "nodePort": 70000})]),
            format!("80/TCP=30080 443/TCP=30443 {addresses} {rest}")),
        ("another node port", with_mistake(with_ports(&[&json!({"name": "http", "port": 80, "nodePort": 31080})])),
            format!("80/TCP {addresses} {rest}")),
        ("no ports", with_ports(&[]), format!("{ports} {addresses} {rest}")),
        ("ports that are no list", json!({"ports": "80"}), format!("{ports} {addresses} {rest}")),
        // Types.
        ("ClusterIP", with_mistake(json!({"type": "ClusterIP"})),
            "80/TCP 443/TCP 53/UDP external:192.0.2.8 external:192.0.2.9 for:10.0.0.0/8,172.16.0.0/12 external:local".to_owned()),
        ("NodePort", with_mistake(json!({"type": "NodePort"})),
            format!("{ports} external:192.0.2.8 external:192.0.2.9 for:10.0.0.0/8,172.16.0.0/12 external:local")),
        ("a bad type", json!({"type": "clusterIP"}), format!("{ports} {addresses} {rest}")),
        // Addresses.
        ("an external IP removed", with_mistake(json!({"externalIPs": ["192.0.2.9"]})),
            format!("{ports} external:192.0.2.9 balancer:203.0.113.1 {rest}")),
        ("a bad external IP may be the other one", json!({"externalIPs": ["192.0.2.9", "192.0.2"]}),
            format!("{ports} {addresses} {rest}")),
        ("a bad external IP can not be both", json!({"externalIPs": ["192.0.2"]}),
            format!("{ports} balancer:203.0.113.1 {rest}")),
        ("the balancer's address removed", with_mistake(json!({"balancer": []})),
            format!("{ports} external:192.0.2.8 external:192.0.2.9 {rest}")),
        ("another balancer's address", with_mistake(json!({"balancer": ["203.0.113.2"]})),
            format!("{ports} external:192.0.2.8 external:192.0.2.9 {rest}")),
        ("a bad cluster IP", json!({"clusterIP": "10.96.0"}), format!("{ports} {addresses} {rest}")),
        // Clients.
        ("narrower ranges", with_mistake(json!({"loadBalancerSourceRanges": ["10.1.0.0/16", "192.168.0.0/16"]})),
            format!("{ports} {addresses} for:10.1.0.0/16 health:32100 external:local")),
        ("no ranges", with_mistake(json!({"loadBalancerSourceRanges": []})), format!("{ports} {addresses} {rest}")),
        ("a bad range", with_mistake(json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "172.16.0.0/33"]})),
            format!("{ports} {addresses} for:10.0.0.0/8 health:32100 external:local")),
        // Policies.
        ("a bad external policy", json!({"externalTrafficPolicy": "local"}), format!("{ports} {addresses} {rest}")),
        ("Cluster", with_mistake(json!({"externalTrafficPolicy": "Cluster"})),
            format!("{ports} {addresses} for:10.0.0.0/8,172.16.0.0/12 external:local")),
        ("internal Local", with_mistake(json!({"internalTrafficPolicy": "Local"})),
            format!("{ports} {addresses} for:10.0.0.0/8,172.16.0.0/12 health:32100 internal:local external:local")),
        ("another health port", with_mistake(json!({"healthCheckNodePort": 32101})),
            format!("{ports} {addresses} for:10.0.0.0/8,172.16.0.0/12 external:local")),
        ("a spec that is no group", Value::Null, String::new()),
    ] {
        let edit = if edit.is_null() { json!("text") } else { spec(&edit) };
        let converted = convert(&edit);
        assert_eq!(converted.object, None, "{what}: must be rejected");
        let Some(partial) = converted.partial else {
            assert!(expected.is_empty(), "{what}");
            continue;
        };
        assert!(matches!(partial, Partial::Service(_)));
        assert_eq!(partial.over(None), None, "{what}: opens nothing");
        let Some(Object::Service(now)) = partial.over(Some(&Object::Service(last.clone()))) else { panic!("{what}") };
        assert_eq!(text(&now), format!("10.96.0.10 {expected}"), "{what}");
        assert_eq!(Service { ports: vec![], ..now }.name, last.name);
    }
}

/// Fields that an earlier type left behind reject nothing, as at the API server, so that the edit closes what it says.
#[test]
fn left_over_fields_do_not_hold_up_an_edit() {
    for (to, expected) in [
        (
            "ClusterIP",
            "10.96.0.10 80/TCP 443/TCP 53/UDP external:192.0.2.8 external:192.0.2.9 external:local",
        ),
        (
            "NodePort",
            "10.96.0.10 80/TCP=30080 443/TCP=30443 53/UDP=30053 external:192.0.2.8 external:192.0.2.9 external:local",
        ),
        ("ExternalName", ""),
    ] {
        let Some(Object::Service(now)) = convert(&spec(&json!({"type": to}))).object else { panic!("{to}") };
        assert_eq!(text(&now), expected, "{to}");
    }
}

/// It would leave the load balancer's addresses open to all.
#[test]
fn misspelt_source_ranges_close() {
    let mut misspelt = spec(&json!({}));
    let ranges = misspelt.as_object_mut().and_then(|spec| spec.remove("loadBalancerSourceRanges"));
    misspelt["loadBalancerSourceRange"] = ranges.unwrap();
    let converted = convert(&misspelt);
    let Some(Object::Service(service)) = converted.object else { panic!("not accepted") };
    assert_eq!((service.source_ranges.v4, service.source_ranges.v6), (Some(vec![]), Some(vec![])));
    let problem = &converted.problems[0];
    assert_eq!(problem.field, "spec.loadBalancerSourceRange");
    assert!(
        problem.reason.contains("did you mean loadBalancerSourceRanges? Until then"),
        "{}",
        problem.reason
    );
    // A field that limits nothing is only named.
    let converted = convert(&spec(&json!({"nodport": 1})));
    assert!(converted.object.is_some() && converted.problems.len() == 1);
}
