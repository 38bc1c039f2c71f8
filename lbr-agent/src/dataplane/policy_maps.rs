//! The tables of policy in the kernel.

use aya::Ebpf;
use lbr_common::addr::Addr;
use lbr_common::maps;
use lbr_common::policy::{Allow, Block, Endpoint, Ports, VerdictKey, Versioned};
use lbr_common::text::{ClassRecord, Member, MemberKey, PodName, PolicyRecord, RuleKey, RuleText};

use super::PolicyTables;
use super::handles::{LpmTable, MapTable};

/// The maps of [`PolicyTables`].
pub(super) struct PolicyMaps {
    endpoints: MapTable<Addr, Endpoint>,
    link_policy: MapTable<u32, Versioned<u32>>,
    ip_class: MapTable<Addr, Versioned<u32>>,
    cidr_class: LpmTable<Block, Versioned<u32>>,
    port_class: LpmTable<Ports, u32>,
    verdicts: MapTable<VerdictKey, Allow>,
    policies: MapTable<u32, PolicyRecord>,
    rules: MapTable<RuleKey, RuleText>,
    set_members: MapTable<MemberKey, Member>,
    classes: MapTable<u32, ClassRecord>,
    pod_names: MapTable<Addr, PodName>,
}

impl PolicyMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        Ok(Self {
            endpoints: MapTable::take(ebpf, &maps::ENDPOINTS)?,
            link_policy: MapTable::take(ebpf, &maps::LINK_POLICY)?,
            ip_class: MapTable::take(ebpf, &maps::IP_CLASS)?,
            cidr_class: LpmTable::take(ebpf, &maps::CIDR_CLASS)?,
            port_class: LpmTable::take(ebpf, &maps::PORT_CLASS)?,
            verdicts: MapTable::take(ebpf, &maps::VERDICTS)?,
            policies: MapTable::take(ebpf, &maps::POLICIES)?,
            rules: MapTable::take(ebpf, &maps::RULES)?,
            set_members: MapTable::take(ebpf, &maps::SET_MEMBERS)?,
            classes: MapTable::take(ebpf, &maps::CLASSES)?,
            pod_names: MapTable::take(ebpf, &maps::POD_NAMES)?,
        })
    }

    pub(super) fn tables(&mut self) -> PolicyTables<'_> {
        PolicyTables {
            endpoints: &mut self.endpoints,
            link_policy: &mut self.link_policy,
            ip_class: &mut self.ip_class,
            cidr_class: &mut self.cidr_class,
            port_class: &mut self.port_class,
            verdicts: &mut self.verdicts,
            policies: &mut self.policies,
            rules: &mut self.rules,
            set_members: &mut self.set_members,
            classes: &mut self.classes,
            pod_names: &mut self.pod_names,
        }
    }
}
