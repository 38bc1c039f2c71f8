//! The parts of a Service that matter here.

use std::net::IpAddr;

use ipnet::IpNet;
use lbr_common::addr::Family;

use super::super::{ObjectName, Protocol, TrafficPolicy};

/// The parts of a Service that matter here. Services that this proxy does not serve (headless, ExternalName, another
/// proxy's by `service.kubernetes.io/service-proxy-name`) have no `cluster_ips`.
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
    /// `status.loadBalancer.ingress`: the addresses that packets still carry when they reach the node (`ipMode` VIP),
    /// of families in which there is a cluster IP. Empty unless the Service is of type LoadBalancer.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: SourceRanges,
    /// `spec.healthCheckNodePort`, of a load balancer with `externalTrafficPolicy: Local`.
    pub health_check_port: Option<u16>,
    /// Seconds for which a client keeps its endpoint (`sessionAffinity: ClientIP`); 0: no affinity.
    pub affinity: u32,
    /// Annotation [`super::ALGORITHM`].
    pub algorithm: Algorithm,
    /// Annotation [`super::FORWARDING`].
    pub forwarding: Forwarding,
}

/// The clients that a load balancer's addresses serve, in each family; `None`: all.
///
/// As in kube-proxy, a family without ranges is not restricted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRanges {
    /// Ranges of IPv4 clients. Empty: no client.
    pub v4: Option<Vec<IpNet>>,
    /// Ranges of IPv6 clients. Empty: no client.
    pub v6: Option<Vec<IpNet>>,
}

impl SourceRanges {
    /// Serves no client of a family without ranges: some could not be read.
    pub(crate) fn close(&mut self) {
        self.v4.get_or_insert_default();
        self.v6.get_or_insert_default();
    }

    /// The ranges of a family.
    pub fn of(&self, family: Family) -> Option<&[IpNet]> {
        match family {
            Family::V4 => self.v4.as_deref(),
            Family::V6 => self.v6.as_deref(),
        }
    }
}

/// How the endpoint of a new connection is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// Evenly, by a keyed hash of the connection.
    #[default]
    Random,
    /// By consistent hashing: all nodes choose the same endpoint, and most connections keep theirs when endpoints come
    /// and go.
    Maglev,
}

/// How packets from outside reach an endpoint on another node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Forwarding {
    /// With the address of the node that was asked as source, so that answers go back through it.
    #[default]
    Snat,
    /// With the client's address, and the frontend in an option; the endpoint's node answers the client directly.
    Dsr,
    /// With the client's address, unchanged inside of a packet from node to endpoint.
    DsrIpip,
}

/// One of `spec.ports` of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty if it has none. Selects the ports of EndpointSlices.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Port of the Service, 1 to 65535.
    pub port: u16,
    /// Port on the nodes' own addresses.
    pub node_port: Option<u16>,
}
