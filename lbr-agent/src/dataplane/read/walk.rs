//! How full the maps are. The kernel keeps no count, so maps that the programs write have to be walked.

use std::collections::BTreeMap;

use aya::Pod;
use aya::maps::{HashMap, MapData, PerCpuHashMap};
use lbr_common::conntrack::{Timeouts, lifetime};
use lbr_common::flow::{Flow, FragmentKey, FragmentPorts, SocketKey, SocketPeer, flow_flags};
use lbr_common::id::ServiceId;
use lbr_common::maps::{self, MapSpec, Shape};
use lbr_common::policy::DenialKey;
use lbr_common::service::{Affinity, AffinityKey, Traffic};
use lbr_common::text::ServiceName;
use lbr_common::tuple::Tuple;
use lbr_common::verdict::Counter;
use nix::time::{ClockId, clock_gettime};

use super::Pinned;

/// Services with a count of their own: the busiest.
const BUSIEST: usize = 100;

/// The result of a walk over the maps that the programs write.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// Entries, by name of the map.
    pub entries: Vec<(&'static str, usize)>,
    /// Connections with a recent packet.
    pub flows: usize,
    /// The same for the Service ports with most connections.
    pub services: Vec<(ServiceName, usize)>,
    /// Traffic of the Service ports with most bytes.
    pub traffic: Vec<(ServiceName, Traffic)>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Its name.
    pub map: &'static str,
    /// Its entries.
    pub entries: usize,
    /// How many fit.
    pub max_entries: u32,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $spec:ident $field:ident $name:literal: $shape:ident $role:ident [$key:ty, $value:ty] $size:expr;)*) => {
        /// Entries of the maps that the agent writes.
        fn own_counts(&self) -> anyhow::Result<Vec<(&'static str, usize)>> {
            Ok(vec![$((maps::$spec.name, counts!($shape self, &maps::$spec, $key, $value)),)*])
        }
    };
    (hash $self:expr, $spec:expr, $key:ty, $value:ty) => {
        $self.count::<$key, $value>($spec)?
    };
    (lpm $self:expr, $spec:expr, $key:ty, $value:ty) => {
        $self.trie::<$key, $value>($spec)?.len()
    };
}

impl Pinned {
    lbr_common::agent_maps!(counts);

    /// How full each map is. `walk`: entries of the maps that the programs write.
    pub fn fill(&self, walk: &Walk) -> anyhow::Result<Vec<Fill>> {
        let mut counts: BTreeMap<&str, usize> =
            self.own_counts()?.into_iter().chain(walk.entries.clone()).collect();
        counts.insert(maps::AFFINITY.name, self.count::<AffinityKey, Affinity>(&maps::AFFINITY)?);
        let sizes = self.max_entries()?.into_iter();
        let fill = |(map, max_entries)| Some(Fill { map, entries: *counts.get(map)?, max_entries });
        Ok(sizes.filter_map(fill).collect())
    }

    /// How many entries fit into each map that has entries, as it was made.
    pub fn max_entries(&self) -> anyhow::Result<Vec<(&'static str, u32)>> {
        // Arrays are always full, and the ring is measured in bytes.
        let has_entries =
            |spec: &&MapSpec| !matches!(spec.shape, Shape::Array | Shape::PerCpuArray | Shape::Ring);
        let specs = maps::PINNED.iter().filter(has_entries);
        specs.map(|spec| Ok((spec.name, self.size(spec)?))).collect()
    }

    fn size(&self, spec: &MapSpec) -> anyhow::Result<u32> {
        Ok(MapData::from_pin(self.dir.join(spec.name))?.info()?.max_entries())
    }

