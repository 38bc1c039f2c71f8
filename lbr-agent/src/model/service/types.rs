//! A Service, as far as it matters here.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::{ObjectName, Protocol, TrafficPolicy};

/// What can change in a Service and matters here. Services that this proxy does not serve (headless,
/// ExternalName, another proxy's by `service.kubernetes.io/service-proxy-name`) have no `cluster_ips`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.clusterIPs` (or `spec.clusterIP`), any number, any family; empty: nothing to program.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.externalIPs`, of families in which there is a cluster IP; each with its index.
    pub external_ips: Vec<(usize, IpAddr)>,
    /// `status.loadBalancer.ingress`: the addresses at which packets reach the node as they were sent (`ipMode` VIP),
    /// of families in which there is a cluster IP. Empty unless the Service is of type LoadBalancer.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: SourceRanges,
    /// `spec.healthCheckNodePort`, of a load balancer with `externalTrafficPolicy: Local`.
    pub health_check_port: Option<u16>,
    /// Seconds for which a client comes back to the same endpoint (`sessionAffinity: ClientIP`); 0: it need not.
    pub affinity: u32,
    /// Annotation [`super::ALGORITHM`].
    pub algorithm: Algorithm,
    /// Annotation [`super::FORWARDING`].
    pub forwarding: Forwarding,
}

/// The clients that a load balancer's addresses are for, in each family; `None`: everybody.
///
/// As kube-proxy has it, a family that no range is of is not restricted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRanges {
    /// Ranges of IPv4 clients. Empty: nobody.
    pub v4: Option<Vec<IpNet>>,
    /// Ranges of IPv6 clients. Empty: nobody.
    pub v6: Option<Vec<IpNet>>,
}

impl SourceRanges {
    /// Those of a family.
    pub fn of(&self, v4: bool) -> Option<&[IpNet]> {
        if v4 { self.v4.as_deref() } else { self.v6.as_deref() }
    }
}

/// How the endpoint of a new connection is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Evenly, by a keyed hash of the connection.
    #[default]
    Random,
    /// By consistent hashing: each node chooses the same, and most connections stay where they are when endpoints
    /// come and go.
    Maglev,
}

/// How what comes from outside reaches an endpoint on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forwarding {
    /// In the name of the node that was asked, through which the answers go back.
    #[default]
    Snat,
    /// With the client's address, and where the client sent to as an option; the endpoint's node answers the client
    /// itself.
    Dsr,
    /// The same without an option: as it came, in a packet from node to node.
    DsrIpip,
}

/// One of `spec.ports` of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty if it has none. EndpointSlice ports are matched by it.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the Service, 1 to 65535.
    pub port: u16,
    /// Where it is served on the nodes' own addresses.
    pub node_port: Option<u16>,
}
