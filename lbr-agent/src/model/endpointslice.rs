//! `discovery.k8s.io/v1` EndpointSlice.

mod parts;

use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lbr_common::addr::Family;

use super::convert::{Converted, Problems, address, namespaced, port_number, protocol, unsafe_address};
use super::shared::shared;
use super::{Endpoint, EndpointPort, EndpointSlice, ObjectName};

pub use self::parts::{Metadata, Parts};

/// Label with the Service that a slice belongs to.
pub const LABEL_SERVICE: &str = "kubernetes.io/service-name";

/// Set on slices of headless Services, which no proxy programs.
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";

/// Time of the change that this version of the slice follows.
const ANNOTATION_TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Reduces an EndpointSlice to what matters here. A slice of a headless Service is accepted and has no
/// endpoints: one that becomes headless must lose those it had.
pub fn from_api(api: api::EndpointSlice) -> Converted<EndpointSlice> {
    from_parts(Parts::from(&api))
}

/// The same for the parts of one.
pub fn from_parts(parts: Parts<'_>) -> Converted<EndpointSlice> {
    let mut problems = Problems::default();
    let text = |text: Option<&str>| text.map(str::to_owned);
    let Metadata { name, namespace, labels, annotations, .. } = parts.metadata;
    let metadata = ObjectMeta { name: text(name), namespace: text(namespace), ..ObjectMeta::default() };
    let name = namespaced(&metadata, &mut problems);
    let labels = labels.unwrap_or_default();
    let service = text(labels.get(LABEL_SERVICE).copied()).unwrap_or_default();
    let triggered = annotations.unwrap_or_default().triggered;
    // Only metrics use it: an unreadable time counts as absent.
    let triggered = triggered.and_then(|time| time.parse::<Timestamp>().ok());
    let triggered = triggered.map(SystemTime::from);
    if labels.contains_key(LABEL_HEADLESS) {
        return problems.finish(EndpointSlice { name, service, ..EndpointSlice::default() });
    }
    let family = match parts.address_type {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => {
            problems.refuse("addressType", "FQDN is not served: packets go to addresses, write IPv4 or IPv6");
            return problems.finish(EndpointSlice::default());
        }
        other => {
            problems.refuse("addressType", format!("{other:?} is not an address type: write IPv4 or IPv6"));
            return problems.finish(EndpointSlice::default());
        }
    };
    let ports = ports(parts.ports.unwrap_or_default(), &mut problems);
    let mut endpoints = Vec::new();
    for (i, endpoint) in parts.endpoints.unwrap_or_default().into_iter().enumerate() {
        match endpoint_addr(&endpoint, family) {
            Ok(addr) => endpoints.push(convert_endpoint(addr, endpoint)),
            Err((field, reason)) => problems.part(format!("endpoints[{i}].{field}"), reason),
        }
    }
    // There are many slices, and most have fewer endpoints than the first allocation has room for.
    endpoints.shrink_to_fit();
    problems.finish(EndpointSlice { name, service, triggered, endpoints, ports })
}

impl EndpointSlice {
    /// The Service that the slice belongs to.
    pub fn owner(&self) -> Option<ObjectName> {
        let namespace = self.name.namespace.clone();
        (!self.service.is_empty()).then(|| ObjectName::new(namespace, self.service.clone()))
    }
}

/// Only the first address counts: the API does not define what the others mean.
fn endpoint_addr(endpoint: &parts::Endpoint<'_>, want: Family) -> Result<IpAddr, (&'static str, String)> {
    let Some(text) = endpoint.addresses.first() else {
        return Err(("addresses", "is empty: an endpoint needs an address".to_owned()));
    };
    let addr = address(text).map_err(|reason| ("addresses[0]", reason))?;
    let is = Family::of(addr);
    if is != want {
        let (is, want) = (is.name(), want.name());
        return Err(("addresses[0]", format!("{addr} is an {is} address in a slice of addressType {want}")));
    }
    match unsafe_address(addr) {
        Some(reason) => Err(("addresses[0]", reason)),
        None => Ok(addr),
    }
}

fn convert_endpoint(addr: IpAddr, endpoint: parts::Endpoint<'_>) -> Endpoint {
    let conditions = endpoint.conditions.unwrap_or_default();
    let hints = endpoint.hints.unwrap_or_default();
    Endpoint {
        addr,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: shared(endpoint.node_name.unwrap_or_default()),
        zone: shared(endpoint.zone.unwrap_or_default()),
        for_nodes: hints.for_nodes.iter().flatten().map(|hint| shared(hint.name)).collect(),
        for_zones: hints.for_zones.iter().flatten().map(|hint| shared(hint.name)).collect(),
    }
}