    /// Walks. Costs some system calls for each entry.
    pub fn walk(&self) -> anyhow::Result<Walk> {
        let flows: HashMap<MapData, Tuple, Flow> = HashMap::try_from(self.map(&maps::FLOWS)?)?;
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
        let now = u64::try_from(now.tv_sec() * 1_000_000_000 + now.tv_nsec())?;
        // An entry that disappears during the walk sends it back to the beginning: the bound makes it end.
        let all = flows.iter().take(self.size(&maps::FLOWS)? as usize);
        let mut services = BTreeMap::new();
        let count = tally(all.filter_map(Result::ok).map(|(_, flow)| flow), now, &mut services);
        let denials: PerCpuHashMap<MapData, DenialKey, Counter> =
            PerCpuHashMap::try_from(self.map(&maps::DENIALS)?)?;
        let denials = denials.keys().take(self.size(&maps::DENIALS)? as usize).count();
        let traffic = self.traffic()?;
        Ok(Walk {
            entries: vec![
                (maps::TRAFFIC.name, traffic.len()),
                (maps::FLOWS.name, count),
                (maps::FRAGMENTS.name, self.count::<FragmentKey, FragmentPorts>(&maps::FRAGMENTS)?),
                (maps::SOCKETS.name, self.count::<SocketKey, SocketPeer>(&maps::SOCKETS)?),
                (maps::DENIALS.name, denials),
            ],
            flows: services.values().sum(),
            services: self.busiest(services.into_iter().collect(), |&count| count)?,
            traffic: self.busiest(traffic, |t| t.request_bytes + t.response_bytes)?,
        })
    }

    fn count<K: Pod, V: Pod>(&self, spec: &MapSpec) -> anyhow::Result<usize> {
        let map: HashMap<MapData, K, V> = HashMap::try_from(self.map(spec)?)?;
        Ok(map.keys().take(self.size(spec)? as usize).count())
    }

    fn busiest<T, O: Ord>(
        &self,
        mut services: Vec<(ServiceId, T)>,
        by: impl Fn(&T) -> O,
    ) -> anyhow::Result<Vec<(ServiceName, T)>> {
        let names: HashMap<MapData, ServiceId, ServiceName> = HashMap::try_from(self.map(&maps::SERVICES)?)?;
        services.retain(|(service, _)| service.is_some());
        services.sort_by_key(|(service, value)| (std::cmp::Reverse(by(value)), *service));
        services.truncate(BUSIEST);
        // A removed Service has no name any more.
        let named = |(service, value)| names.get(&service, 0).ok().map(|name| (name, value));
        Ok(services.into_iter().filter_map(named).collect())
    }
}

/// How many entries there are. Counts the connections among them that live, by Service.
///
/// A lifetime that a flag has changed is not known here: the default one counts.
fn tally(flows: impl Iterator<Item = Flow>, now: u64, services: &mut BTreeMap<ServiceId, usize>) -> usize {
    let mut entries = 0;
    for flow in flows {
        entries += 1;
        let life = lifetime(flow.state(), flow.to.proto, &Timeouts::DEFAULT);
        if flow.flags & flow_flags::REPLY == 0 && !flow.state().is_over() && flow.silence(now) <= life {
            *services.entry(flow.service).or_insert(0) += 1;
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use lbr_common::conntrack::{SECOND_NS, State};
    use lbr_common::tuple::proto;

    use super::*;

    #[test]
    fn a_connection_is_counted_once_while_it_lives() {
        let now = 10_000 * SECOND_NS;
        let life = lifetime(State::Replied, proto::UDP, &Timeouts::DEFAULT);
        let to = Tuple { proto: proto::UDP, ..Tuple::default() };
        let flow = |service: u32, flags, state: State, ago| Flow {
            to,
            service: service.into(),
            flags,
            state: state as u32,
            last_seen: now - ago,
            ..Flow::default()
        };
        let flows = [
            flow(1, 0, State::New, 0),
            flow(1, flow_flags::REPLY, State::New, 0),
            flow(1, flow_flags::HAIRPIN, State::Replied, life),
            flow(1, 0, State::Replied, life + 1),
            flow(2, 0, State::Closed, 0),
            flow(2, 0, State::Reset, 0),
            flow(0, flow_flags::NO_NAT, State::Established, 0),
        ];
        let mut services = BTreeMap::new();
        assert_eq!(tally(flows.into_iter(), now, &mut services), 7);
        assert_eq!(services, BTreeMap::from([(ServiceId::NONE, 1), (1.into(), 2)]));
    }
}
