//! Text of Kubernetes objects, as a user would write it.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use lbr_common::addr::Family;

use crate::topology::{Node, Pod};

/// A port of a [`Service`].
#[derive(Clone, Debug)]
struct Port {
    name: String,
    protocol: String,
    port: u16,
    target: String,
    node_port: Option<u16>,
}

/// Writes a Service.
#[derive(Clone, Debug)]
#[must_use]
pub struct Service {
    namespace: String,
    name: String,
    addresses: Vec<IpAddr>,
    ports: Vec<Port>,
    extra: Vec<String>,
    annotations: Vec<String>,
    ingress: Vec<IpAddr>,
}

impl Service {
    /// In the namespace `default`, with one address of each family at most.
    pub fn new(name: &str, addresses: &[IpAddr]) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            ports: Vec::new(),
            extra: Vec::new(),
            annotations: Vec::new(),
            ingress: Vec::new(),
        }
    }

    /// With other addresses.
    pub fn with_addresses(self, addresses: &[IpAddr]) -> Self {
        Self { addresses: addresses.to_vec(), ..self }
    }

    /// In another namespace.
    pub fn namespace(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    /// Adds a port: its name (may be empty), `TCP` or `UDP`, its number, and `targetPort`.
    pub fn port(mut self, name: &str, protocol: &str, port: u16, target: impl ToString) -> Self {
        let (name, protocol, target) = (name.to_owned(), protocol.to_owned(), target.to_string());
        self.ports.push(Port { name, protocol, port, target, node_port: None });
        self
    }

    /// Removes the ports that were added so far.
    pub fn without_ports(self) -> Self {
        Self { ports: Vec::new(), ..self }
    }

    /// Sets `nodePort` of the port that was added last.
    pub fn node_port(mut self, number: u16) -> Self {
        if let Some(port) = self.ports.last_mut() {
            port.node_port = Some(number);
        }
        self
    }

    /// Adds an address to `status.loadBalancer.ingress`, as of a load balancer that keeps destinations.
    pub fn ingress(mut self, address: IpAddr) -> Self {
        self.ingress.push(address);
        self
    }

    /// Adds a line to `spec`: `publishNotReadyAddresses: true`, for instance.
    pub fn spec(mut self, line: &str) -> Self {
        self.extra.push(line.to_owned());
        self
    }

    /// Adds an annotation: `lbr.dev/algorithm: maglev`, for instance.
    pub fn annotation(mut self, line: &str) -> Self {
        self.annotations.push(line.to_owned());
        self
    }

    /// The document.
    pub fn yaml(&self) -> String {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: {}\n  namespace: {}\n",
            self.name, self.namespace
        );
        if !self.annotations.is_empty() {
            let _ = writeln!(text, "  annotations: {{{}}}", self.annotations.join(", "));
        }
        text.push_str("spec:\n");
        let app = self.name.as_str();
        let _ = writeln!(text, "  selector:\n    app.kubernetes.io/name: {app}");
        if let Some(first) = self.addresses.first() {
            let _ = writeln!(text, "  clusterIP: \"{first}\"\n  clusterIPs:");
            for address in &self.addresses {
                let _ = writeln!(text, "    - \"{address}\"");
            }
            text.push_str("  ipFamilies:\n");
            for address in &self.addresses {
                let _ = writeln!(text, "    - {}", Family::of(*address).name());
            }
            if self.addresses.len() > 1 {
                text.push_str("  ipFamilyPolicy: RequireDualStack\n");
            }
        }
        for line in &self.extra {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str("  ports:\n");
        for port in &self.ports {
            let _ = writeln!(text, "    - protocol: {}\n      port: {}", port.protocol, port.port);
            let _ = writeln!(text, "      targetPort: {}", port.target);
            if !port.name.is_empty() {
                let _ = writeln!(text, "      name: {}", port.name);
            }
            if let Some(number) = port.node_port {
                let _ = writeln!(text, "      nodePort: {number}");
            }
        }
        if !self.ingress.is_empty() {
            text.push_str("status:\n  loadBalancer:\n    ingress:\n");
        }
        for address in &self.ingress {
            let _ = writeln!(text, "      - ip: \"{address}\"\n        ipMode: VIP");
        }
        text
    }
}

/// Writes an EndpointSlice.
#[derive(Clone, Debug)]
#[must_use]
pub struct EndpointSlice {
    namespace: String,
    name: String,
    service: String,
    family: Family,
    ports: Vec<(String, String, u16)>,
    endpoints: Vec<Endpoint>,
}

/// An endpoint of an [`EndpointSlice`]: ready by default.
#[derive(Clone, Debug)]
#[must_use]
pub struct Endpoint {
    address: IpAddr,
    node: Option<String>,
    zone: Option<String>,
    conditions: Vec<(String, bool)>,
    /// Lists of `hints`, and names in them.
    hints: Vec<(&'static str, Vec<String>)>,
}

impl Endpoint {
    /// Without any condition, which means ready.
    pub fn new(address: IpAddr) -> Self {
        Self { address, node: None, zone: None, conditions: Vec::new(), hints: Vec::new() }
    }

    /// Sets `nodeName`.
    pub fn node(self, name: &str) -> Self {
        Self { node: Some(name.to_owned()), ..self }
    }

    /// Sets `zone`.
    pub fn zone(self, name: &str) -> Self {
        Self { zone: Some(name.to_owned()), ..self }
    }

