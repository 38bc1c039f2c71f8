//! The objects of a cluster, as an API server has them.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::bench::nftables::ServicePort;

/// Services by number; each has one port, and one slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cluster {
    pub(super) services: u32,
    pub(super) endpoints: u32,
}

/// An endpoint that is replaced by another.
pub(super) struct Change {
    /// ClusterIP of its Service.
    pub(super) service: Ipv4Addr,
    /// Address of the new endpoint.
    pub(super) new: Ipv4Addr,
    /// The slice.
    pub(super) object: Value,
}

/// A Service that is new.
pub(super) struct NewService {
    /// Its ClusterIP.
    pub(super) ip: Ipv4Addr,
    /// Its endpoint with the highest address.
    pub(super) last: Ipv4Addr,
    /// It and its slice.
    pub(super) objects: [Value; 2],
}

impl Cluster {
    /// All objects.
    pub(super) fn objects(self) -> impl Iterator<Item = Value> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        let services = (0..self.services).flat_map(move |n| [service(n), self.slice(n, None)]);
        [node, namespace].into_iter().chain(services)
    }

    /// A Service that is not among them, and its slice.
    pub(super) fn one_more(self) -> NewService {
        let number = self.services;
        let first = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 0)) + number * self.endpoints);
        NewService {
            ip: cluster_ip(number),
            last: Ipv4Addr::from(u32::from(first) + self.endpoints - 1),
            objects: [service(number), self.slice(number, None)],
        }
    }

    /// The change with this number, spread over all Services.
    pub(super) fn change(self, number: u32) -> Change {
        let service = number.wrapping_mul(7_919) % self.services;
        let new = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 192, 0, 0)) + number);
        Change { service: cluster_ip(service), new, object: self.slice(service, Some(new)) }
    }

    /// The Services as kube-proxy's rules have them.
    pub(super) fn service_ports(self) -> Vec<ServicePort> {
        (0..self.services).map(|service| self.service_port(service, None)).collect()
    }

    /// The Service of a change before and after it.
    pub(super) fn changed(self, number: u32) -> [ServicePort; 2] {
        let (service, new) = (number.wrapping_mul(7_919) % self.services, self.change(number).new);
        [None, Some(new)].map(|first| self.service_port(service, first))
    }

    fn service_port(self, service: u32, first: Option<Ipv4Addr>) -> ServicePort {
        let base = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + service * self.endpoints;
        let address = |n: u32| first.filter(|_| n == 0).unwrap_or(Ipv4Addr::from(base + n));
        ServicePort {
            name: format!("default/app-{service}"),
            address: cluster_ip(service),
            protocol: "tcp",
            port: 80,
            endpoints: (0..self.endpoints).map(|n| (address(n), 8080)).collect(),
            node_port: None,
        }
    }

    fn slice(self, service: u32, first: Option<Ipv4Addr>) -> Value {
        let base = u32::from(Ipv4Addr::new(10, 128, 0, 0)) + service * self.endpoints;
        let endpoint = |n: u32| {
            let address = first.filter(|_| n == 0).unwrap_or(Ipv4Addr::from(base + n));
            json!({
                "addresses": [address.to_string()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("node-{}", (base + n) % 5_000),
                "targetRef": {
                    "kind": "Pod",
                    "namespace": "default",
                    "name": format!("app-{service}-6d4cf56db6-{n:05}"),
                    "uid": format!("00000000-0000-4000-8000-{:012x}", base + n),
                },
                "zone": format!("zone-{}", n % 3),
            })
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": "default",
                "name": format!("app-{service}-x7k2p"),
                "labels": {
                    "kubernetes.io/service-name": format!("app-{service}"),
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
            },
            "addressType": "IPv4",
            "endpoints": (0..self.endpoints).map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        })
    }
}

fn cluster_ip(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 10)) + service)
}

fn service(number: u32) -> Value {
    let address = cluster_ip(number).to_string();
    let app = format!("app-{number}");
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": app, "labels": {"app": app}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    })
}
