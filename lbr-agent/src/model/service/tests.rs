use serde_json::{Value, json};

use super::*;

fn convert(spec: Value) -> Converted<Service> {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"}, "spec": spec,
    });
    from_api(serde_json::from_value(object).unwrap())
}

#[test]
fn a_service_keeps_what_matters() {
    let converted = convert(json!({
        "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::10"],
        "internalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
    }));
    assert_eq!(converted.problems, []);
    let service = converted.object.unwrap();
    assert_eq!(service.name.to_string(), "default/web");
    assert_eq!(service.cluster_ips, ["10.96.0.10".parse::<IpAddr>().unwrap(), "fd00::10".parse().unwrap()]);
    assert_eq!(service.internal_policy, TrafficPolicy::Local);
    let ports: Vec<_> = service.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port)).collect();
    assert_eq!(ports, [("http", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53)]);
}

#[test]
fn services_without_a_proxy_or_with_another_one_are_accepted_and_empty() {
    for spec in [
        json!({"clusterIP": "None"}),
        json!({"clusterIPs": ["None"]}),
        json!({"type": "ExternalName", "externalName": "example.org"}),
        json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "ports": [{"port": 80}]}),
    ] {
        let converted = convert(spec.clone());
        assert_eq!(converted.problems, [], "{spec}");
        assert_eq!(converted.object.unwrap().cluster_ips, [] as [IpAddr; 0], "{spec}");
    }
    let labelled = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a", "namespace": "b", "labels": {LABEL_OTHER_PROXY: "x"}},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
    });
    let converted = from_api(serde_json::from_value(labelled).unwrap());
    assert_eq!(converted.object.unwrap().cluster_ips, [] as [IpAddr; 0]);
}

#[test]
fn what_the_api_refuses_refuses_the_service() {
    let one = json!([{"port": 80}]);
    for (spec, field) in [
        (json!({"ports": one}), "spec.clusterIP"),
        (json!({"clusterIP": "", "ports": one}), "spec.clusterIP"),
        (json!({"clusterIP": "10.96.0.300", "ports": one}), "spec.clusterIP"),
        (json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"], "ports": one}), "spec.clusterIPs[0]"),
        (json!({"clusterIPs": ["10.0.0.1", "10.0.0.1"], "ports": one}), "spec.clusterIPs[1]"),
        (json!({"clusterIP": "10.0.0.1"}), "spec.ports"),
        (json!({"clusterIP": "10.0.0.1", "ports": [{}]}), "spec.ports[0].port"),
        (json!({"clusterIP": "10.0.0.1", "ports": [{"port": 70000}]}), "spec.ports[0].port"),
        (
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "protocol": "tcp"}]}),
            "spec.ports[0].protocol",
        ),
        (
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "name": "a"}, {"port": 2}]}),
            "spec.ports[1].name",
        ),
        (
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "a"}]}),
            "spec.ports[1].name",
        ),
        (
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]}),
            "spec.ports[1].port",
        ),
        (
            json!({"clusterIP": "10.0.0.1", "ports": one, "internalTrafficPolicy": "Nearby"}),
            "spec.internalTrafficPolicy",
        ),
        (
            json!({"clusterIP": "10.0.0.1", "ports": one, "externalTrafficPolicy": "Nearby"}),
            "spec.externalTrafficPolicy",
        ),
        (json!({"clusterIP": "10.0.0.1", "ports": one, "type": "Nodeport"}), "spec.type"),
        (json!({"clusterIP": "10.0.0.1", "ports": one, "sessionAffinity": "Cookie"}), "spec.sessionAffinity"),
        (
            json!({"clusterIP": "10.0.0.1", "ports": one, "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        ),
        (
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 1, "nodePort": 70000}]}),
            "spec.ports[0].nodePort",
        ),
        (
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [
                {"port": 1, "name": "a", "nodePort": 30000}, {"port": 2, "name": "b", "nodePort": 30000}]}),
            "spec.ports[1].nodePort",
        ),
        (json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "name": "A"}]}), "spec.ports[0].name"),
        (json!({"clusterIP": "10.0.0.1", "ports": one, "externalIPs": ["x"]}), "spec.externalIPs[0]"),
        (
            json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": -1,
                "clusterIP": "10.0.0.1", "ports": one}),
            "spec.healthCheckNodePort",
        ),
    ] {
        let converted = convert(spec.clone());
        assert_eq!(converted.object, None, "{spec}");
        let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, [field], "{spec}");
    }
}

#[test]
fn what_lbr_does_not_translate_costs_only_that_part() {
    for (spec, field, ips, ports) in [
        (json!({"clusterIPs": ["127.0.0.1", "fd00::1"], "ports": [{"port": 1}]}), "spec.clusterIPs[0]", 1, 1),
        (json!({"clusterIP": "169.254.0.1", "ports": [{"port": 1}]}), "spec.clusterIP", 0, 1),
        (
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 1}]}),
            "spec.ports[0].nodePort",
            1,
            1,
        ),
        (
            json!({"clusterIP": "10.0.0.1", "ports": [{"port": 1, "nodePort": 30000}]}),
            "spec.ports[0].nodePort",
            1,
            1,
        ),
        (
            json!({"externalIPs": ["fe80::1"], "clusterIP": "fd00::1", "ports": [{"port": 1}]}),
            "spec.externalIPs[0]",
            1,
            1,
        ),
        (
            json!({"externalIPs": ["2001:db8::1"], "clusterIP": "10.0.0.1", "ports": [{"port": 1}]}),
            "spec.externalIPs[0]",
            1,
            1,
        ),
    ] {
        let converted = convert(spec.clone());
        let service = converted.object.unwrap();
        let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(
            (fields, service.cluster_ips.len(), service.ports.len()),
            (vec![field], ips, ports),
            "{spec}"
        );
    }
}