fn ports(all: Vec<parts::Port<'_>>, problems: &mut Problems) -> Vec<EndpointPort> {
    let mut ports = Vec::new();
    for (i, p) in all.into_iter().enumerate() {
        // As in kube-proxy: a port without a name or number means "any", which is no target for a translation.
        let (Some(name), Some(number @ (..=-1 | 1..))) = (p.name, p.port) else { continue };
        let protocol =
            protocol(p.protocol).map_err(|reason| problems.part(format!("ports[{i}].protocol"), reason));
        let port = port_number(number).map_err(|reason| problems.part(format!("ports[{i}].port"), reason));
        let (Ok(protocol), Ok(port)) = (protocol, port) else { continue };
        ports.push(EndpointPort { name: name.to_owned(), protocol, port });
    }
    ports.shrink_to_fit();
    ports
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Protocol;
    use super::*;

    fn convert(labels: Value, body: Value) -> Converted<EndpointSlice> {
        let mut object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-1", "namespace": "default", "labels": labels},
        });
        for (key, value) in body.as_object().unwrap() {
            object[key] = value.clone();
        }
        from_api(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn conditions_default_as_the_api_says() {
        for (conditions, expected) in [
            (json!(null), (true, true, false)),
            (json!({}), (true, true, false)),
            (json!({"ready": false}), (false, true, false)),
            (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
            (json!({"ready": false, "serving": false, "terminating": true}), (false, false, true)),
        ] {
            let body = json!({"endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}]});
            let slice = convert(json!({LABEL_SERVICE: "web"}), body).object.unwrap();
            let e = &slice.endpoints[0];
            assert_eq!((e.ready, e.serving, e.terminating), expected, "{conditions}");
            assert_eq!(slice.service, "web");
        }
    }

    #[test]
    fn the_time_of_the_change_is_read_if_it_is_one() {
        let slice = |time: &str| {
            let metadata = json!({
                "name": "web-1", "namespace": "default",
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": time},
            });
            convert(json!({}), json!({"metadata": metadata})).object.unwrap().triggered
        };
        let expected = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_769_847_330_250);
        assert_eq!(slice("2026-01-31T08:15:30.25Z"), Some(expected));
        assert_eq!(slice("2026-01-31T09:15:30.25+01:00"), Some(expected));
        assert_eq!(slice("yesterday"), None);
    }

    #[test]
    fn only_the_first_address_counts() {
        let body =
            json!({"endpoints": [{"addresses": ["10.0.0.1", "127.0.0.1"], "nodeName": "n", "zone": "z"}]});
        let converted = convert(json!({}), body);
        assert_eq!(converted.problems, []);
        let endpoints = converted.object.unwrap().endpoints;
        assert_eq!(endpoints.len(), 1);
        assert_eq!((&*endpoints[0].node, &*endpoints[0].zone), ("n", "z"));
        assert_eq!(endpoints[0].addr, "10.0.0.1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn hints_are_kept() {
        let hints = json!({"forZones": [{"name": "a"}, {"name": "b"}], "forNodes": [{"name": "n"}]});
        let body = json!({"endpoints": [{"addresses": ["10.0.0.1"], "hints": hints}]});
        let endpoints = convert(json!({}), body).object.unwrap().endpoints;
        assert_eq!(endpoints[0].for_zones, ["a", "b"].map(shared));
        assert_eq!(endpoints[0].for_nodes, ["n"].map(shared));
    }

    #[test]
    fn a_bad_endpoint_costs_only_itself() {
        for (address_type, addresses, field) in [
            ("IPv4", json!([]), "endpoints[1].addresses"),
            ("IPv4", json!(["10.0.0"]), "endpoints[1].addresses[0]"),
            ("IPv4", json!(["fd00::2"]), "endpoints[1].addresses[0]"),
            ("IPv4", json!(["127.0.0.1"]), "endpoints[1].addresses[0]"),
            ("IPv4", json!(["169.254.169.254"]), "endpoints[1].addresses[0]"),
            ("IPv6", json!(["fe80::1"]), "endpoints[1].addresses[0]"),
            ("IPv6", json!(["::1"]), "endpoints[1].addresses[0]"),
            ("IPv6", json!(["10.0.0.2"]), "endpoints[1].addresses[0]"),
        ] {
            let good = if address_type == "IPv4" { "10.0.0.1" } else { "fd00::1" };
            let body = json!({
                "addressType": address_type,
                "endpoints": [{"addresses": [good]}, {"addresses": addresses}],
            });
            let converted = convert(json!({}), body);
            assert_eq!(converted.object.unwrap().endpoints.len(), 1, "{addresses}");
            let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
            assert_eq!(fields, [field], "{address_type} {addresses}");
        }
    }

    #[test]
    fn ports_without_name_or_number_are_left_out() {
        let body = json!({"ports": [
            {"name": "", "port": 80}, {"port": 81}, {"name": "any"}, {"name": "zero", "port": 0},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]});
        let converted = convert(json!({}), body);
        assert_eq!(converted.problems, []);
        let slice = converted.object.unwrap();
        let ports: Vec<_> = slice.ports.iter().map(|p| (p.name.as_str(), p.protocol, p.port)).collect();
        assert_eq!(ports, [("", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53)]);
    }

    #[test]
    fn bad_ports_are_parts() {
        let body = json!({"ports": [
            {"name": "a", "port": 65536}, {"name": "b", "port": -1}, {"name": "c", "port": 1, "protocol": "ICMP"},
        ]});
        let converted = convert(json!({}), body);
        assert_eq!(converted.object.unwrap().ports, []);
        let fields: Vec<_> = converted.problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["ports[0].port", "ports[1].port", "ports[2].protocol"]);
    }

    #[test]
    fn headless_slices_are_empty_and_names_are_refused() {
        let body = json!({"endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "", "port": 1}]});
        let headless = convert(json!({LABEL_HEADLESS: ""}), body);
        assert_eq!(headless.problems, []);
        let slice = headless.object.unwrap();
        assert_eq!((slice.endpoints.len(), slice.ports.len()), (0, 0));
        for address_type in ["FQDN", "", "ipv4"] {
            let converted = convert(json!({}), json!({"addressType": address_type}));
            assert_eq!(converted.object, None, "{address_type}");
            assert_eq!(converted.problems[0].field, "addressType");
        }
    }
}
