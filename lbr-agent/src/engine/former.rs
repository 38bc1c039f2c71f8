//! The pods of a former agent.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lbr_common::policy::{Endpoint, policy_flags};

use super::pods;
use crate::dataplane::{Dataplane, WriteError};
use crate::node::links::PodAddresses;

/// The pods that a former agent left in the maps. They count as this node's until the source has listed its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// Their addresses.
    pub pods: PodAddresses,
    /// The links of these pods, where known.
    pub links: BTreeMap<IpAddr, u32>,
}

impl Former {
    /// Reads the maps.
    pub fn read(dataplane: &mut dyn Dataplane) -> Result<Self, WriteError> {
        let generation = dataplane.generation()?;
        let tables = dataplane.tables();
        let names: BTreeMap<_, _> = tables.pod_names.entries()?.into_iter().collect();
        let is_pod = |endpoint: &Endpoint| endpoint.policy.at(generation).flags & policy_flags::POD != 0;
        let mut former = Self::default();
        for (addr, endpoint) in tables.endpoints.entries()?.into_iter().filter(|(_, e)| is_pod(e)) {
            former.pods.insert(addr.into(), pods::name(names.get(&addr)));
            if endpoint.ifindex != 0 {
                former.links.insert(addr.into(), endpoint.ifindex);
            }
        }
        Ok(former)
    }
}
