//! The folder of manifests: ordinary objects, as in the output of `kubectl get -o yaml` or in a tutorial.

use lbr_common::addr::Family;

use super::story::Stage;
use crate::manifests::{EndpointSlice, Service, join};
use crate::topology::Pod;

/// Address of `my-service`.
pub(super) const SERVICE: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 96, 0, 10);

/// The port that clients use, and the one that backends listen on.
pub(super) const PORTS: (u16, u16) = (80, 8080);

/// The NodePort of `my-service`.
pub(super) const NODE_PORT: u16 = 30_080;

/// An object that lbr does not use.
pub(super) const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: my-app
  namespace: default
spec:
  replicas: 3
  selector:
    matchLabels:
      app.kubernetes.io/name: my-service
  template:
    metadata:
      labels:
        app.kubernetes.io/name: my-service
    spec:
      containers:
        - name: app
          image: registry.k8s.io/e2e-test-images/agnhost:2.53
          args: [netexec]
          ports:
            - containerPort: 8080
";

/// The classic example.
pub(super) const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: my-network-policy
  namespace: default
spec:
  podSelector:
    matchLabels:
      app: my-app
  policyTypes: [Ingress]
  ingress:
    - from:
        - podSelector:
            matchLabels:
              app: allowed-app
      ports:
        - protocol: TCP
          port: 8080
";

/// The pods as the API server would have them.
pub(super) fn pods(stage: &Stage) -> String {
    let pod = |pod: &Pod, app: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {}\n  namespace: default\n  labels:\n    app: {app}\n\
             spec:\n  nodeName: demo-node\n  containers: []\nstatus:\n  phase: Running\n  podIPs:\n  - ip: {}\n  \
             - ip: \"{}\"\n",
            pod.name, pod.v4, pod.v6
        )
    };
    let clients = [pod(&stage.client, "allowed-app"), pod(&stage.stranger, "another-app")];
    join(clients.into_iter().chain(stage.backends.iter().map(|backend| pod(backend, "my-app"))))
}

pub(super) fn service() -> String {
    Service::new("my-service", &[SERVICE.into()]).port("", "TCP", PORTS.0, PORTS.1).yaml()
}

pub(super) fn service_at_node() -> String {
    let service = Service::new("my-service", &[SERVICE.into()]).spec("type: NodePort");
    service.port("", "TCP", PORTS.0, PORTS.1).node_port(NODE_PORT).yaml()
}

pub(super) fn slice<'a>(backends: impl IntoIterator<Item = &'a Pod>) -> String {
    let addresses = backends.into_iter().map(|pod| pod.v4.into());
    EndpointSlice::new("my-service-1", "my-service", Family::V4)
        .port("", "TCP", PORTS.1)
        .addresses(addresses)
        .yaml()
}
