//! The content of every map that the agent owns, as plain data: what `compile` makes and `reconcile` writes.

use std::collections::BTreeMap;

use lbr_common::addr::Addr;
use lbr_common::link::{Link, Uplink};
use lbr_common::maglev::{MaglevKey, MaglevPart};
use lbr_common::policy::{Allow, Block, Policy, Ports, Prefix, VerdictKey};
use lbr_common::service::{Backend, Frontend, FrontendKey, Slot, SlotKey, SourceRange};
use lbr_common::text::{
    ClassRecord, Member, MemberKey, PodName, PolicyRecord, RejectedRecord, RuleKey, RuleText, ServiceName,
};

use crate::model::ObjectName;

/// Desired (or actual) content of the agent's maps, and what it listens on. Ordered, so that equal states are equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// `frontends`.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// `slots`.
    pub slots: BTreeMap<SlotKey, Slot>,
    /// `backends`, by backend id.
    pub backends: BTreeMap<u32, Backend>,
    /// `maglev`.
    pub maglev: BTreeMap<MaglevKey, MaglevPart>,
    /// `services`, by service id.
    pub services: BTreeMap<u32, ServiceName>,
    /// `rejected`, by number.
    pub rejected: BTreeMap<u32, RejectedRecord>,
    /// `links`, by interface index; the programs are attached to each of these interfaces.
    pub links: BTreeMap<u32, Link>,
    /// `uplinks`, by interface index; the programs are attached to each of these interfaces.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// `source_ranges`.
    pub source_ranges: BTreeMap<Prefix<SourceRange>, u32>,
    /// `service_cidrs`.
    pub service_cidrs: BTreeMap<Prefix<Block>, u32>,
    /// `endpoints`, without the versions of the map.
    pub endpoints: BTreeMap<Addr, EndpointPolicy>,
    /// `link_policy`, by interface index: bits of `policy_flags`, without the versions of the map.
    pub link_policy: BTreeMap<u32, u32>,
    /// `ip_class`, without the versions of the map.
    pub ip_class: BTreeMap<Addr, u32>,
    /// `cidr_class`, without the versions of the map.
    pub cidr_class: BTreeMap<Prefix<Block>, u32>,
    /// `port_class`.
    pub port_class: BTreeMap<Prefix<Ports>, u32>,
    /// `verdicts`.
    pub verdicts: BTreeMap<VerdictKey, Allow>,
    /// `policies`, by policy id.
    pub policies: BTreeMap<u32, PolicyRecord>,
    /// `rules`.
    pub rules: BTreeMap<RuleKey, RuleText>,
    /// `set_members`.
    pub set_members: BTreeMap<MemberKey, Member>,
    /// `classes`, by class id.
    pub classes: BTreeMap<u32, ClassRecord>,
    /// `pod_names`.
    pub pod_names: BTreeMap<Addr, PodName>,
    /// In no map: the health check ports that the agent listens on, by number.
    pub health_ports: BTreeMap<u16, HealthPort>,
}

/// A health check port (`healthCheckNodePort`), by which load balancers find the nodes with endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// Whose it is.
    pub service: ObjectName,
    /// How many of its ready endpoints are on this node.
    pub local_ready: usize,
}

/// An address of this node or of one of its pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointPolicy {
    /// See [`lbr_common::policy::Endpoint::link`].
    pub link: u32,
    /// Its policy.
    pub policy: Policy,
}
