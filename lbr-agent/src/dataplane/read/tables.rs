//! The maps that the agent writes, as the plain data that it writes them from.

use std::collections::BTreeMap;

use aya::Pod;
use lbr_common::addr::Addr;
use lbr_common::maps::{self, MapSpec};
use lbr_common::policy::{Block, Endpoint, Prefix, Versioned, class};

use super::Pinned;
use crate::desired::{Desired, EndpointPolicy};

/// How often a read is begun anew because a policy change came into force meanwhile.
const TRIES: usize = 3;

impl Pinned {
    /// The content of all maps that the agent writes.
    pub fn tables(&self) -> anyhow::Result<Desired> {
        self.tables_of(&maps::PINNED)
    }

    /// The content of these maps, as far as the agent writes them; all others are left empty.
    pub fn tables_of(&self, wanted: &[MapSpec]) -> anyhow::Result<Desired> {
        let mut generation = self.state()?.generation;
        for _ in 1..TRIES {
            let tables = self.read(wanted, generation)?;
            let after = self.state()?.generation;
            if after == generation {
                return Ok(tables);
            }
            // One switch while reading is covered by the versions in the maps, a second one is not.
            generation = after;
        }
        self.read(wanted, generation)
    }

    fn read(&self, wanted: &[MapSpec], generation: u32) -> anyhow::Result<Desired> {
        let read = Reader { pinned: self, wanted };
        Ok(Desired {
            frontends: read.hash(&maps::FRONTENDS)?,
            slots: read.hash(&maps::SLOTS)?,
            backends: read.hash(&maps::BACKENDS)?,
            maglev: read.hash(&maps::MAGLEV)?,
            services: read.hash(&maps::SERVICES)?,
            rejected: read.hash(&maps::REJECTED)?,
            links: read.hash(&maps::LINKS)?,
            uplinks: read.hash(&maps::UPLINKS)?,
            source_ranges: read.trie(&maps::SOURCE_RANGES)?,
            service_cidrs: read.trie(&maps::SERVICE_CIDRS)?,
            endpoints: endpoints(read.hash(&maps::ENDPOINTS)?, generation),
            link_policy: link_policy(read.hash(&maps::LINK_POLICY)?, generation),
            ip_class: ip_class(read.hash(&maps::IP_CLASS)?, generation),
            cidr_class: cidr_class(read.trie(&maps::CIDR_CLASS)?, generation),
            port_class: read.trie(&maps::PORT_CLASS)?,
            verdicts: read.hash(&maps::VERDICTS)?,
            policies: read.hash(&maps::POLICIES)?,
            rules: read.hash(&maps::RULES)?,
            set_members: read.hash(&maps::SET_MEMBERS)?,
            classes: read.hash(&maps::CLASSES)?,
            pod_names: read.hash(&maps::POD_NAMES)?,
            health_ports: BTreeMap::new(),
        })
    }
}

struct Reader<'a> {
    pinned: &'a Pinned,
    wanted: &'a [MapSpec],
}

impl Reader<'_> {
    fn hash<K: Pod + Ord, V: Pod>(&self, spec: &MapSpec) -> anyhow::Result<BTreeMap<K, V>> {
        if self.skips(spec) {
            return Ok(BTreeMap::new());
        }
        Ok(self.pinned.hash(spec)?.into_iter().collect())
    }

    fn trie<K: Pod + Ord, V: Pod>(&self, spec: &MapSpec) -> anyhow::Result<BTreeMap<Prefix<K>, V>> {
        if self.skips(spec) {
            return Ok(BTreeMap::new());
        }
        Ok(self.pinned.trie(spec)?.into_iter().collect())
    }

    fn skips(&self, spec: &MapSpec) -> bool {
        !self.wanted.iter().any(|wanted| wanted.name == spec.name)
    }
}

fn endpoints(map: BTreeMap<Addr, Endpoint>, generation: u32) -> BTreeMap<Addr, EndpointPolicy> {
    let now =
        |endpoint: Endpoint| EndpointPolicy { link: endpoint.link, policy: endpoint.policy.at(generation) };
    let all = map.into_iter().map(|(addr, endpoint)| (addr, now(endpoint)));
    all.filter(|(_, endpoint)| endpoint.policy.flags != 0).collect()
}

fn link_policy(map: BTreeMap<u32, Versioned<u32>>, generation: u32) -> BTreeMap<u32, u32> {
    let all = map.into_iter().map(|(link, flags)| (link, flags.at(generation)));
    all.filter(|&(_, flags)| flags != 0).collect()
}

fn ip_class(map: BTreeMap<Addr, Versioned<u32>>, generation: u32) -> BTreeMap<Addr, u32> {
    let all = map.into_iter().map(|(addr, class)| (addr, class.at(generation)));
    all.filter(|&(_, class)| class != class::ABSENT).collect()
}

fn cidr_class(map: BTreeMap<Prefix<Block>, Versioned<u32>>, generation: u32) -> BTreeMap<Prefix<Block>, u32> {
    map.into_iter().map(|(block, class)| (block, class.at(generation))).collect()
}

#[cfg(test)]
mod tests {
    use lbr_common::policy::{Policy, policy_flags};

    use super::*;

    fn versioned<T>(old: T, new: T) -> Versioned<T> {
        Versioned { old, new, since: 5 }
    }

    fn addr(last: u8) -> Addr {
        Addr::v4([10, 0, 0, last])
    }

    #[test]
    fn endpoints_are_those_of_the_generation() {
        let pod = Policy { set: 3, audit: 0, flags: policy_flags::POD };
        let appears = Endpoint { link: 7, policy: versioned(Policy::default(), pod) };
        let goes = Endpoint { link: 8, policy: versioned(pod, Policy::default()) };
        let map = BTreeMap::from([(addr(1), appears), (addr(2), goes)]);
        let before = endpoints(map.clone(), 4);
        assert_eq!(before, BTreeMap::from([(addr(2), EndpointPolicy { link: 8, policy: pod })]));
        let after = endpoints(map, 5);
        assert_eq!(after, BTreeMap::from([(addr(1), EndpointPolicy { link: 7, policy: pod })]));
    }

    #[test]
    fn links_without_flags_are_left_out() {
        let map =
            BTreeMap::from([(1, versioned(0, policy_flags::POD)), (2, versioned(policy_flags::POD, 0))]);
        assert_eq!(link_policy(map.clone(), 4), BTreeMap::from([(2, policy_flags::POD)]));
        assert_eq!(link_policy(map, 5), BTreeMap::from([(1, policy_flags::POD)]));
    }

    #[test]
    fn absent_classes_are_left_out() {
        let map =
            BTreeMap::from([(addr(1), versioned(class::ABSENT, 2)), (addr(2), versioned(2, class::ABSENT))]);
        assert_eq!(ip_class(map.clone(), 4), BTreeMap::from([(addr(2), 2)]));
        assert_eq!(ip_class(map, 5), BTreeMap::from([(addr(1), 2)]));
    }

    #[test]
    fn blocks_have_the_class_of_the_generation() {
        let block = Prefix { data: Block::of(&addr(0)), len: Block::FULL };
        let map = BTreeMap::from([(block, versioned(2, 3))]);
        assert_eq!(cidr_class(map.clone(), 4), BTreeMap::from([(block, 2)]));
        assert_eq!(cidr_class(map, 5), BTreeMap::from([(block, 3)]));
    }
}
