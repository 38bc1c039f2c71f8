//! The tables of policy, as the rest of the agent sees them.

use std::collections::BTreeMap;

use lbr_common::addr::Addr;
use lbr_common::policy::{Allow, Block, Endpoint, Ports, Prefix, VerdictKey, Versioned, class};
use lbr_common::text::{ClassRecord, Member, MemberKey, PodName, PolicyRecord, RuleKey, RuleText};

use super::Table;
use crate::desired::{Desired, EndpointPolicy};

/// Every table of policy.
#[expect(missing_docs, reason = "each is named after its map: see `lbr_common::maps`")]
pub struct PolicyTables<'a> {
    pub endpoints: &'a mut dyn Table<Addr, Endpoint>,
    pub link_policy: &'a mut dyn Table<u32, Versioned<u32>>,
    pub ip_class: &'a mut dyn Table<Addr, Versioned<u32>>,
    pub cidr_class: &'a mut dyn Table<Prefix<Block>, Versioned<u32>>,
    pub port_class: &'a mut dyn Table<Prefix<Ports>, u32>,
    pub verdicts: &'a mut dyn Table<VerdictKey, Allow>,
    pub policies: &'a mut dyn Table<u32, PolicyRecord>,
    pub rules: &'a mut dyn Table<RuleKey, RuleText>,
    pub set_members: &'a mut dyn Table<MemberKey, Member>,
    pub classes: &'a mut dyn Table<u32, ClassRecord>,
    pub pod_names: &'a mut dyn Table<Addr, PodName>,
}

/// The content of the maps whose values have versions, as it is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Versions {
    /// `endpoints`.
    pub endpoints: BTreeMap<Addr, Endpoint>,
    /// `link_policy`.
    pub link_policy: BTreeMap<u32, Versioned<u32>>,
    /// `ip_class`.
    pub ip_class: BTreeMap<Addr, Versioned<u32>>,
    /// `cidr_class`.
    pub cidr_class: BTreeMap<Prefix<Block>, Versioned<u32>>,
}

impl Versions {
    /// Fills in what is in force at a generation.
    pub fn write_to(&self, desired: &mut Desired, generation: u32) {
        let endpoints = self
            .endpoints
            .iter()
            .map(|(addr, raw)| (*addr, EndpointPolicy { link: raw.link, policy: raw.policy.at(generation) }));
        desired.endpoints = endpoints.filter(|(_, e)| e.policy.flags != 0).collect();
        let at = |value: &Versioned<u32>| value.at(generation);
        let links = self.link_policy.iter().map(|(link, raw)| (*link, at(raw)));
        desired.link_policy = links.filter(|(_, flags)| *flags != 0).collect();
        let classes = self.ip_class.iter().map(|(addr, raw)| (*addr, at(raw)));
        desired.ip_class = classes.filter(|(_, class)| *class != class::ABSENT).collect();
        desired.cidr_class = self.cidr_class.iter().map(|(block, raw)| (*block, at(raw))).collect();
    }
}