fn accepted(spec: Value, status: Value) -> (Service, Vec<String>) {
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "default"},
        "spec": spec, "status": status,
    });
    let converted = from_api(serde_json::from_value(object).unwrap());
    (converted.object.unwrap(), converted.problems.into_iter().map(|p| p.field).collect())
}

#[test]
fn a_load_balancer_keeps_the_addresses_that_packets_carry() {
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    let spec = |kind: &str| {
        json!({"type": kind, "clusterIP": "10.96.0.10", "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 32000, "ports": ports})
    };
    let status = json!({"loadBalancer": {"ingress": [
        {"ip": "192.0.2.1"}, {"hostname": "lb.example"}, {"ip": "192.0.2.2", "ipMode": "Proxy"},
        {"ip": "192.0.2.3", "ipMode": "VIP"}, {"ip": "2001:db8::1"}, {"ip": "x"}, {"ip": "127.0.0.1"},
    ]}});
    let (service, problems) = accepted(spec("LoadBalancer"), status.clone());
    let expected: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.3".parse().unwrap()];
    assert_eq!(service.load_balancer_ips, expected);
    assert_eq!(problems, [4, 5, 6].map(|i| format!("status.loadBalancer.ingress[{i}].ip")));
    assert_eq!(service.external_policy, TrafficPolicy::Local);
    assert_eq!(service.ports[0].node_port, Some(30080));
    assert_eq!(service.health_check_port, Some(32000));

    // The status of a former load balancer may linger.
    let (service, problems) = accepted(spec("NodePort"), status);
    assert_eq!((service.load_balancer_ips, problems), (vec![], vec![]));
    assert_eq!(service.health_check_port, None);
}

#[test]
fn source_ranges_close_and_never_open_by_mistake() {
    let nets = |nets: &[&str]| Some(nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>());
    for (ranges, v4, v6, wrong) in [
        (json!([]), None, None, 0),
        (json!([" 10.0.0.0/8 ", "192.0.2.1/24"]), nets(&["10.0.0.0/8", "192.0.2.0/24"]), None, 0),
        (json!(["10.0.0.0/8", "0.0.0.0/0"]), None, None, 0),
        (json!(["0.0.0.0/0", "fd00::/8"]), None, nets(&["fd00::/8"]), 0),
        (json!(["10.0.0.0/33"]), nets(&[]), nets(&[]), 1),
        (json!(["10.0.0.0/8", "x"]), nets(&["10.0.0.0/8"]), nets(&[]), 1),
        (json!(["x", "0.0.0.0/0"]), None, nets(&[]), 1),
    ] {
        let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.0.10", "ports": [{"port": 80}],
            "loadBalancerSourceRanges": ranges});
        let (service, problems) = accepted(spec, json!({}));
        assert_eq!((service.source_ranges, problems.len()), (SourceRanges { v4, v6 }, wrong), "{ranges}");
    }
}

#[test]
fn session_affinity_has_a_time() {
    for (spec, seconds) in [
        (json!({}), 0),
        (json!({"sessionAffinity": "None"}), 0),
        (json!({"sessionAffinity": "ClientIP"}), 10_800),
        (
            json!({"sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}}}),
            10,
        ),
    ] {
        let mut all = json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]});
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        assert_eq!(accepted(all, json!({})).0.affinity, seconds, "{spec}");
    }
}

#[test]
fn the_algorithm_is_one_of_two() {
    for (text, algorithm, wrong) in [
        ("random", Algorithm::Random, 0),
        ("maglev", Algorithm::Maglev, 0),
        ("fastest", Algorithm::Random, 1),
    ] {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default", "annotations": {ALGORITHM: text}},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        });
        let converted = from_api(serde_json::from_value(object).unwrap());
        assert_eq!(converted.object.unwrap().algorithm, algorithm);
        assert_eq!(converted.problems.len(), wrong, "{text}");
    }
}

#[test]
fn forwarding_is_one_of_three() {
    for (text, forwarding, wrong) in [
        ("snat", Forwarding::Snat, None),
        ("dsr", Forwarding::Dsr, None),
        ("dsr-ipip", Forwarding::DsrIpip, None),
        ("teleport", Forwarding::Snat, Some("metadata.annotations[lbr.dev/forwarding]")),
    ] {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default", "annotations": {FORWARDING: text}},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        });
        let converted = from_api(serde_json::from_value(object).unwrap());
        assert_eq!(converted.object.unwrap().forwarding, forwarding);
        assert_eq!(converted.problems.first().map(|problem| problem.field.as_str()), wrong, "{text}");
    }
}

#[test]
fn names_fit_into_the_maps() {
    for (namespace, name, field) in
        [("default", "a".repeat(64), "metadata.name"), ("a.b", "web".to_owned(), "metadata.namespace")]
    {
        let object = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]},
        });
        let converted = from_api(serde_json::from_value(object).unwrap());
        assert_eq!(converted.object, None);
        assert_eq!(converted.problems[0].field, field);
    }
}