    /// Sets `hints.forZones`.
    pub fn for_zones(mut self, names: &[&str]) -> Self {
        self.hints.push(("forZones", names.iter().map(|&name| name.to_owned()).collect()));
        self
    }

    /// Sets `hints.forNodes`.
    pub fn for_nodes(mut self, names: &[&str]) -> Self {
        self.hints.push(("forNodes", names.iter().map(|&name| name.to_owned()).collect()));
        self
    }

    /// Sets `ready`, `serving` or `terminating`.
    pub fn condition(mut self, name: &str, value: bool) -> Self {
        self.conditions.push((name.to_owned(), value));
        self
    }
}

impl EndpointSlice {
    /// Of a Service in the namespace `default`, for one address family.
    pub fn new(name: &str, service: &str, family: Family) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            service: service.to_owned(),
            family,
            ports: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// In another namespace.
    pub fn namespace(self, namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), ..self }
    }

    /// Adds a port: the name of the Service's port (may be empty), protocol, and number at the endpoints.
    pub fn port(mut self, name: &str, protocol: &str, port: u16) -> Self {
        self.ports.push((name.to_owned(), protocol.to_owned(), port));
        self
    }

    /// Adds an endpoint.
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Adds ready endpoints.
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.endpoints.extend(addresses.into_iter().map(Endpoint::new));
        self
    }

    /// The document.
    pub fn yaml(&self) -> String {
        let mut text = format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {}\n  namespace: {}\n  \
             labels:\n    kubernetes.io/service-name: {}\naddressType: {}\n",
            self.name,
            self.namespace,
            self.service,
            self.family.name()
        );
        text.push_str(if self.ports.is_empty() { "ports: []\n" } else { "ports:\n" });
        for (name, protocol, port) in &self.ports {
            let _ = writeln!(text, "  - name: \"{name}\"\n    protocol: {protocol}\n    port: {port}");
        }
        text.push_str(if self.endpoints.is_empty() { "endpoints: []\n" } else { "endpoints:\n" });
        for endpoint in &self.endpoints {
            let _ = writeln!(text, "  - addresses:\n      - \"{}\"", endpoint.address);
            if let Some(node) = &endpoint.node {
                let _ = writeln!(text, "    nodeName: {node}");
            }
            if !endpoint.conditions.is_empty() {
                text.push_str("    conditions:\n");
            }
            for (name, value) in &endpoint.conditions {
                let _ = writeln!(text, "      {name}: {value}");
            }
            if let Some(zone) = &endpoint.zone {
                let _ = writeln!(text, "    zone: {zone}");
            }
            if !endpoint.hints.is_empty() {
                text.push_str("    hints:\n");
            }
            for (list, names) in &endpoint.hints {
                let _ = writeln!(text, "      {list}:");
                for name in names {
                    let _ = writeln!(text, "        - name: {name}");
                }
            }
        }
        text
    }
}

/// A pod of a bed, running.
pub fn pod(pod: &Pod) -> String {
    let (name, node) = (&pod.name, &pod.node);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\nspec:\n  nodeName: {node}\n  \
         containers: []\nstatus:\n  phase: Running\n  podIP: \"{}\"\n  podIPs:\n    - ip: \"{}\"\n    - ip: \"{}\"\n",
        pod.v4, pod.v4, pod.v6
    )
}

/// A node of a bed, in this zone.
pub fn node(node: &Node, zone: Option<&str>) -> String {
    let name = &node.name;
    let mut text = format!(
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  labels:\n    kubernetes.io/hostname: {name}\n"
    );
    if let Some(zone) = zone {
        let _ = writeln!(text, "    topology.kubernetes.io/zone: {zone}");
    }
    text.push_str("status:\n  addresses:\n");
    for address in node.addresses() {
        let _ = writeln!(text, "    - type: InternalIP\n      address: \"{address}\"");
    }
    text
}

/// Several documents in one file.
pub fn join(documents: impl IntoIterator<Item = String>) -> String {
    documents.into_iter().collect::<Vec<_>>().join("---\n")
}

/// Saves a file like a careful editor: into another file, which is then renamed, so that no reader sees half of it.
pub fn save(folder: &Path, name: &str, text: &str) -> Result<()> {
    let (path, beside) = (folder.join(name), folder.join(format!(".{name}.new")));
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, &path))
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_like_the_classic_example() {
        let service = Service::new("my-service", &["10.96.0.10".parse().unwrap()]).port("", "TCP", 80, 8080);
        assert_eq!(
            service.yaml(),
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: my-service\n  namespace: default\nspec:\n  \
             selector:\n    app.kubernetes.io/name: my-service\n  clusterIP: \"10.96.0.10\"\n  clusterIPs:\n    \
             - \"10.96.0.10\"\n  ipFamilies:\n    - IPv4\n  ports:\n    - protocol: TCP\n      port: 80\n      \
             targetPort: 8080\n"
        );
    }

    #[test]
    fn an_empty_slice_says_so() {
        let text = EndpointSlice::new("s", "my-service", Family::V6).port("", "TCP", 8080).yaml();
        assert!(text.contains("addressType: IPv6\nports:\n  - name: \"\"\n"), "{text}");
        assert!(text.ends_with("endpoints: []\n"), "{text}");
        let one = Endpoint::new("fd00::1".parse().unwrap()).node("a").condition("ready", false);
        let text = EndpointSlice::new("s", "my-service", Family::V6).endpoint(one).yaml();
        assert!(text.ends_with("    nodeName: a\n    conditions:\n      ready: false\n"), "{text}");
    }
}
