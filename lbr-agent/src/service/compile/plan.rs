//! How this node serves one port of a Service.

use lbr_common::addr::Family;
use lbr_common::service::{FrontendKey, scope, set};

use crate::model::{Forwarding, Protocol, Service, ServicePort, TrafficPolicy};

/// A Service port in one family: it has one number, whatever its addresses.
pub(super) struct Plan<'a> {
    pub(super) service: &'a Service,
    pub(super) port: &'a ServicePort,
    /// Its place in `spec.ports`.
    pub(super) index: u32,
    pub(super) proto: u8,
    pub(super) family: Family,
    /// Where it is served.
    pub(super) won: Vec<(Role, FrontendKey)>,
}

impl<'a> Plan<'a> {
    /// The ports of a Service, each in the families that it is served in: those of its cluster IPs.
    pub(super) fn all(service: &'a Service) -> Vec<Self> {
        let mut plans = Vec::new();
        for (index, port) in (0..).zip(&service.ports).filter(|_| !service.cluster_ips.is_empty()) {
            let has = |family| service.cluster_ips.iter().any(|ip| Family::of(*ip) == family);
            let families = Family::ALL.into_iter().filter(|family| has(*family));
            plans.extend(families.map(|family| Self {
                service,
                port,
                index,
                proto: port.protocol.number(),
                family,
                won: Vec::new(),
            }));
        }
        plans
    }
}

impl Plan<'_> {
    /// Bits of the sets that its frontends choose from.
    pub(super) fn sets(&self) -> u8 {
        let of = |&(role, key): &(Role, FrontendKey)| {
            let local = if self.differs_by_wire(role, &key) { set::bit(set::LOCAL) } else { 0 };
            set::bit(self.set_of(role)) | local
        };
        // With direct server return, packets from another node are for endpoints of this one.
        let direct = if self.is_direct() { set::bit(set::LOCAL) } else { 0 };
        self.won.iter().map(of).fold(direct, |all, bits| all | bits)
    }

    /// Whether endpoints on other nodes answer clients outside directly (DSR). Those of an SCTP port never do.
    pub(super) fn is_direct(&self) -> bool {
        self.service.forwarding != Forwarding::Snat && self.port.protocol != Protocol::Sctp
    }

    /// Whether other nodes send clients' packets to them in a tunnel (IP in IP).
    pub(super) fn is_tunneled(&self) -> bool {
        self.is_direct() && self.service.forwarding == Forwarding::DsrIpip
    }

    /// The set that a frontend chooses from, unless external clients have another one.
    pub(super) fn set_of(&self, role: Role) -> u32 {
        match (role, self.service.internal_policy) {
            (Role::ClusterIp, TrafficPolicy::Local) => set::LOCAL,
            // Traffic of the node and its pods is not external, whatever address it is sent to.
            _ => set::CLUSTER,
        }
    }

    /// Whether packets that come by the wire only reach endpoints on this node.
    pub(super) fn differs_by_wire(&self, role: Role, key: &FrontendKey) -> bool {
        let is_external = role != Role::ClusterIp && key.scope == scope::ANY;
        is_external && self.service.external_policy == TrafficPolicy::Local
    }
}

/// What an address is to its Service, in the order of claims: addresses that the cluster allocated go before those that a user
/// wrote into a Service (CVE-2020-8554).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// A cluster IP.
    ClusterIp,
    /// A NodePort, on one of the node's addresses.
    NodePort,
    /// An address of its load balancer.
    LoadBalancer,
    /// One of its external IPs.
    ExternalIp,
}

impl Role {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::ClusterIp, Self::NodePort, Self::LoadBalancer, Self::ExternalIp];
}
