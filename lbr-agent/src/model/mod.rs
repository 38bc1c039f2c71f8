//! Kubernetes objects, reduced at the edge to the parts that matter to this node.
//!
//! `source/` passes raw API objects to the converters here. They turn each into one of these types, or say what is
//! wrong with it ([`Rejected`]). All types compare with `==`, which tells whether anything changed.

pub mod convert;
pub mod endpointslice;
mod name;
pub mod namespace;
pub mod netpol;
pub mod node;
pub mod pod;
mod rejected;
mod selector;
pub mod service;
pub mod servicecidr;
mod shared;
pub(crate) mod unknown;

pub(crate) use name::in_namespace;
pub use name::{Name, ObjectName};
pub use rejected::{Extent, Item, Rejected};
pub use service::{ALGORITHM, Algorithm, Forwarding, Service, ServicePort, SourceRanges};

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use lbr_common::tuple::proto;

/// The kinds that lbr watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1` Namespace.
    Namespace,
    /// `v1` Pod.
    Pod,
    /// `v1` Node.
    Node,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `networking.k8s.io/v1` ServiceCIDR. Clusters before Kubernetes 1.33 have none.
    ServiceCidr,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Service,
        Self::EndpointSlice,
        Self::Namespace,
        Self::Pod,
        Self::Node,
        Self::NetworkPolicy,
        Self::ServiceCidr,
    ];

    /// Group and version that lbr reads.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::NetworkPolicy | Self::ServiceCidr => "networking.k8s.io/v1",
            Self::Service | Self::Namespace | Self::Pod | Self::Node => "v1",
        }
    }
}

/// Kind and name: how other modules name an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
}

/// Any object, converted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A Namespace.
    Namespace(Namespace),
    /// A Pod.
    Pod(Pod),
    /// A Node.
    Node(Node),
    /// A NetworkPolicy.
    NetworkPolicy(NetworkPolicy),
    /// A ServiceCIDR.
    ServiceCidr(ServiceCidr),
}

/// What can be read of a version that lbr rejects. It closes what it evidently closes, and opens nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partial {
    /// Of a NetworkPolicy.
    NetworkPolicy(Box<netpol::Partial>),
    /// Of a Service.
    Service(Box<service::Partial>),
}

/// Transport protocols of a Service port. A closed set: no other protocol turns into TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, the default of the API.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in packets.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => proto::TCP,
            Self::Udp => proto::UDP,
            Self::Sctp => proto::SCTP,
        }
    }
}

/// `internalTrafficPolicy` and `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrafficPolicy {
    /// Every endpoint of the cluster.
    #[default]
    Cluster,
    /// Endpoints of this node only.
    Local,
}

/// The parts of an EndpointSlice that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice.
    pub name: ObjectName,
    /// Name of the Service in the same namespace (label `kubernetes.io/service-name`).
    pub service: String,
    /// Time of the change in the cluster that this version follows
    /// (`endpoints.kubernetes.io/last-change-trigger-time`).
    pub triggered: Option<SystemTime>,
    /// Endpoints; each with one address (the API's `addresses[0]`, as kube-proxy).
    pub endpoints: Vec<Endpoint>,
    /// Ports that every endpoint of the slice has. Entries without a name or port are left out, as kube-proxy does.
    pub ports: Vec<EndpointPort>,
}

/// One endpoint of a slice. Conditions are resolved: nil ready or serving is true, nil terminating is false.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub addr: IpAddr,
    /// `conditions.ready`; true as well for a Service with `publishNotReadyAddresses`.
    pub ready: bool,
    /// `conditions.serving`.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// `nodeName`, empty if unknown.
    pub node: Arc<str>,
    /// `zone`, empty if unknown.
    pub zone: Arc<str>,
    /// `hints.forNodes`: nodes that should use it.
    pub for_nodes: Vec<Arc<str>>,
    /// `hints.forZones`: zones that should use it.
    pub for_zones: Vec<Arc<str>>,
}

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name, empty for the unnamed port.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Number, 1 to 65535.
    pub port: u16,
}

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// The parts of a Namespace that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
}

/// The parts of a Pod that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`; distinguishes a pod from its successor of the same name.
    pub uid: String,
    /// Labels.
    pub labels: Labels,
    /// `status.podIPs`; empty before the pod has one, and after it has ended.
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`.
    pub node: String,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// It has a `metadata.deletionTimestamp`: if another pod claims its address, the other pod gets it.
    pub terminating: bool,
    /// Container ports with a name, restartable init containers included: (name, protocol) → number.
    pub named_ports: BTreeMap<(String, Protocol), u16>,
}

/// The parts of a Node that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Labels (the zone is `topology.kubernetes.io/zone`).
    pub labels: Labels,
    /// `status.addresses`: those of type InternalIP, then those of type ExternalIP. The first of a family is its
    /// primary one.
    pub addresses: Vec<IpAddr>,
    /// Blocks of its pods' addresses (`spec.podCIDRs`).
    pub pod_cidrs: Vec<ipnet::IpNet>,
    /// It has a `metadata.deletionTimestamp`.
    pub is_deleting: bool,
    /// It has the taint `ToBeDeletedByClusterAutoscaler`.
    pub is_to_be_deleted: bool,
}

/// A label selector (`metav1.LabelSelector`), all parts of which must hold. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// Requirements, in the order of the object, `matchLabels` first.
    pub requirements: Vec<Requirement>,
}

/// One requirement of a [`Selector`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Requirement {
    /// The key is there and its value is one of these.
    In(String, BTreeSet<String>),
    /// The key is absent, or its value is none of these.
    NotIn(String, BTreeSet<String>),
    /// The key is there.
    Exists(String),
    /// The key is absent.
    DoesNotExist(String),
}

/// The parts of a NetworkPolicy that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub name: ObjectName,
    /// Annotation [`netpol::MODE`] is `audit`: counts and reports what it would deny, and denies nothing.
    pub audit: bool,
    /// `spec.podSelector`.
    pub pods: Selector,
    /// Ingress rules; `None`: does not isolate in this direction (table A).
    pub ingress: Option<Vec<PolicyRule>>,
    /// Egress rules; `None`: does not isolate in this direction (table A).
    pub egress: Option<Vec<PolicyRule>>,
    /// A rejected edit that selects other pods: in force besides, with no rule that this version lacks.
    pub edit: Option<Arc<NetworkPolicy>>,
}

/// Blocks that ClusterIPs are allocated from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCidr {
    /// `metadata.name`.
    pub name: String,
    /// `spec.cidrs`.
    pub cidrs: Vec<ipnet::IpNet>,
}

/// One rule: any of the peers and any of the ports. Empty means every one (B1, B11).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    /// `from` or `to`.
    pub peers: Vec<Peer>,
    /// `ports`.
    pub ports: Vec<PolicyPort>,
}

/// One peer. A closed set, so that no combination of fields can mean "everyone" by accident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods of the policy's namespace (B2).
    Pods(Selector),
    /// All pods of these namespaces (B3).
    Namespaces(Selector),
    /// Pods that match, in namespaces that match (B4): namespaces, pods.
    Both(Selector, Selector),
    /// Addresses in the block and in no exception (B7), masked (B10).
    Block {
        /// `cidr`.
        cidr: ipnet::IpNet,
        /// `except`.
        except: Vec<ipnet::IpNet>,
    },
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPort {
    /// Protocol; TCP when the object has none (B12).
    pub protocol: Protocol,
    /// Which ports.
    pub ports: PortSet,
}

/// The ports of a [`PolicyPort`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortSet {
    /// Every port (B13).
    All,
    /// Inclusive range (B14, B15).
    Range(u16, u16),
    /// A named port of the destination pod (B16).
    Named(String),
}
